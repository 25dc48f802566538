"""The thresholds of a site: fitted on its recordings, and measured on those that each fit did not see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from calib.allot import HIGHEST, LOWEST, PSEUDO_FALSE, Allotment, Curves, allot, levels, shifted
from calib.counts import Counts, confusions, count
from calib.poisson import THREE, Rate, expected, rate
from calib.scored import Played, decide, parts_of
from realtime.bundle import Bundle
from realtime.errors import UsageError
from train.scoring import Detection

FOLDS = 5
PIECES = 10  # that few long recordings are cut into
FARTHEST = 4.0  # by how much in log odds thresholds are moved at most
FINEST = 0.1
Progress = Callable[[str], None]  # told before each round of deciding
Move = Callable[[np.ndarray, float], np.ndarray]  # of thresholds, by so much in log odds


@dataclass(frozen=True)
class Asked:
    """What thresholds are wanted. happens: actions whose events in ordinary life are right, and stay as they are."""

    per_hour: float
    how: Allotment = "recall"
    happens: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fit:
    """Thresholds and what they are worth. Arrays over actions in the bundle's order.

    on, off: the thresholds. counted: on recordings that the fit of each did not see; as fitted: on all of them with
    the thresholds themselves. rate: the false events an hour to expect. crossed: whether anything was left out.
    common: (false events an hour, recall) of one threshold for all, at each of `levels`. happens: (A,) whose events
    without labels are right. kept: whether these are the bundle's own.
    """

    on: np.ndarray
    off: np.ndarray
    counted: Counts
    fitted: Counts
    rate: Rate
    crossed: bool
    common: list[tuple[float, float | None]]
    confused: Counter[tuple[str, str]]
    happens: np.ndarray
    kept: bool = False

    def far_per_h(self) -> list[float | None]:
        """False events an hour to expect of each action; None where nothing tells: of those that do happen."""
        each = iter(expected(self.counted.false[~self.happens].tolist(), PSEUDO_FALSE))
        return [None if right else next(each) / self.counted.hours for right in self.happens]

    def met(self, per_hour: float) -> bool:
        """Whether no more false events were counted than this rate allows."""
        return float(self.counted.false.sum()) <= per_hour * self.counted.hours


def with_thresholds(bundle: Bundle, on: np.ndarray, off: np.ndarray | None = None) -> Bundle:
    """The bundle with these thresholds (A,); off where not given at the bundle's own share of on."""
    low = on * shares(bundle) if off is None else off
    actions = [replace(action, on=float(a), off=float(b)) for action, a, b in zip(bundle.actions, on, low, strict=True)]
    return replace(bundle, actions=tuple(actions))


def shares(bundle: Bundle) -> np.ndarray:
    """How far below `on` each action's `off` lies (A,), as a share of it: the hysteresis that the bundle came with."""
    return np.array([min(action.off / action.on, 1.0) if action.on else 1.0 for action in bundle.actions])


def folds_of(played: Sequence[Played]) -> list[list[int]]:
    """Numbers of the recordings in each part that is left out in turn; one part where nothing can be left out.

    Whole people are left out where there are three or more, else whole recordings.
    """
    groups = list(dict.fromkeys(one.group for one in played))
    keys = [groups.index(one.group) for one in played] if len(groups) >= 3 else list(range(len(played)))
    parts = min(FOLDS, len(set(keys)))
    return [[n for n, key in enumerate(keys) if key % parts == part] for part in range(parts)]


