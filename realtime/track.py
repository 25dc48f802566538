"""Who is it? A track id for the one person that the pose model follows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from realtime.schema import SECOND_NS


@dataclass(frozen=True)
class TrackRules:
    """When a body in view is a person, the same person, or another one."""

    begin_seen: int = 3  # a track begins when a body was seen in this many
    begin_of: int = 5  # of this many frames in a row
    lost_after_s: float = 0.5  # seen again within this time: the same track
    jump: float = 0.5  # hips that move further than this part of the body's height: somebody else


@dataclass
class _Trail:
    """A body followed over frames."""

    hips: np.ndarray  # (2,) pixels
    height: float  # pixels
    captured_ns: int
    frames: tuple[int, ...]  # the frames, counted by the tracker, at which it was seen


class OnePersonTracker:
    """Gives ids 1, 2, 3 … to the person in view, one at a time.

    A body gets no id until it was seen in 3 of 5 frames in one place. Seen again within 0.5 s and near, it keeps its
    id; later, it is a new track. A body that turns up elsewhere (the pose model hopped to another person, or to
    nonsense) is a new candidate: three sightings make it the new track, a return of the first one drops it.
    """

    def __init__(self, rules: TrackRules = TrackRules()) -> None:
        self._rules = rules
        self._frame = 0
        self._track = 0
        self._person: _Trail | None = None
        self._candidate: _Trail | None = None

    def nobody(self) -> None:
        """Tells that this frame shows no body."""
        self._frame += 1

    def forget(self) -> None:
        """Follows nobody from now on; ids go on counting."""
        self._person = self._candidate = None

    def seen(self, captured_ns: int, hips: np.ndarray, height: float, sure: bool = True) -> int | None:
        """The track id of the body in this frame, None while it is no more than a candidate.

        captured_ns must grow. hips: (2,) middle of the hips in pixels; height: of the standing body in pixels,
        so that a person who bends or sits keeps it. sure: whether this sighting is good enough to begin a track;
        one that is not can only go on with one.
        """
        self._frame += 1
        if self._continues(self._person, captured_ns, hips, height):
            self._person = _Trail(hips, height, captured_ns, ())
            self._candidate = None
            return self._track
        if not sure:
            return None
        earlier = self._candidate
        frames = earlier.frames if earlier and self._continues(earlier, captured_ns, hips, height) else ()
        recent = tuple(frame for frame in frames if frame > self._frame - self._rules.begin_of)
        self._candidate = _Trail(hips, height, captured_ns, (*recent, self._frame))
        if len(self._candidate.frames) < self._rules.begin_seen:
            return None
        self._person, self._candidate = self._candidate, None
        self._track += 1
        return self._track

    def _continues(self, trail: _Trail | None, captured_ns: int, hips: np.ndarray, height: float) -> bool:
        if trail is None or captured_ns - trail.captured_ns > self._rules.lost_after_s * SECOND_NS:
            return False
        return float(np.linalg.norm(hips - trail.hips)) <= self._rules.jump * max(height, trail.height)
