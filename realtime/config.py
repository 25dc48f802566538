"""The settings of a line: defaults, the configuration file and the command line put together, each with its origin.

What stands on the command line wins over a camera's table, that over the top of the file, and that over the default.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tyro

from realtime import configfile
from realtime.command import parse
from realtime.configfile import NONE, ConfigFile, is_optional
from realtime.errors import UsageError
from realtime.secrets import redacted, written
from realtime.settings import Config, InputFlags, OutputFlags, ProgramFlags, RecognitionFlags
from realtime.version import versions

# Every setting that a file may have, group by group: name with _ -> type.
GROUPS: dict[str, dict[str, Any]] = {
    name: get_type_hints(group)
    for name, group in (("input", InputFlags), ("recognition", RecognitionFlags), ("output", OutputFlags))
}
HINTS: dict[str, Any] = {name: hint for group in GROUPS.values() for name, hint in group.items()}
# Addresses at the top of a file are the first camera's; those of the next count up. Replays take the port after --pub.
STEPS = {"pub": 2, "control": 1, "http": 1}
COMMAND_LINE, DEFAULT = "command line", "default"


@dataclass(frozen=True)
class Settings:
    """A line's configuration and where each setting comes from, by name with _."""

    config: Config
    origins: Mapping[str, str]

    @property
    def values(self) -> dict[str, Any]:
        """Every setting that a file may have, by name."""
        return {name: value for group in GROUPS for name, value in vars(getattr(self.config, group)).items()}


def read_command_line(kind: type[Config], prog: str, examples: str, args: list[str] | None = None) -> Config:
    """The settings of realtime.run, with those of --config; --print-config prints them and ends the program.

    UsageError where the file is wrong or names several cameras and --name none of them.
    """
    args = sys.argv[1:] if args is None else args
    parsed = parse(kind, prog, examples, args)
    program = parsed.program
    if program.version:
        print("\n".join(versions()))
        raise SystemExit(0)
    if program.config is None and not program.print_config:
        return _without_words_for_none(parsed)
    file = configfile.read(program.config, HINTS) if program.config else None
    settings = resolve(_without_words_for_none(parsed), _given(kind, prog, args, parsed), file)
    if program.print_config:
        print(as_toml(settings), end="")
        raise SystemExit(0)
    return settings.config


def resolve(parsed: Config, given: set[str], file: ConfigFile | None) -> Settings:
    """Puts the layers together. parsed: the command line over the defaults; given: what really stands on it."""
    said = {name: value for group in GROUPS for name, value in vars(getattr(parsed, group)).items()}
    values, origins = dict(said), {name: COMMAND_LINE if name in given else DEFAULT for name in said}
    camera = _chosen(file, said["name"] if "name" in given else None) if file else None
    if file is not None:
        layers = _layers(file, camera)
        for name, (value, origin) in layers.items():
            beaten = name in given or (name == "source_from" and "source" in given)
            if not beaten or (name == "name" and camera is not None):
                values[name], origins[name] = value, origin
    groups = {g: type(getattr(parsed, g))(**{n: values[n] for n in names}) for g, names in GROUPS.items()}
    return Settings(Config(**groups, program=parsed.program), origins)


def read_cameras(path: Path) -> list[Settings]:
    """Every camera of a file, in its order, each with a name; UsageError where two of them collide."""
    file = configfile.read(path, HINTS)
    if not file.cameras:
        raise UsageError(f"{path} names no camera; write a table [camera.NAME] for each")
    empty = Config(InputFlags(), RecognitionFlags(), OutputFlags(), ProgramFlags(config=path))
    blank = {name: dataclasses.replace(empty, input=InputFlags(name=name)) for name in file.cameras}
    found = [resolve(blank[name], {"name"}, file) for name in file.cameras]
    refuse_collisions(path, found)
    return found


def as_toml(settings: Settings, table: str | None = None) -> str:
    """Every setting as TOML that gives the same settings again, with its origin behind it; secrets are left out.

    table: the camera whose table it is to be, None for the top of a file.
    """
    lines = [f"[camera.{table}]"] if table else []
    values = settings.values
    for group, names in GROUPS.items():
        lines.append(f"# {group}")
        for name in names:
            if table and name == "name":
                continue
            value, origin = values[name], settings.origins[name]
            if name == "source" and written(value) != value:
                value, origin = written(value), f"{origin}, without its secrets"
            lines.append(f"{name.replace('_', '-')} = {_toml(value)}  # {_plain(origin)}")
    return "\n".join(lines) + "\n"


def refuse_collisions(path: Path, cameras: Sequence[Settings]) -> None:
    """UsageError where two cameras have the same device, stream, address, port or file."""
    taken: dict[tuple[str, str], str] = {}
    for settings in cameras:
        name = settings.config.input.name or "?"
        for what, thing in _exclusive(settings):
            other = taken.setdefault((what, thing), name)
            if other != name:
                raise UsageError(
                    f"{path}: cameras {other} and {name} have the same {what} {redacted(thing)}; "
                    f"change it in [camera.{name}]"
                )