class Fitter:
    """Recordings, scored, and the bundle that decides; `fit` is the verb. tell: what it is doing, for people."""

    def __init__(self, bundle: Bundle, played: Sequence[Played], tell: Progress = lambda _: None) -> None:
        pieces = PIECES if len({one.group for one in played}) < 3 else 1
        cut = [(whole, part) for whole, one in enumerate(played) for part in parts_of(one, pieces)]
        self.bundle, self.tell = bundle, tell
        self.played = played
        self.parts = [part for _, part in cut]
        self.wholes = [whole for whole, _ in cut]  # number of the recording that each part is of
        self.decided: dict[tuple[int, bytes], list[Detection]] = {}  # by recording and thresholds
        self.actions = tuple(action.id for action in bundle.actions)
        self.own_on = np.array([action.on for action in bundle.actions])
        self.levels = levels()

    def found(self, on: np.ndarray, whole: int) -> list[Detection]:
        """The events of a whole recording with thresholds `on` (A,); decided once, since parts of it ask again."""
        key = whole, on.tobytes()
        if key not in self.decided:
            self.decided[key] = decide(with_thresholds(self.bundle, on), self.played[whole])
        return self.decided[key]

    def counts(self, on: np.ndarray, number: int, happens: Collection[str] = ()) -> Counts:
        """What one part counts with thresholds `on` (A,)."""
        part = self.parts[number]
        return count(part.played, part.own(self.found(on, self.wholes[number])), self.actions, happens)

    def curves(self, happens: Collection[str] = ()) -> Curves:
        """Every part counted at every level."""
        rows = []
        for step, level in enumerate(self.levels):
            self.tell(f"one threshold for all, {step + 1} of {len(self.levels)}")
            on = np.full(len(self.actions), level)
            rows.append([self.counts(on, number, happens) for number in range(len(self.parts))])
        first = rows[0]
        return Curves(
            np.array([[c.false for c in row] for row in rows]).transpose(1, 2, 0),
            np.array([[c.matched for c in row] for row in rows]).transpose(1, 2, 0),
            np.array([c.truths for c in first]),
            np.array([c.hours for c in first]),
        )

    def fit(self, asked: Asked) -> Fit:
        """Thresholds whose false events come to `asked.per_hour` on recordings that they were not chosen by.

        Raises UsageError where truths fill all of the time.

        Each part of the recordings is left out in turn, and the others' thresholds decide on it. All are then moved
        together, in log odds, until what was counted so comes to the rate asked for; the same move is given to the
        thresholds of all recordings. Choosing the dearest actions by the same few events that are then counted would
        promise too much. Where the bundle's own meet the rate and keep as much recall, they stay.
        """
        happens = np.array([action in asked.happens for action in self.actions])
        curves, folds = self.curves(asked.happens), folds_of([part.played for part in self.parts])
        if not curves.hours.sum() > 0:
            raise UsageError(
                "the labelled actions of these recordings fill all of their time, and a false alarm could only come "
                "in between; give recordings in which nothing happens too, with --nothing"
            )
        crossed = len(folds) > 1
        every = range(len(self.parts))

        def chosen(rows: Sequence[int]) -> np.ndarray:
            usual = np.clip(self.own_on, LOWEST, HIGHEST)
            on = allot(curves.of(rows), self.levels, asked.per_hour, asked.how, usual)
            return np.where(happens, self.own_on, on)

        left = [chosen([n for n in every if n not in fold] if crossed else list(every)) for fold in folds]
        enough = asked.per_hour * float(curves.hours.sum()) >= THREE
        move = self._mover(happens, easier=enough and bool(curves.truths.sum()))
        by, counted = self._moved(left, folds, asked, move, enough)
        on = move(chosen(list(every)), by)
        usual = _sum([self.counts(self.own_on, number, asked.happens) for number in every])
        kept = asked.how == "recall" and _as_good(usual, counted, asked.per_hour)
        if kept:
            on, counted = self.own_on, usual  # they were chosen elsewhere: no part need be left out
        return self._told(on, counted, crossed or kept, kept, curves, asked)

    def _told(
        self, on: np.ndarray, counted: Counts, crossed: bool, kept: bool, curves: Curves, asked: Asked
    ) -> Fit:  # fmt: skip
        """Thresholds that were found, and what they do on all recordings."""
        self.tell("the thresholds themselves")
        found = [self.found(on, whole) for whole in range(len(self.played))]
        each = [count(one, events, self.actions, asked.happens) for one, events in zip(self.played, found, strict=True)]
        confused: Counter[tuple[str, str]] = Counter()
        for one, events in zip(self.played, found, strict=True):
            confused += confusions(one, [e for e in events if one.truths is not None or e.label not in asked.happens])
        return Fit(
            on=on,
            off=on * shares(self.bundle),
            counted=counted,
            fitted=_sum(each),
            rate=rate(int(counted.false.sum()), counted.hours),
            crossed=crossed,
            common=self._common(curves),
            confused=confused,
            happens=np.array([action in asked.happens for action in self.actions]),
            kept=kept,
        )

    def own(self, happens: Collection[str] = ()) -> Counts:
        """What the bundle's own thresholds count."""
        self.tell("the bundle's own thresholds")
        return _sum([
            count(one, decide(self.bundle, one), self.actions, happens) for one in self.played
        ])  # fmt: skip

    def _mover(self, happens: np.ndarray, easier: bool) -> Move:
        """Moves thresholds (A,) by so much in log odds; not those of what happens there (A,).

        easier: whether any may end below the bundle's own. Not where nothing is labelled, since silence alone does not
        say that an action would be told rightly; nor in too little time: the events that are missing may come yet.
        """
        least = np.zeros(len(happens)) if easier else self.own_on
        return lambda on, by: np.where(happens, on, np.maximum(shifted(on, by), least))

    def _moved(
        self, left: Sequence[np.ndarray], folds: Sequence[Sequence[int]], asked: Asked, move: Move, enough: bool
    ) -> tuple[float, Counts]:
        """The move at which no more false events are counted than asked for, and the counts there.

        Of labelled recordings that of most recall; else the least, so that most is told. None where there is not enough
        time to promise the rate, and it is met.
        """
        tried: dict[float, Counts] = {}

        def counts(by: float) -> Counts:
            if by not in tried:
                self.tell(f"thresholds of the others, moved by {by:+.2f}")
                tried[by] = _sum([
                    self.counts(move(on, by), number, asked.happens)
                    for on, fold in zip(left, folds, strict=True) for number in fold
                ])  # fmt: skip
            return tried[by]

        def good(by: float) -> bool:
            return float(counts(by).false.sum()) <= asked.per_hour * counts(by).hours

        step, low, high = 0.5, -FARTHEST, FARTHEST
        by = 0.0
        if good(0.0) and not enough:
            return 0.0, counts(0.0)
        if good(0.0):
            while by > low and good(by - step):
                by, step = max(by - step, low), step * 2
            low, high = max(by - step, low), by
        else:
            while by < high and not good(by + step):
                by, step = min(by + step, high), step * 2
            low, high = by, min(by + step, high)
        while high - low > FINEST:
            middle = (low + high) / 2
            low, high = (low, middle) if good(middle) else (middle, high)
        met = [one for one in tried if good(one)] or [high]
        best = max(met, key=lambda one: (counts(one).recall or 0.0, -abs(one) if counts(one).recall else -one))
        return best, counts(best)

    def _common(self, curves: Curves) -> list[tuple[float, float | None]]:
        hours, truths = float(curves.hours.sum()), int(curves.truths.sum())
        false, matched = curves.false.sum(axis=(0, 1)), curves.matched.sum(axis=(0, 1))
        return [(float(f) / hours, float(m) / truths if truths else None) for f, m in zip(false, matched, strict=True)]


def _as_good(own: Counts, counted: Counts, per_hour: float) -> bool:
    """Whether the bundle's own thresholds meet the rate on labelled recordings, and keep as much as what was found."""
    if own.recall is None or own.false.sum() > per_hour * own.hours:
        return False
    return counted.false.sum() > per_hour * counted.hours or own.recall >= (counted.recall or 0.0)


def _sum(counts: Sequence[Counts]) -> Counts:
    total = counts[0]
    for one in counts[1:]:
        total = total + one
    return total
