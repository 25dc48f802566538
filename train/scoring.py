"""Scores: events on continuous recordings, and classes of clips.

Events are matched to truths of the same action one-to-one and in order of time. Against an interval truth an event
counts when their temporal IoU reaches the threshold; against a point truth when the point lies in the event widened
by `POINT_WIDENING_NS` at both ends. Every other event is false, every other truth missed.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from realtime.schema import SECOND_NS
from train.data.clip import Truth

IOU = 0.3
IOUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)  # reported beside it
POINT_WIDENING_NS = 333_000_000
HOUR_S = 3600.0


@dataclass(frozen=True)
class Detection:
    """One event of the line. Times in ns on the recording's clock; decided_ns is when its start was decided."""

    label: str
    start_ns: int
    end_ns: int
    decided_ns: int


@dataclass(frozen=True)
class EventScore:
    """Counts over one recording or several: add scores with `+`.

    delays_s: of each matched event, from the true start (or the point) to the decision, negative when early.
    free_s: seconds that hold no truth. A rate of nothing out of nothing is 0.
    """

    truths: int = 0
    detections: int = 0
    matched: int = 0
    delays_s: tuple[float, ...] = ()
    free_s: float = 0.0

    def __add__(self, other: EventScore) -> EventScore:
        return EventScore(
            self.truths + other.truths,
            self.detections + other.detections,
            self.matched + other.matched,
            self.delays_s + other.delays_s,
            self.free_s + other.free_s,
        )

    @property
    def false(self) -> int:
        """Events that match no truth."""
        return self.detections - self.matched

    @property
    def precision(self) -> float:
        """Share of the events that match a truth."""
        return self.matched / self.detections if self.detections else 0.0

    @property
    def recall(self) -> float:
        """Share of the truths that an event matches."""
        return self.matched / self.truths if self.truths else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        both = self.detections + self.truths
        return 2 * self.matched / both if both else 0.0

    @property
    def delay_s(self) -> float | None:
        """Median onset delay in seconds; None where nothing was matched."""
        return statistics.median(self.delays_s) if self.delays_s else None

    @property
    def false_per_hour(self) -> float | None:
        """All false events over the time that holds no truth; None where there is no such time."""
        return self.false * HOUR_S / self.free_s if self.free_s > 0 else None


def score_events(
    truths: Sequence[Truth],
    detections: Sequence[Detection],
    duration_ns: int,
    *,
    point_truth: bool,
    vocabulary: Collection[str],
    threshold: float = IOU,
) -> EventScore:
    """Scores one recording's events, on labels that truths and events already share.

    duration_ns: how long the recording is; its clock starts at 0. vocabulary: what the model can say. A truth
    outside it is dropped, so its time counts as time without truth; an event outside it is false. Points take no
    time: with point truths the whole recording is time without truth. Raises ValueError for a threshold
    that is not in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], got {threshold}")
    known = [truth for truth in truths if truth.label in vocabulary]
    pairs = [
        pair
        for label in sorted({truth.label for truth in known})
        for pair in match(
            [truth for truth in known if truth.label == label],
            [detection for detection in detections if detection.label == label],
            point_truth=point_truth,
            threshold=threshold,
        )
    ]
    delays = tuple((detection.decided_ns - truth.start_ns) / SECOND_NS for truth, detection in pairs)
    free_s = _free_ns(known, duration_ns) / SECOND_NS
    return EventScore(len(known), len(detections), len(pairs), delays, free_s)


def match(
    truths: Sequence[Truth], detections: Sequence[Detection], *, point_truth: bool, threshold: float = IOU
) -> list[tuple[Truth, Detection]]:
    """The pairs of one action, one-to-one and in order of time.

    The most pairs that never cross in time; of as many, those that overlap most (intervals) or come first (points).
    Taking the best partner for one truth after another would lose pairs: one event may reach two truths.
    """
    first = sorted(truths, key=lambda truth: (truth.start_ns, truth.end_ns))
    second = sorted(detections, key=lambda detection: (detection.start_ns, detection.end_ns))
    worth = [[_worth(truth, detection, point_truth, threshold) for detection in second] for truth in first]
    # best[i][j]: (pairs, overlap) among the truths from i and the events from j on
    best = [[(0, 0.0)] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i in reversed(range(len(first))):
        for j in reversed(range(len(second))):
            best[i][j] = max(best[i + 1][j], best[i][j + 1], _paired(worth[i][j], best[i + 1][j + 1]))
    pairs, i, j = [], 0, 0
    while i < len(first) and j < len(second):
        if worth[i][j] is not None and best[i][j] == _paired(worth[i][j], best[i + 1][j + 1]):
            pairs.append((first[i], second[j]))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i][j + 1]:
            j += 1
        else:
            i += 1
    return pairs


def _worth(truth: Truth, detection: Detection, point_truth: bool, threshold: float) -> float | None:
    """How well an event fits a truth, None where it does not count."""
    if point_truth:
        inside = detection.start_ns - POINT_WIDENING_NS <= truth.start_ns <= detection.end_ns + POINT_WIDENING_NS
        return 0.0 if inside else None
    overlap = iou(truth, detection)
    return overlap if overlap >= threshold else None


def _paired(worth: float | None, rest: tuple[int, float]) -> tuple[int, float]:
    return (rest[0] + 1, rest[1] + worth) if worth is not None else (0, 0.0)


def iou(truth: Truth, detection: Detection) -> float:
    """Temporal intersection over union, 0 where both are points."""
    both = min(truth.end_ns, detection.end_ns) - max(truth.start_ns, detection.start_ns)
    either = max(truth.end_ns, detection.end_ns) - min(truth.start_ns, detection.start_ns)
    return max(both, 0) / either if either > 0 else 0.0


def _free_ns(truths: Sequence[Truth], duration_ns: int) -> int:
    """Time in [0, duration_ns] that no truth covers; truths may overlap and reach beyond it."""
    free, covered_to = 0, 0
    for truth in sorted(truths, key=lambda truth: truth.start_ns):
        free += max(min(truth.start_ns, duration_ns) - covered_to, 0)
        covered_to = max(covered_to, min(truth.end_ns, duration_ns))
    return free + max(duration_ns - covered_to, 0)


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(K, K) int64 counts, row the true class, column the predicted one, from two arrays (N,) of class numbers.

    Raises ValueError where lengths differ or a number is not in [0, K).
    """
    truth, predicted = np.asarray(truth, np.int64), np.asarray(predicted, np.int64)
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ValueError(f"true and predicted classes must be (N,) and as many, got {truth.shape}, {predicted.shape}")
    for numbers in (truth, predicted):
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < classes):
            raise ValueError(f"classes must be in [0, {classes}), got {numbers.min()} to {numbers.max()}")
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def accuracy(counts: np.ndarray) -> float:
    """Share of right clips, from a confusion (K, K); 0 where there is none."""
    return float(np.trace(counts) / counts.sum()) if counts.any() else 0.0


def class_accuracy(counts: np.ndarray) -> np.ndarray:
    """(K,) share of right clips of each true class, NaN for a class without clips, from a confusion (K, K)."""
    total = counts.sum(axis=1)
    return np.where(total > 0, np.diag(counts) / np.maximum(total, 1), np.nan)


def mean_class_accuracy(counts: np.ndarray) -> float:
    """Mean of `class_accuracy` over the classes that have clips; 0 where none has."""
    each = class_accuracy(counts)
    return float(each[~np.isnan(each)].mean()) if counts.any() else 0.0
