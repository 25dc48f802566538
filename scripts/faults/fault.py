"""What a row of the fault matrix is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class Failed(Exception):
    """The fault brought about something that it must not; the text says what."""


@dataclass(frozen=True)
class Measured:
    """What was seen: the figure that is held to the fault's bound, and whatever else is worth telling."""

    value: float
    note: str = ""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, and the promise that must hold then.

    key: as in `--only`. how: what is done to the line. promise: what the figure means; it must be at most `bound`.
    run: breaks it in an empty folder of its own and measures; raises Failed where something else went wrong as well.
    """

    key: str
    name: str
    how: str
    promise: str
    bound: float
    unit: str
    run: Callable[[Path], Measured]


def expect(holds: bool, otherwise: str) -> None:
    """Failed with this sentence unless it holds."""
    if not holds:
        raise Failed(otherwise)
