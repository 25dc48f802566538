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
from dataclasses import dataclass
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
    stranger: float = 3.0  # nats: a body is rather somebody with an id than somebody without
    unsure: float = 2.0  # nats: a body that is not sure is rather nobody's
    unseen_again: float = 2.0  # nats: who was not seen in the last frame is likely not seen in this one
    same_body: float = 0.05  # joints nearer than this on average: one body found twice


class _Drift(NamedTuple):
    """A value that moves with nearly constant speed, at one capture time: its Kalman filter's state.

    Hips are x + iy, so that places, distances and numbers are handled alike.
    """

    value: complex
    speed: complex  # a second
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

    def seen(self, value: complex, noise: float) -> _Drift:
        """With a measurement taken in."""
        total = self.var + noise**2
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

    hips: _Drift  # pixels; variances in squared heights
    size: _Drift  # logarithm of the height in pixels
    body: Body  # as last seen
    captured_ns: int  # when
    since: int  # the frame, counted by the tracker, at which it was seen first
    seen: tuple[int, ...]  # the frames at which it was seen, of the last few
    sure: tuple[int, ...]  # those of them at which it was good enough to begin a track
    id: int | None = None


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
        self._rules = rules if isinstance(rules, PeopleRules) else PeopleRules(**vars(rules))
        self._persons = persons
        self._frame = self._ids = 0
        self._captured_ns: int | None = None
        self._trails: list[_Trail] = []
        self.crowded = self.doubtful = self.refused = 0

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids that are alive, seen in this frame or not."""
        return tuple(sorted(trail.id for trail in self._trails if trail.id is not None))

    def forget(self) -> None:
        """Follows nobody from now on, on any clock; ids go on counting."""
        self._trails, self._captured_ns = [], None

    def assign(self, captured_ns: int, bodies: Sequence[Body]) -> list[int | None]:
        """The id of each body of one frame, in their order; None for one that has none (yet).

        Call it for frames without bodies too. captured_ns must grow. Raises ValueError where it does not, or where
        joints and confidence are no (J, 2) and (J,) with the same J for all.
        """
        if self._captured_ns is not None and captured_ns <= self._captured_ns:
            raise ValueError(f"capture time must grow, got {captured_ns} ns after {self._captured_ns} ns")
        self._captured_ns = captured_ns
        self._frame += 1
        self._let_go(captured_ns)
        places = self._distinct(bodies)
        followed = self._follow(captured_ns, [bodies[place] for place in places])
        # Ties are settled by place, so that the order in which bodies are given never matters.
        for trail in sorted(filter(None, followed), key=lambda trail: (trail.since, *trail.body.hips)):
            self._name(trail)
        ids: list[int | None] = [None] * len(bodies)
        for place, found in zip(places, followed, strict=True):
            ids[place] = found.id if found else None
        return ids

    def _let_go(self, captured_ns: int) -> None:
        """Ends who was not seen for too long."""
        longest_ns, oldest = self._rules.lost_after_s * SECOND_NS, self._frame - self._rules.begin_of
        self._trails = [
            trail
            for trail in self._trails
            if captured_ns - trail.captured_ns <= longest_ns and (trail.id is not None or trail.seen[-1] > oldest)
        ]

    def _distinct(self, bodies: Sequence[Body]) -> list[int]:
        """The places of the bodies worth looking at: finite ones, and of one found twice the one seen better."""
        kept: list[int] = []
        for place in sorted(range(len(bodies)), key=lambda place: _worse(bodies[place])):
            body, count = bodies[place], len(bodies[0].confidence)
            if body.joints.shape != (count, 2) or body.confidence.shape != (count,):
                raise ValueError(
                    f"bodies need joints (J, 2) and confidence (J,), J = {count} for all as for the first, "
                    f"got {body.joints.shape} and {body.confidence.shape}"
                )
            if not _finite(body):
                self.refused += 1
            elif not any(_same(body, bodies[other], self._rules.same_body) for other in kept):
                kept.append(place)
        return sorted(kept)

    def _follow(self, captured_ns: int, bodies: list[Body]) -> list[_Trail | None]:
        """The trail that each body goes on with or begins; None for one that might be either of two people."""
        costs = self._costs(captured_ns, bodies)  # (N, M)
        chosen = assign(costs - self._rules.miss)
        margins = self._margins(costs.tolist(), chosen)
        owner = {column: row for row, column in enumerate(chosen) if column is not None}
        followed: list[_Trail | None] = []
        trails = list(self._trails)
        for column, body in enumerate(bodies):
            row = owner.get(column)
            if row is None:
                followed.append(self._begin(captured_ns, body))
            elif margins[row] < self._rules.doubt:
                self.doubtful += 1
                followed.append(None)
            else:
                self._go_on(trails[row], captured_ns, body)
                followed.append(trails[row])
        return followed

    def _costs(self, captured_ns: int, bodies: list[Body]) -> np.ndarray:
        """How improbable it is that each body is each trail's next sighting, in nats above a perfect one; (N, M)."""
        rules, trails = self._rules, self._trails
        if not trails or not bodies:
            return np.zeros((len(trails), len(bodies)))
        seconds = [(captured_ns - trail.captured_ns) / SECOND_NS for trail in trails]
        expected = [trail.hips.after(t, rules.hips_drift) for trail, t in zip(trails, seconds, strict=True)]
        sizes = [trail.size.after(t, rules.size_drift) for trail, t in zip(trails, seconds, strict=True)]
        at = np.array([one.value for one in expected])[:, None]  # (N, 1)
        size = np.array([one.value.real for one in sizes])[:, None]
        at_var = np.array([one.var + rules.hips_noise**2 for one in expected])[:, None]
        size_var = np.array([one.var + rules.size_noise**2 for one in sizes])[:, None]
        off = np.abs(np.array([complex(*body.hips) for body in bodies]) - at) / np.exp(size)  # (N, M)
        grown = np.abs(np.log([body.height for body in bodies]) - size)
        costs = off**2 / (2 * at_var) + np.log(at_var / rules.hips_noise**2)
        costs += np.minimum(grown**2 / (2 * size_var), 8.0) + np.log(size_var / rules.size_noise**2) / 2
        costs += self._posture(bodies, np.array(seconds))
        costs += np.array([0.0 if trail.id else rules.stranger for trail in trails])[:, None]
        costs += np.array([0.0 if body.sure else rules.unsure for body in bodies])
        radius = np.clip(4 * np.sqrt(at_var), rules.near, rules.jump)
        return np.where((off <= radius) & (grown <= rules.size_jump), costs, np.inf)

    def _posture(self, bodies: list[Body], seconds: np.ndarray) -> np.ndarray:
        """The part of the costs (N, M) that is the change of posture: joints about the hips, in body heights."""
        rules, last = self._rules, [trail.body for trail in self._trails]
        spread = (rules.limb_noise + rules.limb_speed * seconds)[:, None]  # (N, 1)
        squares = ((_shapes(bodies) - _shapes(last)[:, None]) ** 2).sum(axis=3)  # (N, M, J)
        apart = np.minimum(squares / (2 * spread[..., None] ** 2), 8.0)  # no joint decides alone
        weights = np.array([body.confidence for body in last])[:, None] * np.array([body.confidence for body in bodies])
        total = weights.sum(axis=2)
        mean = np.where(total > 1e-6, (apart * weights).sum(axis=2) / np.maximum(total, 1e-6), 1.0)
        return np.asarray(rules.limb_terms * (mean + np.log(spread / rules.limb_noise)))

    def _margins(self, costs: list[list[float]], chosen: list[int | None]) -> list[float]:
        """For each trail with a body: how much worse the best exchange with somebody else is, in nats."""
        rules, trails = self._rules, self._trails
        missing = [trail.seen[-1] < self._frame - 1 for trail in trails]
        rivals = [i for i, trail in enumerate(trails) if trail.id or len(trail.seen) >= rules.begin_seen]
        margins = [math.inf] * len(trails)
        for row, mine in enumerate(chosen):
            if mine is None:
                continue
            for other in rivals:
                if other == row:
                    continue
                worse, theirs = costs[other][mine] - costs[row][mine], chosen[other]
                if theirs is not None:
                    worse += costs[row][theirs] - costs[other][theirs]
                else:
                    worse += rules.unseen_again * (missing[other] - missing[row])
                margins[row] = min(margins[row], worse)
        return margins

    def _begin(self, captured_ns: int, body: Body) -> _Trail:
        """Follows somebody not seen before."""
        rules, now = self._rules, (self._frame,)
        hips = _Drift(complex(*body.hips), 0, rules.hips_noise**2, 0.0, rules.hips_speed**2)
        size = _Drift(math.log(body.height), 0, rules.size_noise**2, 0.0, rules.size_speed**2)
        trail = _Trail(hips, size, body, captured_ns, self._frame, now, now if body.sure else ())
        self._trails.append(trail)
        return trail

    def _go_on(self, trail: _Trail, captured_ns: int, body: Body) -> None:
        """Takes a sighting in."""
        rules, oldest = self._rules, self._frame - self._rules.begin_of
        seconds = (captured_ns - trail.captured_ns) / SECOND_NS
        trail.hips = trail.hips.after(seconds, rules.hips_drift).seen(complex(*body.hips), rules.hips_noise)
        trail.size = trail.size.after(seconds, rules.size_drift).seen(math.log(body.height), rules.size_noise)
        trail.body, trail.captured_ns = body, captured_ns
        trail.seen = (*(frame for frame in trail.seen if frame > oldest), self._frame)
        sure = (*trail.sure, self._frame) if body.sure else trail.sure
        trail.sure = tuple(frame for frame in sure if frame > oldest)

    def _name(self, trail: _Trail) -> None:
        """Gives an id to somebody seen often enough, where there is room."""
        if trail.id is not None or not trail.body.sure or len(trail.sure) < self._rules.begin_seen:
            return
        if len(self.ids) >= self._persons:
            self.crowded += 1
            return
        self._ids += 1
        trail.id = self._ids


def _worse(body: Body) -> tuple[float, ...]:
    """Orders bodies, the best seen first and by place where that is equal."""
    return -float(np.sum(body.confidence)), *map(float, body.hips)


def _finite(body: Body) -> bool:
    numbers = (body.hips, body.height, body.joints, body.confidence)
    return all(bool(np.isfinite(number).all()) for number in numbers) and body.height > 0


def _shapes(bodies: Sequence[Body]) -> np.ndarray:
    """Joints about the hips in body heights; (M, J, 2)."""
    joints, hips = np.array([body.joints for body in bodies]), np.array([body.hips for body in bodies])
    return np.asarray((joints - hips[:, None]) / np.array([body.height for body in bodies])[:, None, None])


def _same(one: Body, other: Body, nearer: float) -> bool:
    """Whether two finds are one body: joints (weighted by both confidences) that lie on each other."""
    reach = nearer * max(one.height, other.height)
    if math.dist(one.hips, other.hips) > 4 * reach:
        return False
    weights = one.confidence * other.confidence
    apart = np.sqrt(((one.joints - other.joints) ** 2).sum(axis=1))
    return float(apart @ weights) < reach * float(weights.sum())
