"""Events counted by action: right, false and missed, and what is taken for what.

Scored as everywhere in the project (train/scoring.py). A actions of a bundle, in its order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from calib.scored import OUTSIDE, Played
from realtime.schema import SECOND_NS
from train.data.clip import Truth
from train.scoring import POINT_WIDENING_NS, Detection, match, score_events

HOUR_S = 3600.0
NOBODY = "nothing"  # a false event that lies in no truth; a truth in which nothing is said


@dataclass(frozen=True)
class Counts:
    """Of one recording or several: add them with `+`. Arrays (A,) int64; hours: time that holds no truth."""

    truths: np.ndarray
    matched: np.ndarray
    false: np.ndarray
    hours: float

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.truths + other.truths, self.matched + other.matched, self.false + other.false, self.hours + other.hours
        )

    @property
    def recall(self) -> float | None:
        """Share of the truths that an event matches; None where nothing is labelled."""
        total = int(self.truths.sum())
        return float(self.matched.sum()) / total if total else None

    @property
    def per_hour(self) -> float:
        """False events an hour."""
        return float(self.false.sum()) / self.hours if self.hours > 0 else 0.0


def count(played: Played, found: Sequence[Detection], actions: Sequence[str], happens: Collection[str] = ()) -> Counts:
    """The counts of one recording's events.

    In a recording without labels every event is false, but those of actions that are said to happen there; its time is
    that in which somebody was in sight, since an empty room raises no alarm.
    """
    number = {action: k for k, action in enumerate(actions)}
    truths, matched, false = np.zeros((3, len(actions)), np.int64)
    if played.truths is None:
        for one in found:
            false[number[one.label]] += one.label not in happens
        return Counts(truths, matched, false, played.seen_ns / SECOND_NS / HOUR_S)
    for action, k in number.items():
        own = [truth for truth in played.truths if truth.label == action]
        said = [one for one in found if one.label == action]
        truths[k] = len(own)
        if said:
            matched[k] = len(match(own, said, point_truth=played.point_truth)) if own else 0
            false[k] = len(said) - matched[k]
    free = score_events(played.truths, (), played.duration_ns, point_truth=played.point_truth, vocabulary=actions)
    return Counts(truths, matched, false, free.free_s / HOUR_S)


def confusions(played: Played, found: Sequence[Detection]) -> Counter[tuple[str, str]]:
    """How often (true action, told action) goes wrong in one recording, each false event and each silent truth once.

    A false event counts against the truth that it shares most time with, else against "nothing"; a missed truth in
    which no event of another action lies is told as "nothing".
    """
    wrong: Counter[tuple[str, str]] = Counter()
    truths = played.truths or ()
    paired = [
        pair
        for label in {one.label for one in found}
        for pair in match(
            [truth for truth in truths if truth.label == label], [one for one in found if one.label == label],
            point_truth=played.point_truth,
        )
    ]  # fmt: skip
    right, met = {id(one) for _, one in paired}, {id(truth) for truth, _ in paired}
    for one in found:
        if id(one) in right:
            continue
        near = max(truths, key=lambda truth: _shared(truth, one), default=None)
        if near is None or _shared(near, one) <= 0:
            wrong[NOBODY, one.label] += 1
            continue
        met.add(id(near))
        wrong[near.label.removeprefix(OUTSIDE), one.label] += 1
    for truth in truths:
        if id(truth) not in met and not truth.label.startswith(OUTSIDE):
            wrong[truth.label, NOBODY] += 1
    return wrong


def _shared(truth: Truth, one: Detection) -> int:
    """Time in ns that an event shares with a truth; a point truth is widened as in scoring."""
    wide = POINT_WIDENING_NS if truth.start_ns == truth.end_ns else 0
    return min(truth.end_ns + wide, one.end_ns) - max(truth.start_ns - wide, one.start_ns)
