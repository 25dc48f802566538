"""Figures of a run beyond `train.scoring`: per class, of two runs on the same clips, and over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from train.scoring import class_accuracy


@dataclass(frozen=True)
class PerClass:
    """Figures of each class, arrays (K,); NaN where a figure is a share of nothing.

    clips: how many are truly of the class. precision: share of the clips so answered that are right (NaN: never
    answered). recall: share of the class's clips that are right (NaN: no clips). f1: their harmonic mean, 0 where a
    class has clips or answers but none right (NaN: neither).
    """

    clips: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def per_class(counts: np.ndarray) -> PerClass:
    """Precision, recall and F1 of each class from a confusion (K, K), row the true class."""
    right, clips, answers = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    return PerClass(clips, class_accuracy(counts.T), class_accuracy(counts), _share(2 * right, clips + answers))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def row_shares(counts: np.ndarray) -> np.ndarray:
    """(K, K) float64: each row of a confusion as shares of its true class; a class without clips is a row of zeros."""
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def discordant(first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
    """How many clips only the first and only the second answers rightly, from two bool arrays (N,) of the same clips.

    Raises ValueError where their lengths differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"both must be of the same clips, got {first.shape} and {second.shape}")
    return int((first & ~second).sum()), int((~first & second).sum())


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p of McNemar's exact test that two models are equally good, from `discordant`'s counts.

    Under that hypothesis each clip that only one of them answers rightly is either's with probability 1/2
    (McNemar 1947; exact binomial form). 1 where they never differ. Raises ValueError for a negative count.
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f"counts must be at least 0, got {only_first} and {only_second}")
    differ = only_first + only_second
    return float(binomtest(only_first, differ, 0.5).pvalue) if differ else 1.0


def wilson(right: int, clips: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927), within [0, 1]; the whole of it where there is no clip.

    Raises ValueError for right not in [0, clips] or a confidence not in (0, 1).
    """
    if not 0 <= right <= clips:
        raise ValueError(f"right clips must be in [0, {clips}], got {right}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    if not clips:
        return 0.0, 1.0
    interval = binomtest(right, clips).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1); None for the deviation of a single value. ValueError for none."""
    if not values:
        raise ValueError("a mean needs at least one value, got none")
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
