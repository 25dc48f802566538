"""Poses at any frame rate -> rows at the model's frame rate, resampled by capture time, with missing joints placed.

Rows lie on the grid t0 + k / fps, t0 being a track's first pose. A row depends only on the two poses around it and
on what came before, so the live buffer (realtime/window.py) and the offline functions give the same numbers, bit for
bit: both call `between` and `fill`. Letters: T poses or rows of a window, R rows of a stream, V joints,
W windows.

Rules for what is missing:
* a joint that one of the two poses lacks is taken from the other where the row is nearer to it than 1 / fps;
* a missing joint keeps its offset from the root for HELD_ROWS rows (an offset, so that a body that walks does not
  leave it behind), then lies on its parent joint; its confidence is 0 in both cases;
* a missing root is placed by the first seen joint in tree order, at the offset last known between the two, for as
  long as the track lasts; with no joint seen it stays where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from realtime.schema import SECOND_NS
from realtime.skeleton import CORE_16, Layout

HELD_ROWS = 5
OBSERVED_GAP_NS = 250_000_000  # rows between two poses further apart than this are not observed
RESET_GAP_NS = 500_000_000  # poses further apart than this belong to different tracks
REACH_M = 1e6  # a coordinate beyond this is no position: its differences could overflow float32


class OfflineWindows(NamedTuple):
    """All windows of one recording, as the live buffer would give them."""

    joints: np.ndarray  # (W, T, V, 3) float32 metres
    confidence: np.ndarray  # (W, T, V) float32
    end_ns: np.ndarray  # (W,) int64, time of the newest row
    observed: np.ndarray  # (W,) int64, rows between two real poses


class Trail(NamedTuple):
    """Where one person was, to be read between its rows: the newest T rows and, where it is newer, the newest pose."""

    times_ns: np.ndarray  # (P,) int64, strictly increasing
    joints: np.ndarray  # (P, V, 3) float32 metres, missing joints filled
    confidence: np.ndarray  # (P, V) float32, 0 where filled and in rows before the first

    def at(self, times_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Joints (R, V, 3) and confidence (R, V) at times (R,), linearly between two rows.

        At the time of a row it is that row, bit for bit. Before the first and after the last it stands still, with
        confidence 0. A joint is as sure as in the less sure of the two rows.
        """
        last = len(self.times_ns) - 1
        after = np.minimum(np.searchsorted(self.times_ns, times_ns), last)  # the first that is not before
        before = np.maximum(after - 1, 0)
        ta, tb = self.times_ns[before], self.times_ns[after]
        weight = np.clip((times_ns - ta) / np.maximum(tb - ta, 1), 0, 1).astype(np.float32)[:, None]
        weight[tb <= times_ns] = 1.0
        joints = self.joints[before] * (1 - weight[..., None]) + self.joints[after] * weight[..., None]
        confidence = np.minimum(self.confidence[before], self.confidence[after])
        confidence = np.where(weight == 1, self.confidence[after], confidence)
        confidence[(times_ns < self.times_ns[0]) | (times_ns > self.times_ns[-1])] = 0
        return joints, confidence


@dataclass(slots=True)
class Memory:
    """What filling needs to know of the rows before."""

    root: np.ndarray  # (3,) where the root was
    offset: np.ndarray  # (V, 3) joint - root when the joint was last seen
    age: np.ndarray  # (V,) rows since then
    paired: np.ndarray  # (V, 3) joint - root when both were last seen
    known: np.ndarray  # (V,) bool, whether `paired` is

    @classmethod
    def blank(cls, joints: int) -> Memory:
        """Nothing seen yet."""
        none = np.zeros((joints, 3), np.float32)
        return cls(np.zeros(3, np.float32), none, np.full(joints, HELD_ROWS), none, np.zeros(joints, bool))


