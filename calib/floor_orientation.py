"""How a camera's pictures must be turned for people to stand in them: the four turns are tried, on a few seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np

from realtime.floor import TURNS, orientation_of
from realtime.orientation import Turned
from realtime.pipeline import FindsPoses
from realtime.schema import Frame, Pose
from realtime.skeleton import CORE_16, convert

TRIED_FPS, TRIED_S = 8.0, 6.0  # pictures of so long are tried
LONGEST = 640  # pixels a side that are kept of them: the networks see less
PLENTY = 0.5  # people who stand in so many pictures as they come settle it without a trial of the other turns
_HEAD, _HIPS = CORE_16.index("head"), CORE_16.index("hip_center")


def smaller(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) -> a copy with every n-th pixel, of about LONGEST pixels a side."""
    step = max(round(max(image.shape[:2]) / LONGEST), 1)
    return np.ascontiguousarray(image[::step, ::step])


def standing_at(poses: Sequence[Pose]) -> list[int]:
    """For each pose the turn that would put its head above its hips."""
    turns = []
    for pose in poses:
        joints, _ = convert(pose.joints, pose.confidence, pose.layout, CORE_16)
        turns.append(orientation_of(joints[_HEAD] - joints[_HIPS]))
    return turns


def count_standing(frames: Sequence[Frame], open_stage: Callable[[], FindsPoses], degrees: int) -> int:
    """How many poses stand upright in these pictures when they are turned by `degrees` clockwise."""
    with closing(Turned(open_stage(), degrees)) as stage:
        return sum(standing_at(stage.find(frame)).count(degrees) for frame in frames)


def best_turn(
    frames: Sequence[Frame], open_stage: Callable[[], FindsPoses], tell: Callable[[int], None] = lambda turn: None
) -> tuple[int, dict[int, int]]:
    """The turn in which most poses stand upright, and the count of each turn that was tried; 0 where nobody is seen.

    frames: pictures in order of time. open_stage: makes a pose stage of its own for each turn. tell: hears of each
    turn before it is tried.
    """
    counts = {}
    for turn in TURNS:
        tell(turn)
        counts[turn] = count_standing(frames, open_stage, turn)
        if turn == 0 and counts[0] >= PLENTY * max(len(frames), 1):
            break
    best = max(counts, key=lambda turn: counts[turn])
    return (best if counts[best] else 0), counts
