"""Windows of two people, made of the windows of each.

A pair is two people near each other. Its rows are those of the lower track number; the other's rows are read at the
same times from their trail (realtime/resample.py), since every track has a grid of its own. Each pair gives two
windows of the same rows, one with either person as the actor. `offline_pairs` gives the very same windows of a
stored clip, bit for bit. Letters: W windows, T rows, M = 2 bodies, V joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from realtime.resample import RESET_GAP_NS, Trail, clean, resample, row_times, runs, trail_of
from realtime.schema import SECOND_NS, Window
from realtime.skeleton import CORE_16, Layout, convert
from realtime.window import WindowBuffer

NEAR_M = 2.5  # roots nearer than this, along the floor, belong to a pair ...
NEAR_SHARE = 0.5  # ... when they are so in at least this share of the rows in which both are seen
MOST_PAIRS = 6  # pairs that one frame gives at most, nearest first; of four people all have room


class Together(NamedTuple):
    """Two people on the same rows."""

    joints: np.ndarray  # (T, 2, V, 3) float32 metres
    confidence: np.ndarray  # (T, 2, V) float32
    observed: int  # rows in which both are seen
    distance_m: float  # between their roots along the floor, mean over these rows
    near: bool


def together(times_ns: np.ndarray, joints: np.ndarray, confidence: np.ndarray, other: Trail, near_m: float) -> Together:
    """One person's rows (T, V, 3), (T, V) at times (T,), and the other's at the same times. Joints are of CORE_16."""
    theirs, sure = other.at(times_ns)
    both = np.stack([joints, theirs], axis=1), np.stack([confidence, sure], axis=1)
    seen = (both[1] > 0).any(axis=2).all(axis=1)  # (T,)
    apart = (joints - theirs)[:, CORE_16.root][seen]
    distance = np.hypot(apart[:, 0], apart[:, 2])
    observed = len(distance)
    near = observed > 0 and bool(np.count_nonzero(distance < near_m) >= NEAR_SHARE * observed)
    return Together(*both, observed, float(distance.mean()) if observed else np.inf, near)


class PairWindows:
    """Finds the pairs among the people that a WindowBuffer follows, and makes their windows.

    A pair's windows come with those of its lower track number, when both are seen in at least as many of the rows as
    the buffer asks of one person, and are near each other in half of these. At most `most` pairs a frame, nearest
    first; `crowded` counts those left out.
    """

    def __init__(self, buffer: WindowBuffer, near_m: float = NEAR_M, most: int = MOST_PAIRS) -> None:
        if buffer.layout != CORE_16:
            raise ValueError(f"pairs need windows of {CORE_16.name}, got {buffer.layout.name}")
        if not near_m > 0 or most < 1:
            raise ValueError(f"near_m must be above 0 and most at least 1, got {near_m} and {most}")
        self._buffer, self.near_m, self.most = buffer, near_m, most
        self.crowded = 0

    def of(self, windows: Sequence[Window]) -> list[Window]:
        """The windows of the pairs, two for each, that became due with these windows of one frame."""
        if not windows or len(self._buffer.follows()) < 2:
            return []
        found: dict[tuple[int, int], list[tuple[Together, Window]]] = {}
        trails: dict[int, Trail] = {}
        for window in windows:
            times = row_times_back(window.end_ns, len(window.joints), self._buffer.fps)
            for other in self._buffer.follows():
                if other <= window.track:
                    continue
                if other not in trails:
                    trails[other] = self._buffer.trail(other)
                pair = together(times, window.joints, window.confidence, trails[other], self.near_m)
                if pair.near and pair.observed >= self._buffer.min_observed:
                    found.setdefault((window.track, other), []).append((pair, window))
        order = sorted(found, key=lambda key: (found[key][-1][0].distance_m, key))
        self.crowded += max(len(order) - self.most, 0)
        kept = [(key, *one) for key in sorted(order[: self.most]) for one in found[key]]
        return [made for key, pair, window in kept for made in _both(pair, window, key)]


def _both(pair: Together, window: Window, key: tuple[int, int]) -> tuple[Window, Window]:
    """The window with either person as the actor."""
    first = replace(
        window, joints=pair.joints, confidence=pair.confidence, observed=pair.observed, track=key[0], partner=key[1]
    )
    second = replace(
        first, joints=swapped(pair.joints), confidence=pair.confidence[:, ::-1], track=key[1], partner=key[0]
    )
    return first, second


def swapped(joints: np.ndarray) -> np.ndarray:
    """Joints (..., 2, V, 3) with actor and partner changed over."""
    return joints[..., ::-1, :, :]


def row_times_back(end_ns: int, length: int, fps: float) -> np.ndarray:
    """Times (T,) ns of the last rows of a grid, the newest of which is at end_ns."""
    return end_ns - np.rint(np.arange(length - 1, -1, -1) * (SECOND_NS / fps)).astype(np.int64)


class OfflinePairs(NamedTuple):
    """All windows of a pair in one clip, the first body as the actor; `swapped` gives the others."""

    joints: np.ndarray  # (W, T, 2, V, 3) float32 metres
    confidence: np.ndarray  # (W, T, 2, V) float32
    end_ns: np.ndarray  # (W,) int64, time of the newest row


def offline_pairs(
    times_ns: np.ndarray,
    joints: np.ndarray,
    confidence: np.ndarray,
    layout: Layout,
    length: int,
    fps: float,
    stride: int,
    min_observed: int = 20,
    near_m: float = NEAR_M,
) -> OfflinePairs:
    """Every window that `PairWindows` would give of two bodies' poses (T, 2, V, 3) in `layout`, in order of time.

    A body of which no joint is seen in a frame is absent there. Raises ValueError for another number of bodies.
    """
    if np.ndim(joints) != 4 or np.shape(joints)[1] != 2:
        raise ValueError(f"a pair is two bodies (T, 2, V, 3), got {np.shape(joints)}")
    joints, confidence, _ = clean(joints, confidence)
    first, second = (_seen(times_ns, joints[:, body], confidence[:, body], layout) for body in (0, 1))
    found = []
    others = [_Run(second, run, fps) for run in runs(second[0])]
    for run in runs(first[0]):
        own = _Run(first, run, fps)
        for end in range(stride - 1, len(own.rows_ns), stride):
            due_ns = int(own.times_ns[np.searchsorted(own.times_ns, own.rows_ns[end])])
            if own.seen(end, length) < min_observed:
                continue
            for other in others:
                if other.alive(due_ns):
                    window = own.trail(end, length)
                    times = row_times_back(int(own.rows_ns[end]), length, fps)
                    pair = together(times, window.joints, window.confidence, other.trail_until(due_ns, length), near_m)
                    if pair.near and pair.observed >= min_observed:
                        found.append((pair.joints, pair.confidence, own.rows_ns[end]))
    if not found:
        none = np.zeros((0, length, 2, len(CORE_16), 3), np.float32)
        return OfflinePairs(none, none[..., 0], np.zeros(0, np.int64))
    return OfflinePairs(*(np.stack(values) for values in zip(*found, strict=True)))


def _seen(
    times_ns: np.ndarray, joints: np.ndarray, confidence: np.ndarray, layout: Layout
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The poses (T', V, 3) of CORE_16 of one body, from the frames in which it is there."""
    there = (confidence > 0).any(axis=1)
    return (np.asarray(times_ns, np.int64)[there], *convert(joints[there], confidence[there], layout, CORE_16))


