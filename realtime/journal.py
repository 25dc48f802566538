"""Files of JSON lines that are whole or absent, and the journal made of them. Standard library only.

The line writes a message to its journal before it publishes it, so whatever a subscriber can have seen is there.
Lines reach the kernel at once and the disk when the kernel pleases: a crash of the program loses nothing, a power
failure may lose the last seconds.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from realtime.errors import UsageError
from realtime.outlet_wire import FAMILIES

LARGEST = 64 << 20  # bytes after which a journal is turned over
OLD_FILES = 2  # FILE.1 and FILE.2
TAIL = 8 << 20  # bytes of it that are read again at the start


class LineFile:
    """A file that lines are added to, unbuffered; each line is whole or absent."""

    def __init__(self, path: Path, what: str) -> None:
        """what: what is written, for the error. UsageError where the file cannot be opened for writing."""
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise UsageError(
                f"cannot write {what} to {path}: {error.strerror}; name a file that can be written"
            ) from error

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._file.fileno()).st_size

    def write(self, line: bytes) -> None:
        """Adds one line; OSError where it does not fit, and then nothing of it is there."""
        size, left = self.size, line
        try:
            while left:  # a disk that gets full takes a part first
                left = left[self._file.write(left) :]
        except OSError:
            if len(left) < len(line):
                with suppress(OSError):  # a pipe takes nothing back
                    self._file.truncate(size)
            raise

    def __enter__(self) -> LineFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class Journal:
    """The append-only file of `--journal`: action and status messages, one JSON line each.

    At `largest` bytes FILE becomes FILE.1 and FILE.1 becomes FILE.2. Errors: UsageError (no journal, or not
    writable) when it is opened; OSError when it is written to.
    """

    def __init__(self, path: Path, largest: int = LARGEST) -> None:
        self._path, self._largest = path, largest
        check_journal(path)
        self._file = LineFile(path, "the journal")
        if self._file.size and not _ends_with_newline(path):  # power failed within a line: it stays one refused line
            self._file.write(b"\n")
        self._size = self._file.size

    def write(self, payload: bytes) -> None:
        """Adds one message."""
        if self._size and self._size + len(payload) >= self._largest:
            self._turn_over()
        self._file.write(payload + b"\n")
        self._size += len(payload) + 1

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _turn_over(self) -> None:
        names = [self._path, *old_files(self._path)]
        for newer, older in reversed(tuple(pairwise(names))):
            if newer.exists():
                newer.replace(older)
        self._file.close()
        try:
            self._file = LineFile(self._path, "the journal")
        except UsageError as error:
            raise OSError(str(error)) from error
        self._size = 0


def check_journal(path: Path) -> None:
    """UsageError where something is at this path that is no journal; nothing is written."""
    if not os.path.exists(path):
        return
    if not stat.S_ISREG(path.stat().st_mode):
        raise UsageError(f"--journal {path} is not a file; name one that can be turned over and read again")
    try:
        with path.open("rb") as file:
            begin = file.read(1)
    except OSError as error:
        raise UsageError(f"cannot read the journal {path}: {error.strerror}; name a file of your own") from error
    if begin not in (b"", b"{"):
        raise UsageError(f"--journal {path} is there and is no journal; name another file")


def old_files(path: Path) -> list[Path]:
    """Where earlier parts of a journal lie, the youngest first."""
    return [path.with_name(f"{path.name}.{number}") for number in range(1, OLD_FILES + 1)]


def read_tail(path: Path, most: int = TAIL) -> Iterator[tuple[str, str, int, bytes]]:
    """Family, session, number and payload of the journal's last messages, oldest first; at most so many bytes.

    Lines that are no messages are left out; a file that is not there or cannot be read gives none.
    """
    parts: list[bytes] = []
    for file in (path, *old_files(path)):
        part = _end_of(file, most)
        parts.insert(0, part)
        most -= len(part)
    for line in b"".join(parts).splitlines():
        with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
            fields = json.loads(line)
            family = fields["schema"].partition("/")[0].partition("-")[0]
            session, seq = fields["session"], fields["seq"]
            if family in FAMILIES and isinstance(session, str) and isinstance(seq, int) and seq >= 0:
                yield family, session, seq, line


def _end_of(path: Path, most: int) -> bytes:
    """Whole lines at the end of a file, at most so many bytes."""
    if most <= 0:
        return b""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - most))
            data = file.read(most)
    except OSError:
        return b""
    if size > most:
        data = data.partition(b"\n")[2]
    return data[: data.rfind(b"\n") + 1]


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
