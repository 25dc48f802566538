"""The one small file that each tool of calib/ writes, and the lines that tell of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console

from realtime.atomic import write_whole
from realtime.errors import UsageError


def check_free(path: Path, replace: bool, flag: str = "--out") -> None:
    """UsageError where a file could not be written, or is there already: asked before the work, not after it."""
    if path.is_dir():
        raise UsageError(f"{flag} {path} is a folder; name a file in it, such as {path / 'cam.json'}")
    if not path.parent.is_dir():
        raise UsageError(f"{flag} {path}: there is no folder {path.parent}; make it, or name another file")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{flag} {path}: no permission to write to {path.parent}; name a file in another folder")
    if path.exists() and not replace:
        raise UsageError(f"{flag} {path} is there already; say --replace to write over it, or name another file")


def write(path: Path, content: bytes, flag: str = "--out") -> None:
    """Writes so that a reader sees the old file or the new one, never half of one; UsageError where it cannot."""
    try:
        write_whole(path, content)
    except OSError as error:
        raise UsageError(f"{flag} {path} cannot be written ({error.strerror}); name another file") from error


def write_document(path: Path, document: dict[str, Any]) -> None:
    """A calibration as JSON that people can read."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write(path, text.encode(errors="backslashreplace"))  # names of files may be no text; JSON escapes them so, too


def say(console: Console, text: str, style: str = "") -> None:
    """Prints a line as it is: neither cut at the terminal's width, which breaks paths, nor read for markup."""
    console.print(text, style=style or None, soft_wrap=True, markup=False)
