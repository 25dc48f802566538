"""Requests to a running line and how they are answered: typed, validated, JSON. A door to msgspec.

A request is an object with "command"; docs/control.md lists them. An answer has "ok": true and what was asked for, or
"ok": false, "error" (one line for people) and "code" (the exit code that this error would have).
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from realtime.errors import UsageError

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Folder = Annotated[str, Meta(min_length=1, max_length=4096)]


class Command(Struct, frozen=True, kw_only=True, tag_field="command", forbid_unknown_fields=True):
    """What a line is asked to do. id: of the asker, given back with the answer."""

    id: int | None = None


class Stats(Command, frozen=True, kw_only=True, tag="stats"):
    """How the line is doing."""


class Actions(Command, frozen=True, kw_only=True, tag="actions"):
    """What it can recognise: names, thresholds, whether enabled."""


class Enable(Command, frozen=True, kw_only=True, tag="enable"):
    """Lets an action start again."""

    action: Name


class Disable(Command, frozen=True, kw_only=True, tag="disable"):
    """Ends what is open of an action, and starts it no more."""

    action: Name


class Reload(Command, frozen=True, kw_only=True, tag="reload"):
    """Takes another bundle, if it is a good one. bundle: an absolute path on the line's machine."""

    bundle: Folder


class Shutdown(Command, frozen=True, kw_only=True, tag="shutdown"):
    """Ends open events, then the line, with exit code 0."""


AnyCommand = Stats | Actions | Enable | Disable | Reload | Shutdown
COMMANDS = ("stats", "actions", "enable", "disable", "reload", "shutdown")


def command_of(body: Any) -> AnyCommand:
    """The command in a request, given as JSON bytes or as the object already read; UsageError says what is wrong."""
    try:
        fields = msgspec.json.decode(body) if isinstance(body, bytes | str) else body
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f'a request is a JSON object with "command": {error}') from error
    name = fields.get("command") if isinstance(fields, dict) else None
    if name not in COMMANDS:
        raise UsageError(f"unknown command {name!r:.60}; {nearest(name, COMMANDS)}")
    try:
        command: AnyCommand = msgspec.convert(fields, AnyCommand)
    except (msgspec.ValidationError, RecursionError) as error:
        raise UsageError(f"{name}: {error}") from error
    return command


def nearest(name: object, known: tuple[str, ...]) -> str:
    """The name that was probably meant, or all there are."""
    close = difflib.get_close_matches(name, known, n=1) if isinstance(name, str) else []
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
