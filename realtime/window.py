"""The live buffer: the last T rows of each person at the model's frame rate.

realtime/resample.py says how rows are made and what becomes of missing joints, and holds the offline counterpart,
`offline_windows`. Letters: T rows of a window, V joints.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from realtime.resample import (
    RESET_GAP_NS,
    Memory,
    Trail,
    between,
    clean,
    fill,
    offline_windows,
    resample,
    row_times,
    trail_of,
)
from realtime.schema import SECOND_NS, Pose, Window
from realtime.skeleton import Layout, convert

__all__ = ["WindowBuffer", "offline_windows", "resample"]


class _Track:
    """One person's rows: each is written twice, T apart, so that any T rows in a row are one slice."""

    def __init__(self, t0: int, joints: np.ndarray, confidence: np.ndarray, length: int) -> None:
        self.t0, self.rows, self.length = t0, 0, length
        self.pose = (t0, joints, confidence)  # the newest
        self.memory = Memory.blank(len(joints))
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

    def reset(self) -> list[int]:
        """Forgets everybody, and gives the tracks that were followed; none of them will be told as lost."""
        tracks, self._lost = [*self._lost, *self._tracks], []
        self._tracks.clear()
        return tracks

    def lost(self) -> list[int]:
        """The tracks that ended since the last call."""
        lost, self._lost = self._lost, []
        return lost

    def follows(self) -> list[int]:
        """The tracks that are followed now, lowest first."""
        return sorted(self._tracks)

    def trail(self, track: int) -> Trail:
        """The newest T rows of a followed track, and the pose after them; KeyError for any other track."""
        found = self._tracks[track]
        place, numbers = found.newest(), np.arange(found.rows - self.length, found.rows)
        times = found.t0 + np.rint(numbers * (SECOND_NS / self.fps)).astype(np.int64)
        return trail_of(times, found.joints[place], found.confidence[place], found.pose)

    def _extend(self, number: int, index: int, now: int, pose: list, windows: list[Window]) -> None:
        """Adds one pose (joints, confidence) in the model's layout to its track."""
        track = self._tracks.get(number)
        if track is None:
            if len(self._tracks) >= self.max_tracks:
                self.crowded += 1
                return
            track = self._tracks[number] = _Track(now, pose[0], pose[1], self.length)
        elif now <= track.pose[0]:
            self.late += 1
            return
        if now >= track.t0 + round(track.rows * (SECOND_NS / self.fps)):
            rows = row_times(track.t0, track.rows, now, self.fps)
            (before_ns, *before), after = track.pose, [array[None] for array in pose]
            joints, confidence, observed = between(
                rows, (before_ns, *(array[None] for array in before)), (now, *after), self.fps
            )
            fill(joints, confidence > 0, self.layout, track.memory)
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
        end_ns = track.t0 + round((track.rows - 1) * (SECOND_NS / self.fps))
        joints, confidence = track.joints[place].copy(), track.confidence[place].copy()
        windows.append(Window(index, now, number, start_ns, joints, confidence, observed, end_ns))
