"""The five nouns of the line: Frame -> Pose -> Window -> Scores -> Event.

Each carries the index and the monotonic capture time of the frame it came from, and (from Pose on) the
person's track id. Letters: T frames, V joints, K classes, D text width.
Joints are in metres in Kinect camera space: +x to the sensor's left, +y up, +z away from the sensor
(right-handed; a person who faces the camera has the right shoulder at the larger x).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from realtime.skeleton import Layout

Phase = Literal["start", "update", "end"]
EndReason = Literal["score", "replaced", "track_lost", "source_lost", "timeout", "shutdown"]
State = Literal["online", "stalled", "frozen", "dark", "degraded", "reconnecting", "offline", "ended", "window_reset"]
SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Pose:
    """One person in one frame.

    joints: (V, 3) float32 metres, finite, axes as in the module text. A joint that was not seen has
    confidence 0 and any finite position. confidence: (V,) float32 in [0, 1].
    image_joints: (V, 2) float32 in units of the image's width and height, for drawing; None where the
    source has no image. box: x, y, width, height in the same units, or None.
    """

    index: int
    captured_ns: int
    track: int
    layout: Layout
    joints: np.ndarray  # (V, 3)
    confidence: np.ndarray  # (V,)
    image_joints: np.ndarray | None = None  # (V, 2)
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """What a source gives: an image (H, W, 3) uint8 BGR, or ready poses, never both.

    depth: (h, w) uint16 millimetres along the axis of a depth camera, 0 where it saw nothing, of the same moment as the
    image and in pixels of its own (realtime/rig.py says how they belong together); None where there is none.
    """

    index: int
    captured_ns: int
    image: np.ndarray | None = None  # (H, W, 3)
    poses: tuple[Pose, ...] | None = None
    depth: np.ndarray | None = None  # (h, w)


@dataclass(frozen=True, slots=True)
class Window:
    """The last T frames of one person at the model's frame rate, resampled by capture time.

    index, captured_ns: of the newest frame in it. start_ns: time of its oldest row.
    joints: (T, V, 3) float32 metres in the model's layout; missing joints already filled
    (design: held for at most 5 rows, then placed on the parent joint). confidence: (T, V), 0 where filled.
    observed: how many of its T rows lie between two real poses of this track. end_ns: time of its newest row.
    A window of a pair has two bodies, joints (T, 2, V, 3) and confidence (T, 2, V), the actor (track) first, then the
    partner; both are on the rows of the lower track number, and observed counts the rows in which both are.
    """

    index: int
    captured_ns: int
    track: int
    start_ns: int
    joints: np.ndarray  # (T, V, 3)
    confidence: np.ndarray  # (T, V)
    observed: int
    end_ns: int = 0
    partner: int | None = None  # the other person's track, in a window of a pair


@dataclass(frozen=True, slots=True)
class Scores:
    """What the model says of one window. logits, probabilities: (K,) float32; embedding: (D,) unit or None."""

    index: int
    captured_ns: int
    track: int
    start_ns: int
    logits: np.ndarray  # (K,)
    probabilities: np.ndarray  # (K,) softmax(logits / temperature), sums to 1
    embedding: np.ndarray | None = None  # (D,)
    partner: int | None = None  # the other person's track, where the window was a pair's


@dataclass(frozen=True, slots=True)
class Event:
    """One phase of one occurrence of an action. Times are monotonic capture times in ns.

    id is the same in start, updates and end. onset_ns is back-dated to the estimated beginning;
    decided_ns is the capture time of the frame at which this phase was decided; offset_ns is set on end.
    """

    id: str
    phase: Phase
    track: int
    action: str
    value: float  # smoothed probability, [0, 1]
    raw: float  # this window's probability
    peak: float
    on: float
    off: float
    margin: float  # value minus the runner-up's
    onset_ns: int
    decided_ns: int
    offset_ns: int | None = None
    end_reason: EndReason | None = None
    partner: int | None = None  # the other person's track, where two people do it together
    alternatives: tuple[tuple[str, float], ...] = field(default=())
