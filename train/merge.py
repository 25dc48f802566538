"""Puts prepared sets of one layout together, so that one run learns from all: python -m train.merge --help."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console

from realtime.command import run_command
from realtime.errors import UsageError
from train.data.prepared import NUMBERS, Part, Prepared, load, write
from train.data.splits import names, split

EXAMPLES = """examples:
  python -m train.merge prepared/nw_ucla prepared/utd_mhad --out prepared/both
  python -m train.merge prepared/nw_ucla prepared/msr_action3d --splits xview subjects:9 --out prepared/both
  python -m train.pretrain --prepared prepared/both --knowledge knowledge/both --out runs/c2vl
"""


@dataclass(frozen=True)
class Config:
    """Put prepared sets together into one, with one split: each set's own.

    A class is its set's and its name, so no two sets share one; what they mean alike is train.prompts' to say.
    """

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders made by train.prepare, of one layout and as many bodies."""
    out: Path
    """Folder to write."""
    splits: tuple[str, ...] = ()
    """One a set, in their order; each set's usual one where not given."""


def merge(folders: Sequence[Path], out: Path, splits: Sequence[str] = ()) -> dict[str, object]:
    """Writes the prepared set `merged`, and returns what its prepared.json says.

    Clips are named SET/CLIP, classes SET-CLASS; subjects, cameras and setups keep their numbers, though the same number
    is not the same person in two sets. Raises UsageError where sets do not go together.
    """
    sets = [load(folder) for folder in folders]
    if len(sets) < 2:
        raise UsageError(f"merging takes two prepared sets or more, got {len(sets)}")
    if splits and len(splits) != len(sets):
        raise UsageError(f"--splits must be one a set, so {len(sets)}, got {len(splits)}")
    first = sets[0]
    for one in sets[1:]:
        if (one.layout, one.joints.shape[1]) != (first.layout, first.joints.shape[1]):
            raise UsageError(
                f"{one.data} has {one.layout.name} and {one.joints.shape[1]} bodies, {first.data} "
                f"{first.layout.name} and {first.joints.shape[1]}: only like sets go together"
            )
    if len({one.data for one in sets}) < len(sets):
        raise UsageError(f"a set is named twice among {', '.join(one.data for one in sets)}; name each once")
    if (out / "prepared.json").exists():
        raise UsageError(f"{out} holds prepared data already; choose another folder, or delete it first")
    sides: dict[str, list[str]] = {"train": [], "test": []}
    classes: list[str] = []
    with TemporaryDirectory() as temporary:
        parts = []
        for number, one in enumerate(sets):
            for side, mask in zip(sides, split(one, splits[number] if splits else names(one.data)[0]), strict=True):
                sides[side] += _named(one, mask)
            parts.append(Path(temporary) / f"{number}.npz")
            _part(one, len(classes)).save(parts[-1], str(number))
            classes += [f"{one.data}-{name}" for name in one.classes]
        out.mkdir(parents=True, exist_ok=True)
        fps = float(np.median([one.fps for one in sets]))  # clips are resampled to a window whatever their rate
        return write(out, "merged", first.layout, classes, first.joints.shape[1], fps, parts, {"merged": sides})


def _named(one: Prepared, mask: np.ndarray) -> list[str]:
    return [f"{one.data}/{name}" for name in one.name[mask].tolist()]


def _part(one: Prepared, first_class: int) -> Part:
    numbers = {key: np.asarray(getattr(one, key)) for key in NUMBERS}
    numbers["label"] = numbers["label"] + first_class
    everything = np.ones(len(one), bool)
    return Part(np.asarray(one.joints), numbers, np.array(_named(one, everything)), {})


def run(config: Config, console: Console) -> int:
    """Merges, and says what came of it."""
    content = merge(config.folders, config.out, config.splits)
    console.print(f"{config.out}: {content['clips']} clips, {content['rows']} frames of {len(config.folders)} sets")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "train.merge", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
