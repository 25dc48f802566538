"""Who is who? Track ids for several bodies that a pose model finds in a picture.

Each frame's bodies are given to the tracks by one exact assignment (realtime/assignment.py) over what is improbable
about "this body is that person": how far the hips are from where they were heading, how much the size and the posture
changed, all by the capture time that passed and not by frames. Where exchanging two people would be nearly as probable
as not, neither is believed: the bodies get no id in this frame. Doubt that lasts as long as an absence ends the ids as
an absence does, so an id that goes on is the same person, and one that might be another person's is never used again.
NumPy only. Letters: N tracks, M bodies, J joints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from realtime.assignment import assign
from realtime.schema import SECOND_NS
from realtime.track import TrackRules


class Body(NamedTuple):
    """One body in one picture. Any set of joints will do, the same for all bodies of a tracker.

    sure: whether this sighting is good enough to begin a track; one that is not can only go on with one.
    """

    joints: np.ndarray  # (J, 2) pixels
    confidence: np.ndarray  # (J,) in [0, 1]
    hips: np.ndarray  # (2,) pixels, their middle
    height: float  # pixels, of the standing body, so that a person who bends or sits keeps it
    sure: bool = True


@dataclass(frozen=True)
class PeopleRules(TrackRules):
    """TrackRules, and how people move. Lengths in body heights of the person, times in seconds.

    The noises are standard deviations; the drifts, spectral densities of the acceleration's white noise.
    """

    hips_noise: float = 0.03
    hips_drift: float = 3.0  # 0.2 heights of doubt after 0.4 s unseen: as much as turning back makes
    hips_speed: float = 1.0  # heights a second: what to expect of somebody just seen
    size_noise: float = 0.06  # of the height's logarithm
    size_drift: float = 0.3
    size_speed: float = 0.3
    limb_noise: float = 0.05
    limb_speed: float = 0.6
    limb_terms: float = 3.0  # joints move together: all of them count as so many independent numbers
    near: float = 0.2  # hips are always looked for within this; never further than `jump`
    size_jump: float = 0.5  # of the height's logarithm: somebody else's size
    miss: float = 14.0  # what it costs (nats) to leave a track without a body and a body without a track
    doubt: float = 4.0  # nats: odds below 50 to 1 against an exchange are no certainty
    unseen_again: float = 2.0  # nats: who was not seen in the last frame is likely not seen in this one
    same_body: float = 0.05  # joints nearer than this on average: one body found twice


class _Drift(NamedTuple):
    """A value that moves with nearly constant speed, at one capture time: its Kalman filter's state."""

    value: np.ndarray  # (D,)
    speed: np.ndarray  # (D,) a second
    var: float
    covar: float  # of value and speed
    speed_var: float

    def after(self, seconds: float, drift: float) -> _Drift:
        """What to expect later."""
        return _Drift(
            self.value + seconds * self.speed,
            self.speed,
            self.var + 2 * seconds * self.covar + seconds**2 * self.speed_var + drift * seconds**3 / 3,
            self.covar + seconds * self.speed_var + drift * seconds**2 / 2,
            self.speed_var + drift * seconds,
        )

    def seen(self, value: np.ndarray, noise_var: float) -> _Drift:
        """With a measurement taken in."""
        total = self.var + noise_var
        gain, speed_gain = self.var / total, self.covar / total
        off = value - self.value
        return _Drift(
            self.value + gain * off,
            self.speed + speed_gain * off,
            self.var * (1 - gain),
            self.covar * (1 - gain),
            self.speed_var - speed_gain * self.covar,
        )


@dataclass(eq=False)
class _Trail:
    """A body followed over frames; a person once it has an id."""

    hips: _Drift  # (2,) pixels; variances in squared heights
    size: _Drift  # (1,) logarithm of the height in pixels
    body: Body  # as last seen
    captured_ns: int  # when
    frames: tuple[int, ...]  # the last frames, counted by the tracker, at which it was seen
    id: int | None = None
    expected: tuple[_Drift, _Drift] | None = field(default=None, repr=False)  # hips and size in this frame


