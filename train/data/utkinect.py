"""UTKinect-Action3D, Kinect v1: continuous recordings, with intervals of frame numbers as truth.

Joints are published in Kinect camera space in metres and Kinect v1's order; checked: right shoulder at the larger
x and feet to the front in 95 % of frames. Frame numbers are sparse and some repeat.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from realtime.errors import UsageError
from realtime.schema import SECOND_NS
from realtime.skeleton import KINECT_V1_20
from train.data.clip import Recording, Truth, checked, rising
from train.data.files import find, table, text_of

log = logging.getLogger(__name__)

DATA = "utkinect"
# Frame numbers a second. The set names a sensor of 30 frames, but its numbers advance by 2, 4, 6 or 8 and never by
# one, and at 30 people would walk at 0.35 m/s and take more than twice as long to sit down as in the other sets; at 60
# walking, sitting, standing and picking up all agree with them. Joints and truths share the numbers: overlaps do not
# depend on it, delays and rates scale.
NUMBERS_PER_SECOND = 60.0
LABELS = {
    "walk": "walk",
    "sitdown": "sit_down",
    "standup": "stand_up",
    "pickup": "pick_up",
    "carry": "carry",
    "throw": "throw",
    "push": "push",
    "pull": "pull",
    "wavehands": "wave_hands",
    "claphands": "clap_hands",
}
_TITLE = re.compile(r"s(\d+)_e(\d+)", re.IGNORECASE)
_LINE = re.compile(r"([a-z]+)\s*:\s*(\S+)\s+(\S+)", re.IGNORECASE)

Interval = tuple[str, float, float]  # label, first and last frame number


def read(path: Path, subjects: Collection[int | str] | None = None) -> Iterator[Recording]:
    """The recordings `joints_sXX_eXX.txt` in or below a folder, with the truths of the label file beside them.

    `actionLabel_modified.txt`, where it is there, is taken before `actionLabel.txt`. An interval that is not
    a number, or ends before it starts, is logged and left out. Raises UsageError where files are missing or
    not as published.
    """
    found = find(path, r"joints_s(\d+)_e(\d+)\.txt", "UTKinect joints such as joints_s01_e01.txt")
    files = [file for file, _ in find(path, r"actionLabel(_modified)?\.txt", "UTKinect's actionLabel.txt")]
    labels = intervals(max(files, key=lambda file: "modified" in file.name))
    wanted = [(file, int(m[1]), int(m[2])) for file, m in found if subjects is None or int(m[1]) in subjects]
    return (_recording(file, subject, take, labels.get((subject, take), ())) for file, subject, take in wanted)


def intervals(file: Path) -> dict[tuple[int, int], tuple[Interval, ...]]:
    """(subject, take) -> its intervals in order of time, from a label file as published, faults and all."""
    result: dict[tuple[int, int], list[Interval]] = {}
    current: list[Interval] | None = None
    for number, raw in enumerate(text_of(file).splitlines(), start=1):
        line = raw.strip()
        title, entry = _TITLE.fullmatch(line), _LINE.fullmatch(line)
        if title:
            current = result.setdefault((int(title[1]), int(title[2])), [])
        elif entry and current is not None:
            interval = _interval(file, number, entry)
            current += [interval] if interval else []
        elif line:
            raise UsageError(f"{file} line {number}: expected `s01_e01` or `walk: 252 390`, got {line!r}")
    return {key: tuple(sorted(found, key=lambda interval: interval[1])) for key, found in result.items()}


def _interval(file: Path, number: int, entry: re.Match[str]) -> Interval | None:
    """One line's interval, or None (logged) for one that cannot be used."""
    label = LABELS.get(entry[1].lower())
    if label is None:
        raise UsageError(f"{file} line {number}: no action {entry[1]!r}; the set has {', '.join(LABELS.values())}")
    try:
        start, end = float(entry[2]), float(entry[3])
    except ValueError as error:
        raise UsageError(f"{file} line {number}: {error}; expected two frame numbers") from error
    if not (math.isfinite(start) and math.isfinite(end) and start < end):
        log.warning("%s line %d: %s from %s to %s is no interval, left out", file, number, label, start, end)
        return None
    return label, start, end


def _recording(file: Path, subject: int, take: int, found: tuple[Interval, ...]) -> Recording:
    rows = table(file, columns=1 + 3 * len(KINECT_V1_20))
    if not found:
        log.warning("%s: the label file names no action in it", file)
    rows = rows[rising(rows[:, 0])]
    zero = rows[0, 0] if len(rows) else 0.0

    def times_ns(numbers: np.ndarray | float) -> np.ndarray:
        return np.round((np.asarray(numbers) - zero) * (SECOND_NS / NUMBERS_PER_SECOND)).astype(np.int64)

    joints, confidence = checked(rows[:, 1:].reshape(-1, 1, len(KINECT_V1_20), 3))
    truths = tuple(Truth(label, int(times_ns(start)), int(times_ns(end))) for label, start, end in found)
    return Recording(
        DATA,
        f"s{subject:02d}_e{take:02d}",
        subject,
        times_ns(rows[:, 0]),
        joints,
        confidence,
        KINECT_V1_20,
        truths,
        point_truth=False,
        vocabulary=tuple(LABELS.values()),
    )
