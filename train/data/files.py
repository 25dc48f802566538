"""Finding and parsing the published files of a data set."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np

from realtime.errors import UsageError


def find(path: Path, pattern: str, expected: str) -> list[tuple[Path, re.Match[str]]]:
    """The files in or below a folder whose path below it ends in `pattern`, with the match, in order of name.

    Case is ignored. Raises UsageError with `expected`, what the set's files look like, where there is none.
    """
    if not path.is_dir():
        raise UsageError(f"{path} is not a folder; give the folder that holds {expected}")
    form = re.compile(rf"(?:^|.*/){pattern}$", re.IGNORECASE)
    files = [(file, form.match(file.relative_to(path).as_posix())) for file in sorted(path.rglob("*"))]
    found = [(file, match) for file, match in files if match and file.is_file()]
    if not found:
        raise UsageError(f"{path} holds no {expected}; unpack the published archive there, or give its folder")
    return found


def text_of(file: Path) -> str:
    """A file as text; UsageError where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error}") from error


def table(file: Path, columns: int, separator: str | None = None) -> np.ndarray:
    """(rows, columns) float64 of a file of numbers, one row a line; blank lines are passed over.

    separator: None for white space. Raises UsageError that names the file and the line of the first fault.
    """
    text = text_of(file)
    lines = [line for line in text.splitlines() if line.strip()]
    even = all(len(line.split(separator)) == columns for line in lines)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        try:
            numbers = np.fromstring(text.replace(separator, " ") if separator else text, np.float64, sep=" ")
        except (DeprecationWarning, ValueError):  # what NumPy says of a word among the numbers; found below
            numbers = np.empty(0)
    if lines and even and numbers.size == len(lines) * columns:
        return numbers.reshape(-1, columns)
    return np.array(_rows(file, text, columns, separator)).reshape(-1, columns)


def _rows(file: Path, text: str, columns: int, separator: str | None) -> list[list[float]]:
    """The slow way, line by line, which knows where a fault lies."""
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.strip().split(separator) if line.strip() else []
        if words and len(words) != columns:
            raise UsageError(f"{file} line {number}: a line holds {columns} numbers, this one {len(words)}")
        try:
            rows += [[float(word) for word in words]] if words else []
        except ValueError as error:
            raise UsageError(f"{file} line {number}: {error}; the file may be damaged, unpack it again") from error
    return rows
