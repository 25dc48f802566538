"""The training pool: every data set's people as rows at the model's frame rate, and windows drawn from them.

A live window knows nothing of where an action begins, so training windows end anywhere in an action or just
after it, at any pace; one that has seen too little of the action is labelled "nothing" in proportion.
R rows in all, V joints, N windows, T frames, K classes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from realtime.errors import UsageError
from realtime.resample import resample, runs
from realtime.schema import SECOND_NS
from realtime.skeleton import CORE_16, convert
from train.augment import augment, augment_pair, mirror
from train.data.clip import Clip, Recording
from train.vocabulary import CLASSES, MIRRORED, action_of

AFTER_S = 0.6  # a window may end this long after its action and still be called by it
OVER_S = (1.0, 2.4)  # so long after its end an action is over
BLEND_S = (0.2, 0.8)  # from the end of one clip to the beginning of the next
HELD_SHARE = 0.5  # of labelled pieces, those shown alone
POINT_BEFORE_S, POINT_AFTER_S = 1.2, 0.4  # what a point truth stands for, around its tag
IDLE_BEFORE_S, IDLE_AFTER_S = 2.0, 1.5  # nothing is said to happen only this far from a point truth
MOST_OF = 0.5  # share of an action (or of the window) that must be seen for the full label ...
LITTLE_OF = 0.25  # ... and up to which the label is "nothing"
# Sets whose clips begin at rest: their first moments are examples of "nothing".
RESTING_START = ("utd_mhad", "msr_action3d", "sbu")


@dataclass(frozen=True)
class Unit:
    """Something to draw a window from: rows [start, stop) of the pool, inside the stream [low, high)."""

    data: str
    action: int  # index into the pool's classes; 0 is nothing
    start: int
    stop: int
    low: int
    high: int
    exact: bool  # a labelled interval; False for a point truth's surroundings

    @property
    def alone(self) -> bool:
        """Whether nothing is known of what came before and after."""
        return (self.low, self.high) == (self.start, self.stop)


class Pool:
    """Rows (R, V, 3) float32 root-relative metres in CORE_16 at `fps`, and the units in them."""

    classes = CLASSES

    def __init__(self, fps: float) -> None:
        self.fps = fps
        self.units: list[Unit] = []
        self._parts: list[np.ndarray] = []
        self._places: list[np.ndarray] = []  # where the root was, of one person's rows
        self._rows = 0
        self._of: dict[str, list[int]] = {}  # data set -> numbers of its units, once the pool is complete

    def add(self, items: Iterable[Clip | Recording]) -> Pool:
        """Takes in clips and recordings; labels outside the vocabulary are left out. Returns the pool."""
        self._of.clear()
        for item in items:
            for body in range(item.joints.shape[1]):
                seen = (item.confidence[:, body] > 0).any(axis=1)
                joints, confidence = convert(item.joints[seen, body], item.confidence[seen, body], item.layout, CORE_16)
                times = item.times_ns[seen]
                for run in runs(times):
                    rows, _, _ = resample(times[run], joints[run], confidence[run], self.fps)
                    self._take(item, int(times[run[0]]), rows)
        return self

    def neighbour(self, unit: Unit, rng: Generator) -> Unit:
        """Another unit of the same data set, by chance."""
        numbers = self._of.setdefault(unit.data, [i for i, u in enumerate(self.units) if u.data == unit.data])
        return self.units[numbers[int(rng.integers(len(numbers)))]]

    def rows(self) -> np.ndarray:
        """All rows (R, V, 3), of pairs (R, 2, V, 3)."""
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0]

    def person(self, unit: Unit) -> np.ndarray:
        """Joints (R, V, 3) of a unit's own rows where the sensor saw them, root and all; not of a pool of pairs."""
        if len(self._places) > 1:
            self._places = [np.concatenate(self._places)]
        part = slice(unit.start, unit.stop)
        return self.rows()[part] + self._places[0][part, None]

    def names(self) -> list[str]:
        """A name for each unit, then one for the mirror image of each: by these knowledge of them is found again."""
        names = [f"{i:06d} {u.data} rows {u.start} to {u.stop}" for i, u in enumerate(self.units)]
        return names + [f"{name}, mirrored" for name in names]

    def digest(self) -> str:
        """Hex digest of all rows, and of where people were."""
        return hashlib.sha256(b"".join(part.tobytes() for part in (self.rows(), *self._places))).hexdigest()

    def _take(self, item: Clip | Recording, start_ns: int, rows: np.ndarray) -> None:
        low, high = self._rows, self._rows + len(rows)
        units = self._clip_units(item, low, high) if isinstance(item, Clip) else self._cut(item, start_ns, low, high)
        if not units:
            return
        self._parts.append(rows - rows[:, [CORE_16.root]])
        self._places.append(rows[:, CORE_16.root])
        self._rows = high
        self.units += units

    def _clip_units(self, item: Clip, low: int, high: int) -> list[Unit]:
        action = action_of(item.data, item.label)
        if action is None:
            return []
        return [Unit(item.data, CLASSES.index(action), low, high, low, high, True)]

    def _cut(self, item: Recording, start_ns: int, low: int, high: int) -> list[Unit]:
        """Units of one unbroken run of a recording: its truths, and the stretches far from any of them."""

        def row(time_ns: float) -> int:
            return int(np.clip(low + (time_ns - start_ns) * self.fps / SECOND_NS, low, high))

        units, busy = [], []
        for truth in item.truths:
            before, after = (POINT_BEFORE_S, POINT_AFTER_S) if item.point_truth else (0.0, 0.0)
            start, stop = row(truth.start_ns - before * SECOND_NS), row(truth.end_ns + after * SECOND_NS)
            busy.append((truth.start_ns - IDLE_BEFORE_S * SECOND_NS, truth.end_ns + IDLE_AFTER_S * SECOND_NS))
            action = action_of(item.data, truth.label)
            if action is not None and stop - start >= 8:
                units.append(
                    Unit(
                        item.data,
                        CLASSES.index(action),
                        start,
                        stop,
                        low,
                        high,
                        not item.point_truth,
                    )
                )
        if item.point_truth or item.data == "synthetic":
            if not item.point_truth:
                busy = [(truth.start_ns, truth.end_ns + AFTER_S * SECOND_NS) for truth in item.truths]
            edges = [start_ns, *(edge for span in sorted(busy) for edge in span), start_ns + 1e15]
            for begin, end in zip(edges[::2], edges[1::2], strict=True):
                start, stop = row(begin), row(end)
                if stop - start >= self.fps:
                    units.append(Unit(item.data, 0, start, stop, low, high, True))
        return units