def _exclusive(settings: Settings) -> list[tuple[str, str]]:
    """(what, which) of everything that no two cameras may share."""
    given, told = settings.config.input, settings.config.output
    found = []
    source = f"/dev/video{given.source}" if given.source.isdecimal() else given.source
    if source.startswith("/dev/") or "://" in source or source == "-":
        found.append(("source", source))
    if given.source_from is not None:
        found.append(("source-from", str(given.source_from.absolute())))
    for address, ports in ((told.pub, 2), (told.control, 1), (told.http, 1)):
        host, port = _port(address or NONE)
        if port is not None:
            found += [("port", f"{port + step}") for step in range(ports)]
        elif host.startswith("ipc://"):
            found.append(("address", host))
    found += [("file", str(p.absolute())) for p in (told.events, told.journal, told.record) if p is not None]
    return found


def _port(address: str) -> tuple[str, int | None]:
    """tcp://127.0.0.1:5556 -> (tcp://127.0.0.1:, 5556); None where no port is told."""
    found = re.fullmatch(r"((?:tcp://)?(?:\[[^\]]*\]|[^:/]*):)(\d+)", address)
    return (found[1], int(found[2])) if found else (address, None)


def _chosen(file: ConfigFile, name: str | None) -> str | None:
    """The camera of a file that is meant; None where the file has no tables of cameras."""
    names = list(file.cameras)
    if not names:
        return None
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise UsageError(
            f"{file.path} has {len(names)} cameras ({listed}): name one with --name {names[0]}, "
            f"or run all: python -m realtime.fleet {file.path}"
        )
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        advice = f"did you mean {near[0]}?" if near else f"it has {', '.join(names[:10])}"
        raise UsageError(f"{file.path} has no table [camera.{name}]; {advice}")
    return name


def _layers(file: ConfigFile, camera: str | None) -> dict[str, tuple[object, str]]:
    """What a file says for one camera: name -> (value, origin)."""
    found: dict[str, tuple[object, str]] = {n: (g.value, f"{file.path}:{g.line}") for n, g in file.top.items()}
    if camera is None:
        return found
    index = list(file.cameras).index(camera)
    found.setdefault("pub", (OutputFlags.pub, DEFAULT))
    for name, step in STEPS.items():
        value, origin = found.get(name, (None, ""))
        if index and isinstance(value, str):
            counted = _counted(file, camera, value, index * step)
            found[name] = (counted, origin if counted == value else f"{origin}, counted up for camera {index + 1}")
    own = file.cameras[camera]
    if "source" in own:  # a camera's own address beats a file of addresses named for all
        found.pop("source_from", None)
    found |= {n: (g.value, f"{file.path}:{g.line}") for n, g in own.items()}
    found["name"] = (camera, f"{file.path}:{file.lines[camera]}")
    return {name: (_named(value, camera), origin) for name, (value, origin) in found.items()}


def _counted(file: ConfigFile, camera: str, address: str, by: int) -> str:
    host, port = _port(address)
    if port is None or port == 0:
        return address
    if port + by + 1 > 65535:
        raise UsageError(f"{file.path}: camera {camera} would get port {port + by}; ports end at 65535")
    return f"{host}{port + by}"


def _named(value: object, camera: str) -> object:
    """{name} in text and paths is the camera's name, so that one line at the top gives each its own file."""
    if isinstance(value, Path):
        return Path(str(value).replace("{name}", camera))
    return value.replace("{name}", camera) if isinstance(value, str) else value


def _without_words_for_none(config: Config) -> Config:
    """The command line's --http none is what the file's http = "none" is: absent."""
    groups = {}
    for group, names in GROUPS.items():
        flags = getattr(config, group)
        absent = [n for n, hint in names.items() if is_optional(hint) and str(getattr(flags, n)) == NONE]
        groups[group] = dataclasses.replace(flags, **dict.fromkeys(absent)) if absent else flags
    return dataclasses.replace(config, **groups)


def _given(kind: type[Config], prog: str, args: list[str], parsed: Config) -> set[str]:
    """Which settings stand on the command line: those that come out the same whatever their defaults are."""
    others = {
        group: type(getattr(parsed, group))(
            **{name: _another(getattr(parsed, group), name, hint) for name, hint in names.items()}
        )
        for group, names in GROUPS.items()
    }
    default = Config(**others, program=parsed.program)
    flat: Any = tyro.conf.OmitArgPrefixes[kind]  # type: ignore[valid-type, misc]
    again = tyro.cli(flat, prog=f"python -m {prog}", args=args, default=default)
    return {
        name
        for group, names in GROUPS.items()
        for name in names
        if getattr(getattr(again, group), name) == getattr(getattr(parsed, group), name)
    }


def _another(flags: object, name: str, hint: Any) -> Any:
    """A value of this type that is not the one parsed."""
    value = getattr(flags, name)
    if is_optional(hint):
        hint = next(one for one in get_args(hint) if one is not type(None))
    if get_origin(hint) is Literal:
        return next(choice for choice in get_args(hint) if choice != value)
    if hint is bool:
        return not value
    if hint in (int, float):
        return hint(0 if value else 1)
    return hint(f"not {value}")


def _toml(value: object) -> str:
    if value is None:
        return f'"{NONE}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    try:
        str(value).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{str(value)!r} is not UTF-8, so no TOML file can hold it; rename it") from error
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _plain(text: str) -> str:
    """Fit for a comment."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
