"""Typed access to a JSON object of a file, each refusal one line that names the key, the rule and the value."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from realtime.errors import BundleError, LineError

REMEDY = "copy the bundle again or export it anew"
MOST_BYTES = 4_000_000  # of a file; these have a few kB
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
    constants: ClassVar[bool] = False  # whether NaN may stand in the file, for its key to be named in the refusal

    @classmethod
    def document(cls, path: Path, file: Path) -> Any:
        """The JSON content of a file, any value; refused as `path`'s where it is none, too long or cannot be read."""
        where = f"{cls.what} {path}: {cls.file}"
        try:
            if file.exists() and not file.is_file():  # a pipe would wait for ever
                raise cls.error(f"{where} is no file; {cls.remedy}")
            with file.open("rb") as stream:
                raw = stream.read(MOST_BYTES + 1)
            if len(raw) > MOST_BYTES:
                raise cls.error(f"{where} is over {MOST_BYTES} bytes; {cls.remedy}")
            return json.loads(raw.decode("utf-8"), parse_constant=None if cls.constants else _no_constant)
        except OSError as error:
            raise cls.error(f"{where} cannot be read ({error.strerror}); {cls.remedy}") from error
        except (ValueError, RecursionError) as error:
            raise cls.error(f"{where} is not valid JSON ({short(str(error))}); {cls.remedy}") from error

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


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def short(value: Any) -> str:
    """The value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
