"""How many false alarms each action may cost: thresholds per action, for a rate that is the sum over all of them.

R recordings, A actions, L levels of `on`, lowest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from calib.poisson import expected

Allotment = Literal["recall", "even", "common"]
PSEUDO_FALSE = 0.5  # how strongly an action's false events are drawn to the mean of all (calib.poisson.expected)
PSEUDO_TRUTHS = 10.0  # so many truths that behave like all actions' are added to each action's own
TIE = 1e-3  # truths that a step of 1 in log odds away from the usual threshold must bring
LEVELS = 20
LOWEST, HIGHEST = 0.25, 0.99  # of the levels
FLOOR, CEILING = 0.05, 0.998  # what a threshold may be in the end


def logit(p: np.ndarray) -> np.ndarray:
    """log(p / (1 - p))."""
    return np.log(p / (1 - p))


def levels() -> np.ndarray:
    """The values of `on` that are tried (L,), even in log odds."""
    ends = logit(np.array([LOWEST, HIGHEST]))
    return 1 / (1 + np.exp(-np.linspace(ends[0], ends[1], LEVELS)))


def shifted(on: np.ndarray, by: float) -> np.ndarray:
    """Thresholds moved by so much in log odds, within [FLOOR, CEILING]."""
    return np.clip(1 / (1 + np.exp(-(logit(on) + by))), FLOOR, CEILING)


@dataclass(frozen=True)
class Curves:
    """What each level costs and keeps, every action at the same level: counts (R, A, L), truths (R, A), hours (R,)."""

    false: np.ndarray
    matched: np.ndarray
    truths: np.ndarray
    hours: np.ndarray

    def of(self, rows: Sequence[int]) -> Curves:
        """Those of some recordings."""
        chosen = list(rows)
        return Curves(self.false[chosen], self.matched[chosen], self.truths[chosen], self.hours[chosen])


def _cost(curves: Curves) -> np.ndarray:
    """False events that each action is expected to cost at each level (A, L), never fewer at a lower level."""
    false = curves.false.sum(axis=0)
    cost = np.array([expected(column.tolist(), PSEUDO_FALSE) for column in false.T]).T
    return np.maximum.accumulate(cost[:, ::-1], axis=1)[:, ::-1]


def _gain(curves: Curves) -> np.ndarray:
    """Truths that each action is expected to keep at each level (A, L).

    An action without truths of its own behaves as all do together. Where nothing is labelled, nothing is known to be
    gained at any level: 0.
    """
    matched, total = curves.matched.sum(axis=0), curves.truths.sum()
    return matched + PSEUDO_TRUTHS * matched.sum(axis=0) / total if total else np.zeros(matched.shape)


def allot(
    curves: Curves, on: np.ndarray, per_hour: float, how: Allotment = "recall", usual: np.ndarray | float = 0.75
) -> np.ndarray:
    """The level of `on` of each action (A,) at which the expected false events come to `per_hour`.

    recall: the sum is kept where it costs least recall (the Lagrangian of that: each action takes the level with the
    best gain - price x cost, and the price is the lowest that meets the sum). even: each action gets the same share.
    common: one level for all. Where the highest levels still cost too much, they are taken. Where levels make no
    difference here, the one nearest to `usual`, of all or of each (A,), is taken: what these recordings do not tell is
    left as it was.
    """
    budget, cost = per_hour * float(curves.hours.sum()), _cost(curves)
    actions, last = cost.shape[0], cost.shape[1] - 1
    if how == "common":
        met = np.flatnonzero(cost.sum(axis=0) <= budget)
        return np.full(actions, on[met[0] if len(met) else last])
    if how == "even":
        fits = cost <= budget / actions
        return on[np.where(fits.any(axis=1), fits.argmax(axis=1), last)]
    gain = _gain(curves) - TIE * np.abs(logit(on) - logit(np.asarray(usual))[..., None])  # (A, L)

    def chosen(price: float) -> np.ndarray:
        return np.asarray((gain - price * cost).argmax(axis=1))

    rows = np.arange(actions)
    low, high = -12.0, 12.0  # of the price's logarithm
    for _ in range(50):
        middle = (low + high) / 2
        if cost[rows, chosen(np.exp(middle))].sum() <= budget:
            high = middle
        else:
            low = middle
    return on[chosen(np.exp(high))]