class PeopleTracker:
    """Gives ids 1, 2, 3 … to at most `persons` people in view, never the same id twice.

    A body gets no id until it was seen in 3 of 5 frames. Seen again within 0.5 s and where it was heading, it keeps
    its id; later, it is somebody new, wherever it is: its window and its events have ended by then, so that an old id
    would bring nothing back but the chance of naming the wrong person.
    Counted: crowded (bodies left without an id because `persons` have one), doubtful (bodies left without one because
    they might be either of two people), refused (bodies with numbers that are none).
    """

    def __init__(self, rules: TrackRules = PeopleRules(), persons: int = 8) -> None:
        if persons < 1:
            raise ValueError(f"persons must be at least 1, got {persons}")
        own = rules if isinstance(rules, PeopleRules) else PeopleRules(**vars(rules))
        self._rules, self._persons = own, persons
        self._frame = self._ids = 0
        self._captured_ns: int | None = None
        self._people: list[_Trail] = []
        self._candidates: list[_Trail] = []
        self.crowded = self.doubtful = self.refused = 0

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids that are alive, seen in this frame or not."""
        return tuple(trail.id for trail in self._people if trail.id is not None)

    def forget(self) -> None:
        """Follows nobody from now on, on any clock; ids go on counting."""
        self._people, self._candidates, self._captured_ns = [], [], None

    def assign(self, captured_ns: int, bodies: Sequence[Body]) -> list[int | None]:
        """The id of each body of one frame, in their order; None for one that has none (yet).

        Call it for frames without bodies too. captured_ns must grow. Raises ValueError where it does not, or where
        joints and confidence are no (J, 2) and (J,).
        """
        if self._captured_ns is not None and captured_ns <= self._captured_ns:
            raise ValueError(f"capture time must grow, got {captured_ns} ns after {self._captured_ns} ns")
        self._captured_ns = captured_ns
        self._frame += 1
        self._let_go(captured_ns)
        ids: list[int | None] = [None] * len(bodies)
        left = self._distinct(bodies)
        pairs, doubtful = self._match(self._people, bodies, left)
        for trail, place in pairs:
            self._update(trail, bodies[place], captured_ns)
            ids[place] = trail.id
        taken = {place for _, place in pairs} | doubtful
        self._begin(captured_ns, bodies, [place for place in left if place not in taken], ids)
        return ids

    def _let_go(self, captured_ns: int) -> None:
        """Ends who was not seen for too long, and says where the others are expected."""
        rules = self._rules
        longest_ns = rules.lost_after_s * SECOND_NS
        self._people = [trail for trail in self._people if captured_ns - trail.captured_ns <= longest_ns]
        self._candidates = [
            trail
            for trail in self._candidates
            if captured_ns - trail.captured_ns <= longest_ns and trail.frames[-1] > self._frame - rules.begin_of
        ]
        for trail in (*self._people, *self._candidates):
            seconds = (captured_ns - trail.captured_ns) / SECOND_NS
            trail.expected = trail.hips.after(seconds, rules.hips_drift), trail.size.after(seconds, rules.size_drift)

    def _distinct(self, bodies: Sequence[Body]) -> list[int]:
        """The bodies worth looking at: finite ones, and of one found twice the one seen better."""
        kept: list[int] = []
        for place in sorted(range(len(bodies)), key=lambda place: -float(np.sum(bodies[place].confidence))):
            body = bodies[place]
            if np.shape(body.joints) != (len(body.confidence), 2) or np.shape(body.hips) != (2,):
                raise ValueError(f"a body needs joints (J, 2), confidence (J,) and hips (2,), got {_shapes(body)}")
            if not (np.isfinite(body.hips).all() and math.isfinite(body.height) and body.height > 0):
                self.refused += 1
            elif not np.isfinite(body.joints).all() or not np.isfinite(body.confidence).all():
                self.refused += 1
            elif not any(_same(body, bodies[other], self._rules.same_body) for other in kept):
                kept.append(place)
        return sorted(kept)

    def _match(
        self, trails: list[_Trail], bodies: Sequence[Body], left: Sequence[int]
    ) -> tuple[list[tuple[_Trail, int]], set[int]]:
        """The trails that are surely seen, each with its place among the bodies, and the places that are in doubt."""
        if not trails or not left:
            return [], set()
        costs = self._costs(trails, [bodies[place] for place in left])  # (N, M)
        chosen = assign(costs - self._rules.miss)
        margins = self._margins(trails, costs, chosen)
        sure, doubtful = [], set()
        for row, column in enumerate(chosen):
            if column is None:
                continue
            if margins[row] >= self._rules.doubt:
                sure.append((trails[row], left[column]))
            else:
                doubtful.add(left[column])
                self.doubtful += 1
        return sure, doubtful

    def _costs(self, trails: list[_Trail], bodies: list[Body]) -> np.ndarray:
        """How improbable it is that each body is each trail's next sighting, in nats above a perfect one; (N, M)."""
        rules = self._rules
        hips = np.array([body.hips for body in bodies], float)  # (M, 2)
        heights = np.array([body.height for body in bodies], float)  # (M,)
        joints = np.array([body.joints for body in bodies], float)  # (M, J, 2)
        weights = np.array([body.confidence for body in bodies], float)  # (M, J)
        shapes = (joints - hips[:, None]) / heights[:, None, None]
        rows = []
        for trail in trails:
            assert trail.expected is not None
            at, size = trail.expected
            off = np.linalg.norm(hips - at.value, axis=1) / math.exp(float(size.value[0]))  # (M,)
            grown = np.abs(np.log(heights) - size.value[0])
            hips_var, size_var = at.var + rules.hips_noise**2, size.var + rules.size_noise**2
            cost = off**2 / (2 * hips_var) + math.log(hips_var / rules.hips_noise**2)
            cost += np.minimum(grown**2 / (2 * size_var), 8.0) + math.log(size_var / rules.size_noise**2) / 2
            cost += self._posture(trail, shapes, weights)
            radius = min(max(4 * math.sqrt(hips_var), rules.near), rules.jump)
            rows.append(np.where((off <= radius) & (grown <= rules.size_jump), cost, np.inf))
        return np.array(rows)

    def _posture(self, trail: _Trail, shapes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The part of the cost (M,) that is the change of posture: joints about the hips, in body heights."""
        rules, last = self._rules, trail.body
        assert self._captured_ns is not None
        seconds = (self._captured_ns - trail.captured_ns) / SECOND_NS
        spread = rules.limb_noise + rules.limb_speed * seconds
        shape = (last.joints - last.hips) / last.height  # (J, 2)
        apart = np.minimum(((shapes - shape) ** 2).sum(axis=2) / (2 * spread**2), 8.0)  # (M, J), no joint decides alone
        both = weights * last.confidence
        total = both.sum(axis=1)
        mean = (apart * both).sum(axis=1) / np.maximum(total, 1e-6)
        return rules.limb_terms * (np.where(total > 1e-6, mean, 1.0) + math.log(spread / rules.limb_noise))

    def _margins(self, trails: list[_Trail], costs: np.ndarray, chosen: list[int | None]) -> list[float]:
        """For each trail that got a body: how much worse the best exchange with another trail is, in nats."""
        rules, count = self._rules, len(trails)
        missing = np.array([trail.frames[-1] < self._frame - 1 for trail in trails])
        margins = [math.inf] * count
        for row in range(count):
            for other in range(count):
                mine, theirs = chosen[row], chosen[other]
                if row == other or mine is None:
                    continue
                if theirs is None:
                    worse = costs[other, mine] - costs[row, mine]
                    worse += rules.unseen_again * (int(missing[other]) - int(missing[row]))
                else:
                    worse = costs[row, theirs] + costs[other, mine] - costs[row, mine] - costs[other, theirs]
                margins[row] = min(margins[row], float(worse))
        return margins

    def _update(self, trail: _Trail, body: Body, captured_ns: int) -> None:
        """Takes a sighting in."""
        rules = self._rules
        assert trail.expected is not None
        at, size = trail.expected
        trail.hips = at.seen(np.asarray(body.hips, float), rules.hips_noise**2)
        trail.size = size.seen(np.array([math.log(body.height)]), rules.size_noise**2)
        trail.body, trail.captured_ns = body, captured_ns
        trail.frames = (*(frame for frame in trail.frames if frame > self._frame - rules.begin_of), self._frame)

    def _begin(self, captured_ns: int, bodies: Sequence[Body], left: list[int], ids: list[int | None]) -> None:
        """Follows the bodies that are nobody's, and gives an id to those seen often enough, where there is room."""
        rules = self._rules
        left = [place for place in left if bodies[place].sure]
        pairs, doubtful = self._match(self._candidates, bodies, left)
        for trail, place in pairs:
            self._update(trail, bodies[place], captured_ns)
        seen = {place for _, place in pairs} | doubtful
        for place in left:
            if place not in seen:
                trail = self._candidate(bodies[place], captured_ns)
                self._candidates.append(trail)
                pairs.append((trail, place))
        for trail, place in sorted(pairs, key=lambda pair: pair[0].frames[0]):
            if len(trail.frames) < rules.begin_seen:
                continue
            if len(self._people) >= self._persons:
                self.crowded += 1
                continue
            self._ids += 1
            trail.id = ids[place] = self._ids
            self._candidates.remove(trail)
            self._people.append(trail)

    def _candidate(self, body: Body, captured_ns: int) -> _Trail:
        rules, still = self._rules, np.zeros(2)
        hips = _Drift(np.asarray(body.hips, float), still, rules.hips_noise**2, 0.0, rules.hips_speed**2)
        size = _Drift(np.array([math.log(body.height)]), np.zeros(1), rules.size_noise**2, 0.0, rules.size_speed**2)
        return _Trail(hips, size, body, captured_ns, (self._frame,))


def _same(one: Body, other: Body, nearer: float) -> bool:
    """Whether two finds are one body: joints (weighted by both confidences) that lie on each other."""
    if one.joints.shape != other.joints.shape:
        raise ValueError(f"bodies must have the same joints, got {_shapes(one)} and {_shapes(other)}")
    weights = one.confidence * other.confidence
    apart = np.linalg.norm(one.joints - other.joints, axis=1)
    return float(apart @ weights) < nearer * max(one.height, other.height) * float(weights.sum())


def _shapes(body: Body) -> tuple[tuple[int, ...], ...]:
    return np.shape(body.joints), np.shape(body.confidence), np.shape(body.hips)