def _ends(unit: Unit, length: int, pace: float, fps: float, rng: Generator, whole: bool = False) -> tuple[float, float]:
    """Where a window of this unit ends (in rows) and the share of full label that it earns.

    whole: the unit is in sight, or as much of it as a window holds.
    """
    size = unit.stop - unit.start
    need = min(size, length * pace)
    if whole:
        return float(rng.uniform(max(unit.start + need, unit.stop - 4), unit.stop + 4)), 1.0
    if unit.action == 0:
        return float(rng.uniform(min(unit.start + 0.3 * fps, unit.stop), unit.stop)), 1.0
    if unit.data in RESTING_START and rng.random() < 0.1:
        return unit.start + float(rng.uniform(1, max(2, 0.15 * need))), 0.0
    if unit.alone and rng.random() < 0.15:  # it is over: the person stands as it left them
        return unit.stop + float(rng.uniform(*OVER_S)) * fps * pace, 0.0
    end = float(rng.uniform(unit.start + LITTLE_OF * need, unit.stop + AFTER_S * fps * pace))
    if rng.random() < 0.35:  # the whole action in sight, as in scoring a clip
        end = float(rng.uniform(max(unit.start + need, unit.stop - 4), unit.stop + 4))
    seen = (min(end, unit.stop) - max(end - length * pace, unit.start)) / need
    return end, float(np.clip((seen - LITTLE_OF) / (MOST_OF - LITTLE_OF), 0, 1))


