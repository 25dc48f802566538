"""The two trackers everybody writes first, for comparison: by overlap of boxes, and by nearest hips, both greedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from realtime.people import Body
from realtime.schema import SECOND_NS
from realtime.track import TrackRules

LEAST_OVERLAP = 0.3


@dataclass(eq=False)
class _Trail:
    body: Body
    captured_ns: int
    frames: tuple[int, ...]
    id: int | None = None


class _Greedy:
    """The nearest pair first; begins and ends tracks as PeopleTracker does."""

    def __init__(self) -> None:
        self._rules = TrackRules()
        self._trails: list[_Trail] = []
        self._frame = self._ids = 0

    def distance(self, trail: Body, body: Body) -> float:
        """How far apart two sightings are; infinite where they cannot be one person."""
        raise NotImplementedError

    def assign(self, captured_ns: int, bodies: Sequence[Body]) -> list[int | None]:
        """The id of each body."""
        rules = self._rules
        self._frame += 1
        lost_ns = rules.lost_after_s * SECOND_NS
        self._trails = [trail for trail in self._trails if captured_ns - trail.captured_ns <= lost_ns]
        pairs = sorted(
            (self.distance(trail.body, body), row, place)
            for row, trail in enumerate(self._trails)
            for place, body in enumerate(bodies)
        )
        ids: list[int | None] = [None] * len(bodies)
        rows, places = set(), set()
        for distance, row, place in pairs:
            if not np.isfinite(distance) or row in rows or place in places:
                continue
            rows.add(row)
            places.add(place)
            trail = self._trails[row]
            trail.body, trail.captured_ns = bodies[place], captured_ns
            trail.frames = (*(f for f in trail.frames if f > self._frame - rules.begin_of), self._frame)
            if trail.id is None and len(trail.frames) >= rules.begin_seen:
                self._ids += 1
                trail.id = self._ids
            ids[place] = trail.id
        for place, body in enumerate(bodies):
            if place not in places and body.sure:
                self._trails.append(_Trail(body, captured_ns, (self._frame,)))
        return ids


class NearestHips(_Greedy):
    """By the distance of the hips from where they were last seen."""

    def distance(self, trail: Body, body: Body) -> float:
        """In body heights, at most TrackRules.jump."""
        apart = float(np.linalg.norm(trail.hips - body.hips)) / max(trail.height, body.height)
        return apart if apart <= self._rules.jump else float("inf")


class BoxOverlap(_Greedy):
    """By the overlap (IoU) of the boxes around the joints."""

    def distance(self, trail: Body, body: Body) -> float:
        """1 - IoU, at most 0.7."""
        low = np.maximum(trail.joints.min(axis=0), body.joints.min(axis=0))
        high = np.minimum(trail.joints.max(axis=0), body.joints.max(axis=0))
        both = float(np.prod(np.maximum(high - low, 0)))
        areas = [float(np.prod(np.ptp(one.joints, axis=0))) for one in (trail, body)]
        overlap = both / max(sum(areas) - both, 1e-9)
        return 1 - overlap if overlap >= LEAST_OVERLAP else float("inf")
