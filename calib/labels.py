"""What each window of a labelled recording shows, as training says it; and the temperature that fits it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar

from calib.scored import Played
from realtime.bundle import Bundle
from realtime.schema import SECOND_NS
from train.pool import IDLE_AFTER_S, IDLE_BEFORE_S, MOST_OF, POINT_AFTER_S, POINT_BEFORE_S

UNKNOWN = -1
FEWEST = 100  # labelled windows that a temperature is fitted to
COLDEST, HOTTEST = 0.1, 10.0


def labels_of(bundle: Bundle, played: Played) -> np.ndarray:
    """The class (N,) that each window of a recording should be given, `UNKNOWN` where that cannot be said.

    A window shows an action when it ends within it and at least half of it (or of the window) was seen, which is where
    training gives the full label. It shows nothing where a set that marks every gesture has none near.
    """
    scores = [one for step in played.steps for one in step.scores]
    ends = np.array([one.captured_ns for one in scores], np.int64) / SECOND_NS
    labels = np.full(len(scores), UNKNOWN, np.int64)
    if played.truths is None:
        return labels
    length, busy = bundle.window / bundle.fps, np.zeros(len(scores), bool)
    wide = (POINT_BEFORE_S, POINT_AFTER_S) if played.point_truth else (0.0, 0.0)
    for truth in played.truths:
        start, end = truth.start_ns / SECOND_NS, truth.end_ns / SECOND_NS
        busy |= (ends > start - IDLE_BEFORE_S) & (ends < end + IDLE_AFTER_S)
        start, end = start - wide[0], end + wide[1]
        seen = ends - np.maximum(ends - length, start)
        if truth.label in bundle.classes and end > start:
            within = (ends >= start) & (ends <= end) & (seen >= MOST_OF * min(end - start, length))
            labels[within] = bundle.classes.index(truth.label)
    if played.point_truth:
        labels[~busy & (ends > length)] = bundle.classes.index(bundle.nothing)
    return labels


def loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Mean negative log-likelihood of the classes (N,) by logits (N, K) at a temperature."""
    scaled = np.asarray(logits, np.float64) / temperature
    top = scaled.max(axis=1)
    normal = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
    return float((normal - scaled[np.arange(len(labels)), labels]).mean())


def best_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature in [COLDEST, HOTTEST] of the least loss (Guo et al. 2017).

    Raises ValueError where there is no window.
    """
    if not len(labels):
        raise ValueError("a temperature needs labelled windows, got none")
    ends = (np.log(COLDEST), np.log(HOTTEST))
    found = minimize_scalar(lambda log: loss(logits, labels, float(np.exp(log))), bounds=ends, method="bounded")
    return float(np.exp(found.x))


def confusion_of(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """(K, K) windows, row the true class, column the answered one, of those whose class is known."""
    known = labels != UNKNOWN
    pairs = labels[known] * len(classes) + logits[known].argmax(axis=1)
    return np.bincount(pairs, minlength=len(classes) ** 2).reshape(len(classes), len(classes))
