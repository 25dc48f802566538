"""The configuration file: TOML read with the line of each key, every fault told by file, line and key.

The only door to tomli, which Python 3.10 needs. Flags are keys, with - or _; `[camera.NAME]` tables override.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from realtime.errors import UsageError
from realtime.settings import NAME

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LONGEST = 1_000_000  # bytes; some 4000 cameras
NONE = "none"  # how a file and the command line say that an optional setting is absent; TOML has no null


@dataclass(frozen=True)
class Given:
    """A value, already of its setting's type, and the line of the file where it stands."""

    value: object
    line: int


@dataclass(frozen=True)
class ConfigFile:
    """What a file says: settings for all cameras, and by name those of each camera."""

    path: Path
    top: Mapping[str, Given] = field(default_factory=dict)
    cameras: Mapping[str, Mapping[str, Given]] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)  # of each camera's table


def read(path: Path, hints: Mapping[str, Any]) -> ConfigFile:
    """Reads a file; hints: the type of each setting by its name with _.

    UsageError names the file, the line, the key and what is expected.
    """
    text = _text(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _broken(path, text, error, hints) from error
    except RecursionError as error:
        raise UsageError(f"{path}: nested too deeply; settings are flat keys and [camera.NAME] tables") from error
    if not document:
        raise UsageError(f"{path} is empty; write at least source = ... (docs/operations.md)")
    reader = _Reader(path, hints)
    cameras_named = document.pop("camera", {})
    lines = dict(_lines(path, text, hints))
    if not isinstance(cameras_named, dict):
        at = f"{path}:{lines.get(('camera',), 1)}"
        raise UsageError(f"{at}: camera names the tables [camera.NAME]; for one camera write source = ...")
    top = reader.table((), document, lines)
    cameras, begins = {}, {}
    for name, table in cameras_named.items():
        begins[name] = lines.get(("camera", name), 1)
        if not NAME.fullmatch(name):
            raise UsageError(f"{path}:{begins[name]}: camera name {name!r}: 1 to 40 letters, digits, - and _")
        if not isinstance(table, dict):
            raise UsageError(f"{path}:{begins[name]}: {name} is not a camera; write a table [camera.{name}]")
        cameras[name] = reader.table(("camera", name), table, lines)
        if "name" in cameras[name]:
            line = cameras[name]["name"].line
            raise UsageError(f"{path}:{line}: name: the camera of [camera.{name}] is called {name}; rename the table")
    return ConfigFile(path, top, cameras, begins)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(LONGEST + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; check its path and permissions") from error
    if len(raw) > LONGEST:
        raise UsageError(f"{path} has more than {LONGEST / 1e6:g} MB, so it is no configuration; check its name")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(f"{path} is UTF-16; save it as UTF-8")
    if raw.startswith(b"\xef\xbb\xbf"):
        raise UsageError(f"{path} begins with a byte order mark; save it as UTF-8 without one")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: byte 0x{raw[error.start]:02x} is not UTF-8; save it as UTF-8") from error


def _broken(path: Path, text: str, error: Exception, names: Container[str]) -> UsageError:
    """A file that is no TOML, with its line and the key that stands there."""
    said = str(error)
    found = re.search(r"\(at line (\d+), column (\d+)\)", said)
    line = int(found[1]) if found else text.rstrip("\n").count("\n") + 1
    rows = text.split("\n")
    there = _key(rows[line - 1] if line <= len(rows) else "", names)
    if said.startswith(("Cannot overwrite", "Cannot declare", "Duplicate")):
        return UsageError(f"{path}:{line}: {there} is there twice; keep one of the two")
    why = said.split(" (at ")[0][:1].lower() + said.split(" (at ")[0][1:]
    hint = '; text stands in quotes: source = "0"' if said.startswith("Invalid value") else ""
    return UsageError(f"{path}:{line}: {there}: not TOML, {why}{hint}")


def _key(line: str, names: Container[str]) -> str:
    """What a line is about: a table, or one of these settings. All else on it may be a secret, whatever it seems."""
    table = re.match(r"\s*(\[{1,2}[\w.-]+\]{1,2})\s*(#|$)", line)
    key = re.match(r"\s*([\w-]+)\s*=", line)
    if table:
        return table[1]
    return f"{key[1]} = ..." if key and key[1].replace("-", "_") in names else "this line"


def _lines(path: Path, text: str, names: Container[str]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Path of each key and table with its line. Each statement of a valid file is read again by itself."""
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.split("\n"), 1):
        try:
            said = tomllib.loads(line)
        except tomllib.TOMLDecodeError as error:
            why = "a value stands on one line, key and all"
            raise UsageError(f"{path}:{number}: {_key(line, names)}: {why}") from error
        header = line.lstrip().startswith("[")
        for trail in _trails(said, leaves=not header):
            if header:
                table = trail
            for depth in range(1, len(trail) + 1):  # camera.door.source = ... names the camera as well
                yield (*(() if header else table), *trail[:depth]), number


def _trails(said: Mapping[str, Any], leaves: bool) -> Iterator[tuple[str, ...]]:
    """The dotted names in one statement: to each value, or to the innermost table of a header."""
    for key, value in said.items():
        inner = value if isinstance(value, dict) else {}
        if inner:
            yield from ((key, *trail) for trail in _trails(inner, leaves))
        else:
            yield (key,)


class _Reader:
    """Turns a table into values of the settings' types."""

    def __init__(self, path: Path, hints: Mapping[str, Any]) -> None:
        self._path, self._hints = path, hints

    def table(
        self, trail: tuple[str, ...], table: Mapping[str, Any], lines: Mapping[tuple[str, ...], int]
    ) -> dict[str, Given]:
        """Every key of one table."""
        found: dict[str, Given] = {}
        for key, value in table.items():
            line = lines.get((*trail, key), 1)
            name, at = key.replace("-", "_"), f"{self._path}:{line}"
            if name not in self._hints:
                raise UsageError(f"{at}: {self._unknown(key, value, trail)}")
            if name in found:
                raise UsageError(f"{at}: {key!r} is there twice, also in line {found[name].line}; keep one of the two")
            try:
                found[name] = Given(convert(value, self._hints[name]), line)
            except (ValueError, OverflowError):
                wanted = expected(self._hints[name])
                shown = "this" if name == "source" or "@" in str(value) else _shown(value)
                raise UsageError(f"{at}: {key} must be {wanted}, got {shown} ({_kind(value)})") from None
        return found

    def _unknown(self, key: str, value: object, trail: tuple[str, ...]) -> str:
        where = f" in [{'.'.join(trail)}]" if trail else ""
        if isinstance(value, (dict, list)) and not trail:
            return f"unknown table [{key}]; keys stand at the top, those of one camera in [camera.NAME]"
        if key == "camera":
            return f"unknown key 'camera'{where}; did you mean 'source'?"
        near = difflib.get_close_matches(key.replace("_", "-"), [n.replace("_", "-") for n in self._hints], n=1)
        advice = f"did you mean {near[0]!r}?" if near else "keys are the flags that python -m realtime.run --help lists"
        return f"unknown key {key!r}{where}; {advice}"


def is_optional(hint: Any) -> bool:
    """Whether a setting may be absent."""
    return get_origin(hint) in (Union, UnionType) and type(None) in get_args(hint)


def convert(value: object, hint: Any) -> object:
    """A TOML value as a setting's type; ValueError where it is none."""
    if is_optional(hint):
        if value == NONE:
            return None
        hint = next(one for one in get_args(hint) if one is not type(None))
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        raise ValueError
    if hint is float and type(value) is int:
        return float(value)
    if hint is Path and type(value) is str and value:
        return Path(value).expanduser()
    if type(value) is not hint:  # true is no whole number
        raise ValueError
    return value


def expected(hint: Any) -> str:
    """What a setting takes, in words."""
    if is_optional(hint):
        inner = next(one for one in get_args(hint) if one is not type(None))
        return f'{expected(inner)}, or "{NONE}"'
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in get_args(hint))
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text in quotes"}
    return words.get(hint, "a path in quotes")


def _shown(value: object) -> str:
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _kind(value: object) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", dict: "a table"}
    return names.get(type(value), "an array" if isinstance(value, list) else "a date or time")