def clean(joints: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Joints (..., V, 3) and confidence (..., V) as float32 without NaN, infinities and absurd values.

    Such a joint becomes missing: at the origin, confidence 0. The third value says how many there were.
    """
    joints, confidence = np.asarray(joints, np.float32), np.asarray(confidence, np.float32)
    good = (np.abs(joints) < REACH_M).all(axis=-1) & (np.abs(confidence) < REACH_M)  # False for NaN too
    if good.all():
        return joints, confidence, 0
    return np.where(good[..., None], joints, 0), np.where(good, confidence, 0), int(good.size - good.sum())


def row_times(t0: int, first: int, until: int, fps: float) -> np.ndarray:
    """Times (R,) int64 ns of the grid's rows from number `first` up to the time `until`, inclusive."""
    last = int((until - t0) * fps / SECOND_NS) + 1  # one too many at most: the rounding below decides
    times = t0 + np.rint(np.arange(first, last + 1) * (SECOND_NS / fps)).astype(np.int64)
    return times[times <= until]


def between(rows: np.ndarray, before: tuple, after: tuple, fps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (R,) ns between poses (time, joints, confidence) -> joints (R, V, 3), confidence (R, V), observed (R,).

    The two poses' arrays have a leading axis R or 1. Missing joints have confidence 0 and no meaningful position.
    """
    (ta, ja, ca), (tb, jb, cb) = before, after
    weight = ((rows - ta) / np.maximum(tb - ta, 1)).astype(np.float32)[:, None]  # (R, 1)
    near_a, near_b = ((rows - ta) < SECOND_NS / fps)[:, None], ((tb - rows) < SECOND_NS / fps)[:, None]
    seen_a, seen_b = ca > 0, cb > 0
    only_a, only_b = seen_a & ~seen_b & near_a, seen_b & ~seen_a & near_b
    weight = np.where(only_a, np.float32(0), np.where(only_b, np.float32(1), weight))[..., None]  # (R, V, 1)
    joints = ja * (1 - weight) + jb * weight
    at_pose = rows == tb
    both = np.where(at_pose[:, None], cb, np.minimum(ca, cb))
    confidence = np.where(seen_a & seen_b, both, np.where(only_a, ca, np.where(only_b, cb, np.float32(0))))
    observed = (at_pose | (tb - ta <= OBSERVED_GAP_NS)) & (confidence > 0).any(axis=1)
    return joints, confidence, observed


def trail_of(
    times_ns: np.ndarray, joints: np.ndarray, confidence: np.ndarray, pose: tuple[int, np.ndarray, np.ndarray]
) -> Trail:
    """A trail of rows (T,), (T, V, 3), (T, V) and the newest pose (time, joints, confidence).

    The next row is due after that pose: what lies between is read from the pose itself. A joint that it lacks is where
    the last row has it.
    """
    time, places, sure = pose
    if time <= times_ns[-1]:
        return Trail(times_ns, joints, confidence)
    last = np.where((sure > 0)[:, None], places, joints[-1])
    return Trail(
        np.append(times_ns, time), np.concatenate([joints, last[None]]), np.concatenate([confidence, sure[None]])
    )


def _last(flags: np.ndarray) -> np.ndarray:
    """For each row of flags (R, ...) the newest row so far that is True, or -1."""
    rows = np.arange(len(flags)).reshape(-1, *(1,) * (flags.ndim - 1))
    return np.maximum.accumulate(np.where(flags, rows, -1), axis=0)


@cache
def _order(layout: Layout) -> np.ndarray:
    """Joint indices (V,), parents first."""
    return np.array(layout.order())


def _place_root(joints: np.ndarray, seen: np.ndarray, layout: Layout, memory: Memory) -> None:
    """Writes the root of every row of joints (R, V, 3) that lacks it, by the module's third rule."""
    root, order = layout.root, _order(layout)
    rows, columns = np.arange(len(joints)), np.arange(len(layout))
    pair = _last(seen & seen[:, [root]])  # (R, V)
    paired = np.where(pair[..., None] >= 0, (joints - joints[:, [root]])[pair, columns], memory.paired)
    known = (pair >= 0) | memory.known
    trusted = seen & known
    guides = np.where(trusted.any(axis=1, keepdims=True), trusted, seen)
    guide = order[guides[:, order].argmax(axis=1)]  # (R,)
    placed = joints[rows, guide] - np.where(known[rows, guide, None], paired[rows, guide], np.float32(0))
    placed = np.where(seen[:, [root]], joints[:, root], placed)
    source = _last(seen.any(axis=1))
    joints[:, root] = np.where(source[:, None] >= 0, placed[source], memory.root)


def fill(joints: np.ndarray, seen: np.ndarray, layout: Layout, memory: Memory) -> None:
    """Places the missing joints of rows (R, V, 3), R > 0, in place, and carries the memory past them."""
    root, columns = layout.root, np.arange(len(layout))
    if seen.all():  # the common case, and the line's hottest
        memory.root, memory.offset = joints[-1, root].copy(), joints[-1] - joints[-1, root]
        memory.age, memory.paired, memory.known = np.zeros(len(layout), int), memory.offset, np.ones(len(layout), bool)
        return
    paired = last = _last(seen)
    if not seen[:, root].all():
        paired = _last(seen & seen[:, [root]])
        _place_root(joints, seen, layout, memory)
    moved = joints - joints[:, [root]]
    offset = np.where(last[..., None] >= 0, moved[last, columns], memory.offset)
    rows = np.arange(len(joints))[:, None]
    age = np.where(last >= 0, rows - last, rows + 1 + memory.age)
    held = ~seen & (age <= HELD_ROWS)
    held[:, root] = False
    np.copyto(joints, joints[:, [root]] + offset, where=held[..., None])
    fallen = ~seen & ~held
    for joint in _order(layout)[1:]:
        if fallen[:, joint].any():
            np.copyto(joints[:, joint], joints[:, layout.parents[joint]], where=fallen[:, joint, None])
    end, pair, count = last[-1], paired[-1], len(joints)
    memory.root = joints[-1, root].copy()
    memory.offset = np.where(end[:, None] >= 0, moved[end, columns], memory.offset)
    memory.age = np.where(end >= 0, count - 1 - end, np.minimum(memory.age + count, 2 * HELD_ROWS))  # never overflows
    memory.paired = np.where(pair[:, None] >= 0, moved[pair, columns], memory.paired)
    memory.known = memory.known | (pair >= 0)


def runs(times_ns: np.ndarray) -> list[np.ndarray]:
    """Indices of the poses of each unbroken run: a gap of more than 0.5 s starts a new one.

    A pose that is not newer than every pose before it belongs to none, as in the live buffer.
    """
    times_ns = np.asarray(times_ns, np.int64)
    if not len(times_ns):
        return []
    newest = np.maximum.accumulate(times_ns)
    keep = np.flatnonzero(np.concatenate(([True], times_ns[1:] > newest[:-1])))
    return np.split(keep, np.flatnonzero(np.diff(times_ns[keep]) > RESET_GAP_NS) + 1)


def resample(
    times_ns: np.ndarray, joints: np.ndarray, confidence: np.ndarray, fps: float, layout: Layout = CORE_16
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poses of one person at times (T,) -> joints (R, V, 3), confidence (R, V) float32 and observed (R,) bool.

    joints (T, V, 3) metres and confidence (T, V) are in `layout`. Row k is at times_ns[0] + k / fps; the last row is
    not after the last pose. Missing joints are filled by the module's rules. Rows in a gap of more than 0.25 s are
    not observed, nor are rows in which no joint is seen. This function keeps one grid over any gap (joints are
    missing inside a gap of more than 0.5 s); use `runs` to restart as the live buffer does.
    Raises ValueError where the shapes do not fit the layout.
    """
    times_ns = np.asarray(times_ns, np.int64)
    if np.shape(joints) != (len(times_ns), len(layout), 3) or np.shape(confidence) != np.shape(joints)[:2]:
        raise ValueError(
            f"{len(times_ns)} poses in {layout.name} need joints ({len(times_ns)}, {len(layout)}, 3) and confidence "
            f"({len(times_ns)}, {len(layout)}), got {np.shape(joints)} and {np.shape(confidence)}"
        )
    if not fps > 0:
        raise ValueError(f"fps must be above 0, got {fps}")
    joints, confidence, _ = clean(joints, confidence)
    if not len(times_ns):
        return joints, confidence, np.zeros(0, bool)
    keep = np.concatenate(runs(times_ns))
    times, joints, confidence = times_ns[keep], joints[keep], confidence[keep]
    rows = row_times(int(times[0]), 0, int(times[-1]), fps)
    after = np.searchsorted(times, rows)
    before = np.maximum(after - 1, 0)
    filled, sure, observed = between(
        rows, (times[before], joints[before], confidence[before]), (times[after], joints[after], confidence[after]), fps
    )
    lost = (times[after] - times[before] > RESET_GAP_NS) & (rows != times[after])
    sure[lost], observed[lost] = 0, False
    fill(filled, sure > 0, layout, Memory.blank(len(layout)))
    return filled, sure, observed


def offline_windows(
    times_ns: np.ndarray,
    joints: np.ndarray,
    confidence: np.ndarray,
    layout: Layout,
    length: int,
    fps: float,
    stride: int,
    min_observed: int = 20,
) -> OfflineWindows:
    """Every window that the live buffer would emit for one person's poses (T, V, 3) in `layout`, in time order."""
    parts = []
    for run in runs(times_ns):
        rows, sure, observed = resample(times_ns[run], joints[run], confidence[run], fps, layout)
        ends = np.arange(stride - 1, len(rows), stride)
        span = ends[:, None] + np.arange(1 - length, 1)  # (W, T) row numbers, below 0 in front of the first
        counts = (observed[np.maximum(span, 0)] & (span >= 0)).sum(axis=1)
        ends, span, counts = (values[counts >= min_observed] for values in (ends, span, counts))
        end_ns = row_times(int(times_ns[run[0]]), 0, int(times_ns[run[-1]]), fps)[ends]
        front = np.maximum(span, 0)
        parts.append(OfflineWindows(rows[front], sure[front] * (span >= 0)[..., None], end_ns, counts))
    if not parts:
        empty = np.zeros((0, length, len(layout), 3), np.float32)
        return OfflineWindows(empty, empty[..., 0], np.zeros(0, np.int64), np.zeros(0, np.int64))
    return OfflineWindows(*(np.concatenate(values) for values in zip(*parts, strict=True)))
