"""SBU Kinect Interaction: two people, OpenNI's 15 joints, at 15 frames a second.

A line is a frame number and 2 x 15 x (x, y, z), normalised. The set's description gives the way back to the
sensor's numbers, which `read` follows and takes for millimetres: bodies come out of human size (head 0.64 m above
the hips, shoulders 0.3 m apart, as in the Kinect sets), but the set does not promise metres. In these axes hands
and knees lie on the side that the shoulders give as the front, so left is left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from realtime.errors import UsageError
from realtime.skeleton import OPENNI_15
from train.data.clip import Clip, checked, even_times
from train.data.files import find, table

DATA = "sbu"
FPS = 15.0
BODIES = 2
LABELS = ("approaching", "departing", "kicking", "pushing", "shaking_hands", "hugging", "exchanging", "punching")
_SCALE = np.array([-2560.0, -1920.0, 10000.0 / 7.8125]) / 1000  # normalised numbers to metres
_SHIFT = np.array([1280.0, 960.0, 0.0]) / 1000


def read(path: Path, subjects: Collection[int | str] | None = None) -> Iterator[Clip]:
    """The sequences `s01s02/01/001/skeleton_pos.txt` in or below a folder; a subject is a pair such as "s01s02".

    Raises UsageError where there is none, or one is not as published.
    """
    expected = "SBU sequences such as s01s02/01/001/skeleton_pos.txt"
    found = find(path, r"(s\d+s\d+)/(\d+)/(\d+)/skeleton_pos\.txt", expected)
    wanted = [(file, m[1], int(m[2]), m[3]) for file, m in found if subjects is None or m[1] in subjects]
    return (_clip(file, pair, action, take) for file, pair, action, take in wanted)


def _clip(file: Path, pair: str, action: int, take: str) -> Clip:
    if not 1 <= action <= len(LABELS):
        raise UsageError(f"{file}: the action's folder must be 01 to {len(LABELS):02d}, got {action:02d}")
    rows = table(file, columns=1 + BODIES * len(OPENNI_15) * 3, separator=",")
    numbers = rows[:, 1:].reshape(-1, BODIES, len(OPENNI_15), 3)  # (T, M, V, 3)
    there = (numbers != 0).any(axis=-1, keepdims=True)
    joints, confidence = checked(np.where(there, numbers * _SCALE + _SHIFT, 0.0))
    name = f"{pair}_{action:02d}_{take}"
    return Clip(DATA, name, pair, LABELS[action - 1], even_times(len(rows), FPS), joints, confidence, OPENNI_15)
