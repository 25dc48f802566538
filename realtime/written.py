"""Files that a line writes beside its messages: what becomes of a disk that is full, and of a recording's name."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from realtime.errors import LineError, UsageError
from realtime.recording import RecordingWriter, partial_of


@contextmanager
def disk(path: Path | None) -> Iterator[None]:
    """Turns a failing write to a file of ours into one clear line."""
    try:
        yield
    except OSError as error:
        raise LineError(f"cannot write {path}: {error.strerror}; free some space or name another file") from error


@contextmanager
def recording_to(path: Path, marks: Collection[str] = ()) -> Iterator[RecordingWriter]:
    """A recording; LineError where it cannot be finished, and then it stays NAME.partial. marks: see there.

    UsageError where there is one already, finished or left by a crash: nothing is ever overwritten.
    """
    if path.is_dir():  # noticed only at the end otherwise
        raise UsageError(f"cannot record to {path}: it is a folder; name a file")
    for taken in (path, partial_of(path)):
        if os.path.lexists(taken):
            raise UsageError(
                f"cannot record to {path}: {taken} is there and would be lost; move it or name another file"
            )
    with disk(path), RecordingWriter(path, marks) as writer:
        yield writer
