"""MSRC-12, Kinect v1 at 30 frames a second: continuous recordings, with points in time as truth.

A `.csv` line is a tick in microseconds and 20 x (x, y, z, confidence) in Kinect camera space, metres and Kinect v1's
order. Frames without a person are all zero. A `.tagstream` line is a tick of a finer clock, a number and a name.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from realtime.errors import UsageError
from realtime.skeleton import KINECT_V1_20
from train.data.clip import Recording, Truth, checked, rising
from train.data.files import find, table, text_of

log = logging.getLogger(__name__)

DATA = "msrc12"
TICK_NS = 1000
CSV_TICKS_PER_TAG_TICK = 1000 / 49875  # the set's own script converts so
LABELS = (
    "lift_outstretched_arms",
    "duck",
    "push_right",
    "goggles",
    "wind_it_up",
    "shoot",
    "bow",
    "throw",
    "had_enough",
    "change_weapon",
    "beat_both",
    "kick",
)
_TAG = re.compile(r"(\d+)\s*;\s*G(\d+)\b.*", re.IGNORECASE)


def read(path: Path, subjects: Collection[int | str] | None = None) -> Iterator[Recording]:
    """The pairs `P1_1_1_p06.csv` and `.tagstream` in or below a folder; the case of names may differ in a pair.

    A file without its other half is logged and left out. Raises UsageError where there is no pair, or a file is
    not as published.
    """
    expected = "MSRC-12 recordings such as P1_1_1_p06.csv with P1_1_1_p06.tagstream"
    halves: dict[str, dict[str, Path]] = {}
    for file, match in find(path, r"(P\d+_\d+_\d+A?_p\d+)\.(csv|tagstream)", expected):
        halves.setdefault(match[1].lower(), {})[match[2].lower()] = file
    for pair in halves.values():
        if len(pair) == 1:
            log.warning("%s has no other half (.csv and .tagstream), left out", *pair.values())
    pairs = {name: pair for name, pair in sorted(halves.items()) if len(pair) == 2}
    if not pairs:
        raise UsageError(f"{path} holds no {expected}; unpack the published archive there, or give its folder")
    wanted = [name for name in pairs if subjects is None or _subject(name) in subjects]
    return (_recording(name, pairs[name]["csv"], pairs[name]["tagstream"]) for name in wanted)


def _subject(name: str) -> int:
    return int(name.rpartition("_p")[2])


def tags(file: Path) -> list[tuple[str, float]]:
    """(label, csv tick) of each line of a tagstream, in order of time."""
    found = []
    for number, line in enumerate(text_of(file).splitlines(), start=1):
        match = _TAG.fullmatch(line.strip())
        if match and 1 <= int(match[2]) <= len(LABELS):
            found.append((LABELS[int(match[2]) - 1], int(match[1]) * CSV_TICKS_PER_TAG_TICK))
        elif line.strip() and not (number == 1 and "tick" in line.lower()):
            raise UsageError(f"{file} line {number}: expected `tick;G1 name` with G1 to G12, got {line!r}")
    return sorted(found, key=lambda tag: tag[1])


def _recording(name: str, csv: Path, tagstream: Path) -> Recording:
    rows = table(csv, columns=1 + 4 * len(KINECT_V1_20))
    rows = rows[rising(rows[:, 0])]
    zero = rows[0, 0] if len(rows) else 0.0
    frames = rows[:, 1:].reshape(-1, 1, len(KINECT_V1_20), 4)  # (T, 1, V, 4)
    joints, confidence = checked(frames[..., :3], frames[..., 3])
    points = [(label, round((tick - zero) * TICK_NS)) for label, tick in tags(tagstream)]
    return Recording(
        DATA,
        name,
        _subject(name),
        np.round((rows[:, 0] - zero) * TICK_NS).astype(np.int64),
        joints,
        confidence,
        KINECT_V1_20,
        tuple(Truth(label, at, at) for label, at in points),
        point_truth=True,
        vocabulary=LABELS,
    )
