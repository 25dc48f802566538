"""Typed access to a JSON object of a file, each refusal one line that names the key, the rule and the value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from realtime.errors import BundleError, LineError

REMEDY = "copy the bundle again or export it anew"
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")  # an action's id is a part of a bus topic, where dots separate


class Fields:
    """One JSON object with exactly these keys. Each method but `refuse` returns a checked value or refuses.

    path: the bundle's folder, for messages. prefix: where the object stands in bundle.json, with a dot behind it.
    Files of another kind have a subclass that says what they are called.
    """

    what: ClassVar[str] = "bundle"
    file: ClassVar[str] = "bundle.json"
    remedy: ClassVar[str] = REMEDY
    error: ClassVar[type[LineError]] = BundleError

    def __init__(self, path: Path, values: Any, keys: tuple[str, ...], prefix: str = "") -> None:
        self.path, self.values, self.prefix = path, values, prefix
        if not isinstance(values, dict):
            self.refuse(f"{prefix or self.file} must be an object, got {short(values)}")
        missing, unknown = [key for key in keys if key not in values], [key for key in values if key not in keys]
        if missing:
            self.refuse(f"{self.file} lacks the key {prefix}{missing[0]!r}")
        if unknown:
            self.refuse(f"{self.file} has the key {prefix}{unknown[0]!r}, which its schema does not know")

    def refuse(self, what: str) -> NoReturn:
        """Raises the file's error."""
        raise self.error(f"{self.what} {self.path}: {what}; {self.remedy}")

    def need(self, good: bool, key: str, rule: str) -> None:
        """Refuses the key's value unless `good`."""
        if not good:
            self.refuse(f"{self.file} key {self.prefix}{key!r} must be {rule}, got {short(self.values[key])}")

    def text(self, key: str) -> str:
        """A printable line."""
        value = self.values[key]
        good = isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()
        self.need(good, key, "a line of 1 to 200 characters")
        return value

    def number(self, key: str, low: float, high: float) -> float:
        """A finite number in [low, high]."""
        value = self.values[key]
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
        self.need(good, key, f"a number in [{low}, {high}]")
        return float(value)

    def whole(self, key: str, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        value = self.values[key]
        good = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        self.need(good, key, f"a whole number in [{low}, {high}]")
        return value

    def names(self, key: str) -> tuple[str, ...]:
        """A list of different names, not empty."""
        value = self.values[key]
        good = isinstance(value, list) and value and all(isinstance(v, str) and _ID.fullmatch(v) for v in value)
        self.need(bool(good), key, "a list of names made of letters, digits, - and _")
        self.need(len(set(value)) == len(value), key, "without repeated names")
        return tuple(value)


def short(value: Any) -> str:
    """The value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
