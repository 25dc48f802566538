"""What can be read from one number over time: turning points, repetitions, what was held, and runs of a state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from train.describe.track import RATE

AGAIN = 5  # movements to and fro of this number or more are a repetition
SLOWEST_SWING_S = 1.25  # one that takes longer is a movement of its own
HELD_S = 0.15  # what lasts shorter than this is noise


@dataclass(frozen=True)
class Swings:
    """Movements to and fro: turning points (rows), the typical size of a movement, movements a second."""

    rows: np.ndarray
    size: float
    rate_hz: float

    @property
    def count(self) -> int:
        """Movements between two turning points."""
        return max(len(self.rows) - 1, 0)

    @property
    def again(self) -> bool:
        """Whether they are a repetition."""
        return self.count >= AGAIN


def turning_points(signal: np.ndarray, least: float) -> np.ndarray:
    """Rows (P,) where a signal (R,) turns by at least `least`; its first and last extremes count too."""
    points: list[int] = []
    low = high = 0
    rising: bool | None = None
    for row, value in enumerate(signal):
        if value > signal[high]:
            high = row
        if value < signal[low]:
            low = row
        if rising is not False and signal[high] - value >= least and high <= row:
            points.append(high)
            rising, low = False, row
            high = row
        elif rising is not True and value - signal[low] >= least:
            points.append(low)
            rising, high = True, row
            low = row
    if rising is not None:
        points.append(high if rising else low)
    return np.array(points, np.int64)


def swings(signal: np.ndarray, least: float) -> Swings:
    """The longest series of brisk movements to and fro of at least `least` in a signal (R,)."""
    points = turning_points(signal, least)
    brisk = np.diff(points) <= SLOWEST_SWING_S * RATE
    best = (0, 0)
    start = 0
    for i in range(len(brisk) + 1):
        if i == len(brisk) or not brisk[i]:
            best = max(best, (i - start, -start))
            start = i + 1
    length, first = best[0], -best[1]
    rows = points[first : first + length + 1] if length else points[:0]
    if len(rows) < 2:
        return Swings(rows, 0.0, 0.0)
    size = float(np.median(np.abs(np.diff(signal[rows]))))
    return Swings(rows, size, float((len(rows) - 1) / ((rows[-1] - rows[0]) / RATE)))


def held(values: np.ndarray, most: bool = True) -> float:
    """The highest (or lowest) value that values (R,) have, all in all, for HELD_S."""
    count = min(max(round(HELD_S * RATE), 1), len(values))
    return float(np.sort(values)[-count] if most else np.sort(values)[count - 1])


def near(values: np.ndarray, end: bool, seconds: float = 0.3) -> float:
    """The median of the first (or last) moments of values (R,)."""
    count = max(1, min(round(seconds * RATE), len(values)))
    return float(np.median(values[-count:] if end else values[:count]))


def runs(states: np.ndarray, least_s: float) -> list[tuple[int, int, int]]:
    """(state, first row, row after) of runs of states (R,), those shorter than least_s joined to what came before."""
    found: list[list[int]] = []
    edges = np.flatnonzero(np.diff(states)) + 1
    for start, stop in zip([0, *edges], [*edges, len(states)], strict=True):
        state = int(states[start])
        if found and (stop - start < least_s * RATE or found[-1][0] == state):
            found[-1][2] = int(stop)
        elif found and found[-1][2] - found[-1][1] < least_s * RATE and len(found) == 1:
            found[0] = [state, 0, int(stop)]
        else:
            found.append([state, int(start), int(stop)])
    return [(state, start, stop) for state, start, stop in found]


def span(values: np.ndarray) -> float:
    """Highest less lowest of values (R,), outliers of a moment left out."""
    return held(values) - held(values, most=False)
