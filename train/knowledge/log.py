"""Work done clip by clip that outlives an interrupt: JSON lines, one a finished clip.

A line that an interrupt cut short is dropped and its clip done again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from realtime.errors import UsageError


def logged(
    names: Sequence[str],
    make: Callable[[str], dict[str, Any]],
    log: Path,
    advance: Callable[[int], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """What `make` says of each name, in order, as JSON gives it back; what the log has is not made again.

    log: a file in a folder that is made where it is not there. advance: told of names as they are done.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    done = resumed(log)
    with log.open("a", encoding="utf-8") as file:
        for name in names:
            if name not in done:
                line = json.dumps({"name": name, **make(name)}, ensure_ascii=False)
                file.write(line + "\n")
                file.flush()
                done[name] = json.loads(line)
            advance(1)
    return [done[name] for name in names]


def resumed(log: Path) -> dict[str, dict[str, Any]]:
    """The lines of a log by name; a last line without its end is cut off the file. UsageError for other damage."""
    if not log.is_file():
        return {}
    whole = log.read_bytes()
    kept = whole[: whole.rfind(b"\n") + 1]
    if len(kept) < len(whole):
        with log.open("r+b") as file:
            file.truncate(len(kept))
    try:
        lines = [json.loads(line) for line in kept.decode("utf-8").split("\n") if line]
        return {line["name"]: line for line in lines}
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{log} is damaged ({error}); delete it and run the same command again") from error


def key_of(*settings: object) -> str:
    """A short name for settings: a log made with others is not taken up."""
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:16]
