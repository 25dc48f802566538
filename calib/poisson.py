"""What a count of rare events says about their rate: exact Poisson intervals, and how long one must watch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import chi2

SURE = 0.95  # of every interval
THREE = -math.log(1 - SURE)  # the rule of three: none in t hours leaves rates up to 3 / t possible, at 95 %


@dataclass(frozen=True)
class Rate:
    """Events an hour, with the exact interval of a Poisson count (Garwood 1936)."""

    events: int
    hours: float
    per_hour: float
    low: float
    high: float


def rate(events: int, hours: float) -> Rate:
    """The rate of so many events in so many hours, with its 95 % interval; none in t hours: 0, and at most 3 / t.

    Of no events the interval is one-sided, as the rule of three has it. Raises ValueError for a negative count or
    no time.
    """
    if events < 0 or not 0 < hours < math.inf:
        raise ValueError(f"a rate needs a count from 0 on and a time above 0, got {events} in {hours} h")
    if not events:
        return Rate(0, hours, 0.0, 0.0, THREE / hours)
    tail = (1 - SURE) / 2
    low, high = chi2.ppf(tail, 2 * events) / 2, chi2.ppf(1 - tail, 2 * events + 2) / 2
    return Rate(events, hours, events / hours, float(low) / hours, float(high) / hours)


def hours_for(per_hour: float) -> float:
    """The shortest time that can promise a rate: so long without one event shows that it is not higher, at 95 %."""
    return THREE / per_hour


def expected(counts: list[int], pseudo: float) -> list[float]:
    """What each of several kinds of rare events is expected to count, given that their sum is what was counted.

    A kind of which none was seen is not one that never comes. Each count is drawn towards the mean m of all, as the
    mean of a gamma prior of shape `pseudo` and mean m after that count: m (n + pseudo) / (m + pseudo). The sum stays.
    """
    mean = sum(counts) / max(len(counts), 1)
    return [mean * (count + pseudo) / (mean + pseudo) if mean else 0.0 for count in counts]