def _places(
    unit: Unit, before: Unit, at: np.ndarray, fps: float, rng: Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two pool rows (T,) that each window row `at` (T,) lies between, and how far towards the second.

    In front of a labelled piece lies, by chance, its first row held (as the live buffer fills), what really came
    before, or the end of another unit of the same set, blended over into it.
    """
    kind = rng.random()
    held = kind < HELD_SHARE if unit.exact else False
    low, high = (unit.start, unit.stop) if held or unit.alone else (unit.low, unit.high)
    inside = np.clip(at, low, high - 1)
    first = np.minimum(inside.astype(np.int64), high - 1)
    second = np.minimum(first + 1, high - 1)
    part = inside - first
    if unit.alone and not held:
        blend = float(rng.uniform(*BLEND_S)) * fps
        early = at < unit.start - blend
        other = np.clip(before.stop - 1 - (unit.start - blend - at), before.start, before.stop - 1).astype(np.int64)
        between = (at >= unit.start - blend) & (at < unit.start)
        first = np.where(early, other, np.where(between, before.stop - 1, first))
        second = np.where(early, other, np.where(between, unit.start, second))
        part = np.where(early, 0, np.where(between, (at - unit.start + blend) / blend, part))
    return first, second, part


def draw(
    pool: Pool, picked: np.ndarray, length: int, rng: Generator, strength: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """One random window (N, T, V, 3) of each picked unit, augmented, and its soft labels (N, K).

    Of a pool of pairs the windows are (N, T, 2, V, 3).
    """
    windows, flips, shares = views(pool, picked, length, rng, strength)
    classes = pool.classes
    labels = np.zeros((len(picked), len(classes)), np.float32)
    for i, number in enumerate(picked):
        action = pool.units[number].action
        if flips[i]:
            action = classes.index(MIRRORED.get(classes[action], classes[action]))
        labels[i, action] += shares[i]
        labels[i, 0] += 1 - shares[i]
    return windows, labels


def views(
    pool: Pool, picked: np.ndarray, length: int, rng: Generator, strength: float = 1.0, whole: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One random window of each picked unit as by `draw`; whether it is mirrored, and the share of its label (N,).

    whole: windows that have the unit in sight, or as much of it as they hold, for what is said of it as a whole.
    """
    n = len(picked)
    first, second = np.empty((2, n, length), np.int64)
    part = np.empty((n, length), np.float32)
    shares = np.empty(n)
    flips = rng.random(n) < 0.5
    for i, number in enumerate(picked):
        unit = pool.units[number]
        pace = float(np.exp(strength * rng.uniform(-0.5, 0.5)))
        end, shares[i] = _ends(unit, length, pace, pool.fps, rng, whole)
        warp = np.cumsum(np.exp(0.2 * strength * np.sin(np.linspace(0, 3, length) + rng.uniform(0, 6.3))))
        back = (warp[-1] - warp) / (warp[-1] - warp[0]) * (length - 1) * pace
        first[i], second[i], part[i] = _places(unit, pool.neighbour(unit, rng), end - back, pool.fps, rng)
    rows = pool.rows()
    weight = part.reshape(*part.shape, *(1,) * (rows.ndim - 1))
    windows = rows[first] * (1 - weight) + rows[second] * weight
    windows[flips] = mirror(windows[flips])
    return (augment if windows.ndim == 4 else augment_pair)(windows, rng, strength), flips, shares


def weights(pool: Pool, share: dict[str, float], labels: bool = True, known: np.ndarray | None = None) -> np.ndarray:
    """Chance of each unit to be drawn: sets by `share` (1 where not named), classes of a set by the root of their size.

    labels: False leaves classes out of it, each unit of a set has the same chance. known: (U,) the units that may be
    drawn, all where not given. Returns (U,), summing to 1. Raises UsageError where every set's share is 0.
    """
    keys = [(unit.data, unit.action if labels else 0) for unit in pool.units]
    sizes = Counter(keys)
    raw = np.array([sizes[key] ** -0.5 for key in keys]) * (1 if known is None else known)
    data = np.array([unit.data for unit in pool.units])
    for name in set(data):
        raw[data == name] *= share.get(name, 1.0) / max(raw[data == name].sum(), 1e-12)
    if not raw.sum() > 0:
        raise UsageError(
            f"every set of the pool has the weight of 0 ({', '.join(sorted(set(data)))}); raise one's --share"
        )
    return raw / raw.sum()