class _Run:
    """One unbroken run of one body: its poses, and its rows."""

    def __init__(self, body: tuple[np.ndarray, np.ndarray, np.ndarray], run: np.ndarray, fps: float) -> None:
        self.times_ns, self.poses, self.sure = (values[run] for values in body)
        self.rows_ns = row_times(int(self.times_ns[0]), 0, int(self.times_ns[-1]), fps)
        self._step = SECOND_NS / fps
        self._joints, self._confidence, self._observed = resample(self.times_ns, self.poses, self.sure, fps)

    def seen(self, end: int, length: int) -> int:
        """How many of the rows of the window that ends with row `end` are observed."""
        return int(np.count_nonzero(self._observed[max(end - length + 1, 0) : end + 1]))

    def alive(self, now_ns: int) -> bool:
        """Whether the live buffer follows this run at the time of a frame."""
        newest = np.searchsorted(self.times_ns, now_ns, side="right") - 1
        return bool(newest >= 0 and now_ns - self.times_ns[newest] <= RESET_GAP_NS)

    def trail(self, end: int, length: int) -> Trail:
        """The window that ends with row `end`."""
        numbers = np.arange(end - length + 1, end + 1)
        front = np.maximum(numbers, 0)
        times = int(self.times_ns[0]) + np.rint(numbers * self._step).astype(np.int64)
        return Trail(times, self._joints[front], self._confidence[front] * (numbers >= 0)[:, None])

    def trail_until(self, now_ns: int, length: int) -> Trail:
        """What the live buffer knows of this run at the time of a frame."""
        newest = int(np.searchsorted(self.times_ns, now_ns, side="right")) - 1
        end = int(np.searchsorted(self.rows_ns, self.times_ns[newest], side="right")) - 1
        pose = (int(self.times_ns[newest]), self.poses[newest], self.sure[newest])
        return trail_of(*self.trail(end, length), pose)
