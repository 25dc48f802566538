"""Poses at any frame rate -> windows of T rows at the model's frame rate, resampled by capture time.

Rows lie on the grid t0 + k / fps, t0 being a track's first pose. A row depends only on the two poses around it and
on what came before, so the live buffer and the offline functions give the same numbers, bit for bit: both call
`_between` and `_fill`. Letters: T rows of a window, R rows of a stream, V joints, W windows.

Rules for what is missing:
* a joint that one of the two poses lacks is taken from the other where the row is nearer to it than 1 / fps;
* a missing joint keeps its offset from the root for HELD_ROWS rows (an offset, so that a body that walks does not
  leave it behind), then lies on its parent joint; its confidence is 0 in both cases;
* a missing root is placed by the first seen joint in tree order, at the offset last known between the two, for as
  long as the track lasts; with no joint seen it stays where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from realtime.schema import SECOND_NS, Pose, Window
from realtime.skeleton import CORE_16, Layout, convert

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


@dataclass(slots=True)
class _Memory:
    """What filling needs to know of the rows before."""

    root: np.ndarray  # (3,) where the root was
    offset: np.ndarray  # (V, 3) joint - root when the joint was last seen
    age: np.ndarray  # (V,) rows since then
    paired: np.ndarray  # (V, 3) joint - root when both were last seen
    known: np.ndarray  # (V,) bool, whether `paired` is

    @classmethod
    def blank(cls, joints: int) -> _Memory:
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


def _row_times(t0: int, first: int, until: int, fps: float) -> np.ndarray:
    """Times (R,) int64 ns of the grid's rows from number `first` up to the time `until`, inclusive."""
    last = int((until - t0) * fps / SECOND_NS) + 1  # one too many at most: the rounding below decides
    times = t0 + np.rint(np.arange(first, last + 1) * (SECOND_NS / fps)).astype(np.int64)
    return times[times <= until]


