"""What command lines say about data sets: NAME:PATH, NAME:S1,S2 and NAME:WEIGHT, and what was read from them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realtime.errors import UsageError
from train.data import READERS, subject_key
from train.data.clip import Clip, Recording
from train.vocabulary import MEANING

SYNTHETIC = "synthetic"  # generated recordings: a set of the pool without files and held-out subjects


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
    if name not in MEANING:
        raise UsageError(
            f"the live vocabulary has no word for {name}; use its published protocol: "
            f"python -m train.prepare {name} {path} DST, then python -m train.fit --prepared DST"
        )
    if not Path(path).is_dir():
        raise UsageError(f"{path} is not a folder; give the folder that holds the published files of {name}")
    return Source(name, Path(path))


def parse_sources(entries: Iterable[str]) -> list[Source]:
    """NAME:PATH entries, each set once; UsageError as `parse_source`, and where a set is named twice."""
    sources = [parse_source(entry) for entry in entries]
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"data set {name} is given {names.count(name)} times; put its files below one folder")
    return sources


def parse_held_out(entries: Iterable[str], names: Collection[str]) -> dict[str, set[str]]:
    """Subjects (as `subject_key` writes them) by set, from entries NAME:S1,S2; those of one set add up.

    Raises UsageError where an entry is not of this form, or its set is not among `names`, the sets that are read:
    a slip here would train on the people that the figures say were not seen.
    """
    held: dict[str, set[str]] = {}
    for entry in entries:
        name, colon, listed = entry.partition(":")
        subjects = [subject_key(subject) for subject in listed.split(",")]
        if not colon or not all(subjects):
            raise UsageError(f"held-out subjects must be NAME:S1,S2 such as utkinect:6,7, got {entry!r}")
        if name not in names:
            given = ", ".join(names) or "none"
            raise UsageError(
                f"held-out {entry!r} names a set that --data does not (given: {given}); add it or correct it"
            )
        held.setdefault(name, set()).update(subjects)
    return held


def of_subjects(
    name: str, items: Sequence[Clip | Recording], wanted: Collection[str]
) -> tuple[list[Clip | Recording], list[Clip | Recording]]:
    """A set's items of the `wanted` subjects (as `subject_key` writes them), and all the others.

    Raises UsageError for a subject of whom the set has nothing.
    """
    there = {subject_key(item.subject) for item in items}
    missing = sorted(set(wanted) - there)
    if missing:
        known = " ".join(sorted(there, key=lambda key: (len(key), key))) or "nobody"
        raise UsageError(f"{name} holds nothing of subject {', '.join(missing)}; it has {known}")
    chosen = [item for item in items if subject_key(item.subject) in wanted]
    return chosen, [item for item in items if subject_key(item.subject) not in wanted]


def parse_shares(entries: Iterable[str]) -> dict[str, float]:
    """Weights by set, from entries NAME:WEIGHT; UsageError where NAME is no set or WEIGHT not a number from 0 on."""
    shares = {}
    for entry in entries:
        name, _, value = entry.partition(":")
        if name not in (*READERS, SYNTHETIC):
            raise UsageError(f"share {entry!r} names no data set; there are {', '.join(READERS)} and {SYNTHETIC}")
        try:
            shares[name] = float(value)
        except ValueError:
            raise UsageError(f"share must be NAME:WEIGHT such as {name}:0.5, got {entry!r}") from None
        if not 0 <= shares[name] < math.inf:
            raise UsageError(f"share {entry!r} must be a number from 0 on; 0 leaves the set out, 1 is the usual weight")
    return shares


def spared(config: Mapping[str, Any]) -> dict[str, set[str]]:
    """The subjects that a run held out, of each set that it was trained on."""
    names = [entry.partition(":")[0] for entry in config["data"]]
    held = parse_held_out(config["held_out"], names)
    return {name: held.get(name, set()) for name in names}
