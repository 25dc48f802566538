"""The one in-memory form of a data set's recordings: clips of one action, and long recordings with truths.

Letters: T frames, M bodies, V joints. Axes everywhere: Kinect camera space, metres, +x to the sensor's left,
+y up, +z away from the sensor.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from realtime.schema import SECOND_NS
from realtime.skeleton import Layout

log = logging.getLogger(__name__)

# A point truth marks when the gesture can be recognised, not where it lies: a clip takes this much around it.
# In MSRC-12 the limbs start to move 1.25 to 1.5 s before the tag, are fastest 0.5 s before it and back at rest, or
# in the next movement, 1 s after it; tags of one recording are 3.3 s apart (median; 2 s at the 5th percentile).
POINT_BEFORE_NS = SECOND_NS * 5 // 4
POINT_AFTER_NS = SECOND_NS * 3 // 4
# Sensors report the joints that they guessed with a confidence near 0 and still place them well enough to use.
# Only a joint with no position at all has confidence 0 here; a guessed one has this.
GUESSED = 0.5


@dataclass(frozen=True)
class Truth:
    """One labelled action. Times in ns from the recording's first frame; start_ns == end_ns for a point truth."""

    label: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class Clip:
    """A labelled piece of a data set.

    label: the set's own class name. times_ns: (T,) int64, from 0, strictly increasing.
    joints: (T, M, V, 3) float32 metres, finite. confidence: (T, M, V) float32, 0 where there is no position.
    """

    data: str
    name: str
    subject: int | str
    label: str
    times_ns: np.ndarray  # (T,)
    joints: np.ndarray  # (T, M, V, 3)
    confidence: np.ndarray  # (T, M, V)
    layout: Layout


@dataclass(frozen=True)
class Recording:
    """A stored stream with what happens in it. Arrays as in `Clip`; truths in order of time.

    point_truth: truths mark moments, not intervals. vocabulary: every label that the set uses.
    """

    data: str
    name: str
    subject: int | str
    times_ns: np.ndarray  # (T,)
    joints: np.ndarray  # (T, M, V, 3)
    confidence: np.ndarray  # (T, M, V)
    layout: Layout
    truths: tuple[Truth, ...]
    point_truth: bool
    vocabulary: tuple[str, ...]


def checked(joints: np.ndarray, confidence: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Joints (T, M, V, 3) and confidence (T, M, V) float32, with every missing joint at the origin with confidence 0.

    Missing is a joint that is not finite or lies exactly at the origin, which is the sensor itself.
    confidence None: every joint that is there is sure; otherwise those below `GUESSED` are raised to it.
    """
    joints = np.asarray(joints, np.float64)
    there = np.isfinite(joints).all(axis=-1) & (joints != 0).any(axis=-1)
    sure = np.ones(there.shape) if confidence is None else np.clip(np.nan_to_num(confidence), GUESSED, 1.0)
    return np.where(there[..., None], joints, 0.0).astype(np.float32), np.where(there, sure, 0.0).astype(np.float32)


def even_times(frames: int, fps: float) -> np.ndarray:
    """(T,) int64 times in ns of frames at a constant rate, from 0."""
    return np.round(np.arange(frames) * (SECOND_NS / fps)).astype(np.int64)


def rising(times: np.ndarray) -> np.ndarray:
    """Indices of the frames that are later than every frame before them; repeats and steps back are left out."""
    latest = np.maximum.accumulate(times)
    return np.flatnonzero(np.concatenate([np.ones(min(len(times), 1), bool), times[1:] > latest[:-1]]))


def cut(recording: Recording) -> Iterator[Clip]:
    """The labelled pieces of a recording as clips, in order of its truths.

    An interval truth gives the frames within it; a point truth those from `POINT_BEFORE_NS` before it to
    `POINT_AFTER_NS` after it. A truth in which no joint was seen gives no clip, and is logged.
    """
    widen = (POINT_BEFORE_NS, POINT_AFTER_NS) if recording.point_truth else (0, 0)
    for number, truth in enumerate(recording.truths):
        first = np.searchsorted(recording.times_ns, truth.start_ns - widen[0], side="left")
        last = np.searchsorted(recording.times_ns, truth.end_ns + widen[1], side="right")
        name = f"{recording.name}_{number:03d}"
        if not recording.confidence[first:last].any():
            log.warning("%s: nobody was seen during %s at %.2f s, left out", name, truth.label, truth.start_ns * 1e-9)
            continue
        yield Clip(
            recording.data,
            name,
            recording.subject,
            truth.label,
            recording.times_ns[first:last] - recording.times_ns[first],
            recording.joints[first:last],
            recording.confidence[first:last],
            recording.layout,
        )