def _between(rows: np.ndarray, before: tuple, after: tuple, fps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def _last(flags: np.ndarray) -> np.ndarray:
    """For each row of flags (R, ...) the newest row so far that is True, or -1."""
    rows = np.arange(len(flags)).reshape(-1, *(1,) * (flags.ndim - 1))
    return np.maximum.accumulate(np.where(flags, rows, -1), axis=0)


def _place_root(joints: np.ndarray, seen: np.ndarray, layout: Layout, memory: _Memory) -> None:
    """Writes the root of every row of joints (R, V, 3) that lacks it, by the module's third rule."""
    root, order = layout.root, np.array(layout.order())
    pair = _last(seen & seen[:, [root]])  # (R, V)
    moved = joints - joints[:, [root]]
    paired = np.where(pair[..., None] >= 0, moved[pair, np.arange(len(layout))], memory.paired)
    known = (pair >= 0) | memory.known
    trusted = seen & known
    guides = np.where(trusted.any(axis=1, keepdims=True), trusted, seen)
    guide = order[guides[:, order].argmax(axis=1)]  # (R,)
    rows = np.arange(len(joints))
    placed = joints[rows, guide] - np.where(known[rows, guide, None], paired[rows, guide], np.float32(0))
    placed = np.where(seen[:, [root]], joints[:, root], placed)
    source = _last(seen.any(axis=1))
    joints[:, root] = np.where(source[:, None] >= 0, placed[source], memory.root)
    memory.paired, memory.known = paired[-1], known[-1]


def _fill(joints: np.ndarray, seen: np.ndarray, layout: Layout, memory: _Memory) -> None:
    """Places the missing joints of rows (R, V, 3), R > 0, in place, and carries the memory past them."""
    root = layout.root
    if seen.all():
        memory.root, memory.offset = joints[-1, root], joints[-1] - joints[-1, root]
        memory.age = np.zeros(len(layout), int)
        memory.paired, memory.known = memory.offset, np.ones(len(layout), bool)
        return
    _place_root(joints, seen, layout, memory)
    last = _last(seen)
    offset = joints - joints[:, [root]]
    offset = np.where(last[..., None] >= 0, offset[last, np.arange(len(layout))], memory.offset)
    rows = np.arange(len(joints))[:, None]
    age = np.minimum(np.where(last >= 0, rows - last, rows + 1 + memory.age), 2 * HELD_ROWS)  # bounded for long tracks
    held = ~seen & (age <= HELD_ROWS)
    held[:, root] = False
    np.copyto(joints, joints[:, [root]] + offset, where=held[..., None])
    fallen = ~seen & ~held
    for joint in layout.order()[1:]:
        if fallen[:, joint].any():
            np.copyto(joints[:, joint], joints[:, layout.parents[joint]], where=fallen[:, joint, None])
    memory.root, memory.offset, memory.age = joints[-1, root].copy(), offset[-1], age[-1]


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
    rows = _row_times(int(times[0]), 0, int(times[-1]), fps)
    after = np.searchsorted(times, rows)
    before = np.maximum(after - 1, 0)
    filled, sure, observed = _between(
        rows, (times[before], joints[before], confidence[before]), (times[after], joints[after], confidence[after]), fps
    )
    lost = (times[after] - times[before] > RESET_GAP_NS) & (rows != times[after])
    sure[lost], observed[lost] = 0, False
    _fill(filled, sure > 0, layout, _Memory.blank(len(layout)))
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
        end_ns = _row_times(int(times_ns[run[0]]), 0, int(times_ns[run[-1]]), fps)[ends]
        front = np.maximum(span, 0)
        parts.append(OfflineWindows(rows[front], sure[front] * (span >= 0)[..., None], end_ns, counts))
    if not parts:
        empty = np.zeros((0, length, len(layout), 3), np.float32)
        return OfflineWindows(empty, empty[..., 0], np.zeros(0, np.int64), np.zeros(0, np.int64))
    return OfflineWindows(*(np.concatenate(values) for values in zip(*parts, strict=True)))


class _Track:
    """One person's rows: each is written twice, T apart, so that any T rows in a row are one slice."""

    def __init__(self, t0: int, joints: np.ndarray, confidence: np.ndarray, length: int) -> None:
        self.t0, self.rows, self.length = t0, 0, length
        self.pose = (t0, joints, confidence)  # the newest
        self.memory = _Memory.blank(len(joints))
        self.joints = np.zeros((2 * length, *joints.shape), np.float32)
        self.confidence = np.zeros((2 * length, len(joints)), np.float32)
        self.observed = np.zeros(2 * length, bool)

    def add(self, joints: np.ndarray, confidence: np.ndarray, observed: bool) -> None:
        """Writes one row (V, 3); the first stands, with confidence 0, for all rows before it."""
        if not self.rows:
            self.joints[:] = joints
        at = self.rows % self.length
        for place in (at, at + self.length):
            self.joints[place], self.confidence[place], self.observed[place] = joints, confidence, observed
        self.rows += 1

    def newest(self) -> slice:
        """Where the newest T rows are, oldest first."""
        at = self.rows % self.length
        return slice(at, at + self.length)


class WindowBuffer:
    """Turns poses into windows of `length` rows at `fps`, one every `stride` rows per track.

    A window is due at rows stride - 1, 2 * stride - 1, ... and is given when at least `min_observed` of its rows are
    observed. Before `length` rows exist the first row stands in front with confidence 0. A track with no pose for
    more than 0.5 s has ended; the same track number afterwards starts anew. At most `max_tracks` are kept.
    Counted: refused (joints with values that are no positions), late (poses not newer than their track's last),
    crowded (poses of tracks beyond max_tracks).
    """

    def __init__(
        self, layout: Layout, length: int, fps: float, stride: int, min_observed: int = 20, max_tracks: int = 64
    ) -> None:
        if not 1 <= stride <= length:
            raise ValueError(f"stride must be in [1, {length}], got {stride}")
        if not fps > 0:
            raise ValueError(f"fps must be above 0, got {fps}")
        self.layout, self.length, self.fps, self.stride = layout, length, fps, stride
        self.min_observed, self.max_tracks = min_observed, max_tracks
        self.refused = self.late = self.crowded = 0
        self._tracks: dict[int, _Track] = {}
        self._lost: list[int] = []

    def push(self, index: int, captured_ns: int, poses: Sequence[Pose]) -> list[Window]:
        """The windows that became due with the poses of one frame, captured together at captured_ns.

        Call it for frames without poses too: that is how a track's end is noticed. Several windows of one track can
        come at once when the camera is slower than the model. Raises ValueError for arrays that are not the layout's.
        """
        # A clock that jumped back ends a track too: it would otherwise refuse every pose until time catches up.
        for number in [n for n, track in self._tracks.items() if abs(captured_ns - track.pose[0]) > RESET_GAP_NS]:
            del self._tracks[number]
            self._lost.append(number)
        windows: list[Window] = []
        for layout in dict.fromkeys(pose.layout for pose in poses):
            group = [pose for pose in poses if pose.layout == layout]
            joints, confidence, refused = clean(
                np.stack([pose.joints for pose in group]), np.stack([pose.confidence for pose in group])
            )
            self.refused += refused
            for pose, *arrays in zip(group, *convert(joints, confidence, layout, self.layout), strict=True):
                self._extend(pose.track, index, captured_ns, arrays, windows)
        return windows

    def lost(self) -> list[int]:
        """The tracks that ended since the last call."""
        lost, self._lost = self._lost, []
        return lost

    def _extend(self, number: int, index: int, now: int, pose: list, windows: list[Window]) -> None:
        """Adds one pose (joints, confidence) in the model's layout to its track."""
        track = self._tracks.get(number)
        if track is None:
            if len(self._tracks) >= self.max_tracks:
                self.crowded += 1
                return
            track = self._tracks[number] = _Track(now, *pose, self.length)
        elif now <= track.pose[0]:
            self.late += 1
            return
        rows = _row_times(track.t0, track.rows, now, self.fps)
        if len(rows):
            (before_ns, *before), after = track.pose, [array[None] for array in pose]
            joints, confidence, observed = _between(
                rows, (before_ns, *(array[None] for array in before)), (now, *after), self.fps
            )
            _fill(joints, confidence > 0, self.layout, track.memory)
            for row in range(len(rows)):
                track.add(joints[row], confidence[row], observed[row])
                if track.rows % self.stride == 0:
                    self._emit(number, index, now, track, windows)
        track.pose = (now, *pose)

    def _emit(self, number: int, index: int, now: int, track: _Track, windows: list[Window]) -> None:
        place = track.newest()
        observed = int(np.count_nonzero(track.observed[place]))
        if observed < self.min_observed:
            return
        oldest = max(track.rows - self.length, 0)
        start_ns = track.t0 + round(oldest * (SECOND_NS / self.fps))
        windows.append(
            Window(index, now, number, start_ns, track.joints[place].copy(), track.confidence[place].copy(), observed)
        )
