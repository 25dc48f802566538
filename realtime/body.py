"""Is it a body? What a pose model finds in a sandal or an empty office chair is not.

World landmarks are little help: they have the proportions of a body whatever they are fitted to.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import numpy as np

from realtime.skeleton import BLAZEPOSE_33

HIPS = [BLAZEPOSE_33.index(f"{side}_hip") for side in ("left", "right")]
# Shoulders and hips first, then the limbs: looked up at once, because this runs for every frame.
_JOINTS = np.array(
    [
        BLAZEPOSE_33.index(f"{side}_{joint}")
        for joint in ("shoulder", "hip", "elbow", "wrist", "knee", "ankle")
        for side in ("left", "right")
    ]
)
_TRUNK = 4
_TORSO = np.zeros(len(BLAZEPOSE_33), np.float32)  # (33,) makes the vector from hips to shoulders
_TORSO[_JOINTS[:_TRUNK]] = 0.5, 0.5, -0.5, -0.5

# Measured on people in 9 views and on faces, legs, feet, sandals and an empty office chair:
TRUNK_VISIBILITY = 0.6  # people 0.95 and more; sandals and faces up to 0.50, but the chair 0.99
LIMB_VISIBILITY = (0.3, 0.5)  # to go on, to begin; people 0.34 and more, 0.5 in 95 % of frames; the chair up to 0.40
PART_VISIBILITY = 0.7  # the same to begin, where a part of the picture was searched: people 0.74, the chair up to 0.64
WORST_VISIBILITY = 0.75  # of the four, to begin; people 0.82 and more, sandals often less
TORSO_M = 0.35  # people 0.39 and more; legs without a body 0.16 to 0.46


class Landmarks(NamedTuple):
    """What MediaPipe says of one body, in BLAZEPOSE_33."""

    world: np.ndarray  # (33, 3) float32 metres from the middle of the hips, Kinect axes
    image: np.ndarray  # (33, 2) float32 in units of the picture's width and height
    visibility: np.ndarray  # (33,) float32 in [0, 1]


class Belief(Enum):
    """How far landmarks are taken for a body: not at all, enough to go on with a track, enough to begin one."""

    NONE, DOUBTFUL, SURE = range(3)


def believe(found: Landmarks, part: bool = False) -> Belief:
    """Whether these are the landmarks of a body. part: found by searching a part of the picture, closer than the whole.

    Numbers must be numbers, shoulders and hips must be seen and inside the picture, the torso as long as a torso, and
    those elbows, wrists, knees and ankles that are inside the picture must be seen too, on average. For a body to be
    SURE more of it must be seen.
    """
    seen = found.visibility[_JOINTS]
    inside = (np.abs(found.image[_JOINTS] - 0.5) <= 0.5).all(axis=1)
    torso = _TORSO @ found.world  # (3,)
    if not np.isfinite(found.world).all() or not np.isfinite(found.visibility).all():
        return Belief.NONE
    limbs = seen[_TRUNK:][inside[_TRUNK:]]
    if not inside[:_TRUNK].all() or seen[:_TRUNK].mean() < TRUNK_VISIBILITY or torso @ torso < TORSO_M**2:
        return Belief.NONE
    visibility = limbs.mean() if len(limbs) else 0.0
    go_on, begin = LIMB_VISIBILITY
    if visibility >= (PART_VISIBILITY if part else begin) and seen[:_TRUNK].min() >= WORST_VISIBILITY:
        return Belief.SURE
    return Belief.DOUBTFUL if visibility >= go_on else Belief.NONE
