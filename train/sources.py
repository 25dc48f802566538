"""NAME:PATH arguments, and what was read from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from realtime.errors import UsageError
from train.data import READERS
from train.data.clip import Clip, Recording


@dataclass(frozen=True)
class Source:
    """A data set: its name, its folder, and the clips and recordings read from it."""

    name: str
    path: Path
    items: list[Clip | Recording] = field(default_factory=list)


def parse_source(entry: str) -> Source:
    """Takes NAME:PATH apart; UsageError where NAME is no data set or PATH no folder."""
    name, colon, path = entry.partition(":")
    if not colon or name not in READERS:
        raise UsageError(f"data must be NAME:PATH with NAME one of {', '.join(READERS)}, got {entry!r}")
    if not Path(path).is_dir():
        raise UsageError(f"{path} is not a folder; give the folder that holds the published files of {name}")
    return Source(name, Path(path))
