"""NW-UCLA (Northwestern-UCLA Multiview Action 3D), Kinect v1: one JSON file a sequence.

Joints are published in Kinect camera space in metres already (checked: head above the hips in every frame, feet
point to the front that the shoulders give in 95 % of frames).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from realtime.clips import NW_UCLA_FPS as FPS
from realtime.errors import UsageError
from realtime.skeleton import KINECT_V1_20
from train.data.clip import Clip, checked, even_times
from train.data.files import find, text_of

DATA = "nw_ucla"
LABELS = (
    "pick_up_with_one_hand",
    "pick_up_with_two_hands",
    "drop_trash",
    "walk_around",
    "sit_down",
    "stand_up",
    "donning",
    "doffing",
    "throw",
    "carry",
)


def read(path: Path, subjects: Collection[int | str] | None = None) -> Iterator[Clip]:
    """The sequences `aXX_sXX_eXX_vXX.json` in or below a folder; name ends in the view, `v01` to `v03`.

    Raises UsageError where there is none, or one is not as published.
    """
    found = find(path, r"(a\d+_s(\d+)_e\d+_v\d+)\.json", "NW-UCLA sequences such as a01_s01_e00_v01.json")
    wanted = [(file, m[1], int(m[2])) for file, m in found if subjects is None or int(m[2]) in subjects]
    return (_clip(file, name, subject) for file, name, subject in wanted)


def _clip(file: Path, name: str, subject: int) -> Clip:
    try:
        content = json.loads(text_of(file))
        joints = np.array(content["skeletons"], np.float64).reshape(-1, 1, len(KINECT_V1_20), 3)
        label = int(content["label"])
    except json.JSONDecodeError as error:
        raise UsageError(f"{file} line {error.lineno}: not JSON: {error.msg}; unpack it again") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{file} line 1: needs `label` and `skeletons` of T x 20 x 3 numbers: {error}") from error
    if not 1 <= label <= len(LABELS):
        raise UsageError(f"{file} line 1: label must be 1 to {len(LABELS)}, got {label}")
    return Clip(DATA, name, subject, LABELS[label - 1], even_times(len(joints), FPS), *checked(joints), KINECT_V1_20)
