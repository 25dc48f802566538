"""Groups of finished runs that differ in their seed only, and a group against its baseline on the same clips."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from realtime.errors import BundleError, UsageError
from train.runs import Run
from train.scoring import accuracy, class_accuracy
from train.statistics import discordant

# Runs that agree in all of these differ in their seed only.
KEY = ("method", "label", "backbone", "encoder", "data", "protocol", "split", "stream", "epochs")
# Settings that may differ between the seeds of one group: they change where and how fast a run goes, not what it is.
INDIFFERENT = {"seed", "out", "resume", "device", "threads", "prepared", "text_weights", "compile"}
CLASSES_SHOWN = 3


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed only, in order of seed."""

    key: dict[str, str]
    runs: tuple[Run, ...]

    @property
    def by_seed(self) -> dict[Any, Run]:
        """Its runs by seed."""
        return {run.result["seed"]: run for run in self.runs}

    @property
    def accuracies(self) -> list[float]:
        """Of each run."""
        return [accuracy(run.scores.confusion) for run in self.runs]


@dataclass(frozen=True)
class Contrast:
    """A group against its baseline, over the seeds that both have.

    differences: accuracy minus the baseline's, a seed. counts: clips that (only the baseline, only the group) answers
    rightly, a seed. classes: recall minus the baseline's (K,), mean over seeds, NaN without clips.
    """

    baseline: Group
    seeds: tuple[Any, ...]
    differences: tuple[float, ...]
    counts: tuple[tuple[int, int], ...]
    classes: np.ndarray

    @property
    def added(self) -> tuple[int, int]:
        """The counts over all seeds."""
        return sum(lost for lost, _ in self.counts), sum(won for _, won in self.counts)


def group(runs: Sequence[Run]) -> list[Group]:
    """Runs that differ in seed only together, groups in the order of their first run.

    UsageError where two of a group have the same seed.
    """
    found: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        key = tuple(str(run.result.get(name) or "") for name in KEY)
        twins = [other.folder for other in found.get(key, []) if other.result["seed"] == run.result["seed"]]
        if twins:
            raise UsageError(f"{twins[0]} and {run.folder} are the same by {', '.join(KEY)} and seed; name one of "
                             "them, or tell them apart with train.fit --label")  # fmt: skip
        found.setdefault(key, []).append(run)
    return [
        Group(dict(zip(KEY, key, strict=True)), tuple(sorted(members, key=_seed_order)))
        for key, members in found.items()
    ]


def _seed_order(run: Run) -> tuple[int, str]:
    seed = str(run.result["seed"])  # of an ensemble over seeds: all of them as one text
    return len(seed), seed


def settings_apart(found: Group) -> list[str]:
    """Settings in config.json that differ within a group though they should not."""
    configs = []
    for run in found.runs:
        path = run.folder / "config.json"
        if not path.exists():  # an ensemble
            continue
        try:
            configs.append(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise BundleError(f"{path} is not JSON ({error}); train again into another --out") from error
    names = {name for config in configs for name in config} - INDIFFERENT
    return sorted(name for name in names if any(config.get(name) != configs[0].get(name) for config in configs))


def baselines(groups: Sequence[Group], wanted: str) -> list[Group]:
    """The groups that are baselines: of that method without a label, else of that label, else of that method.

    Where none is wanted, the first group. UsageError where none is of that name.
    """
    if not wanted:
        return [groups[0]]
    plain = [g for g in groups if g.key["method"] == wanted and not g.key["label"]]
    found = plain or [g for g in groups if g.key["label"] == wanted] or [g for g in groups if g.key["method"] == wanted]
    if not found:
        known = ", ".join(dict.fromkeys(g.key["method"] for g in groups))
        raise UsageError(f"no run has the method or label {wanted!r}; --baseline takes one of: {known}")
    return found


def contrast(found: Group, candidates: Sequence[Group]) -> Contrast | None:
    """The group against the baseline that shares most of its key; None for a baseline, and where no seed is shared."""
    if any(found is candidate for candidate in candidates):
        return None
    baseline = max(candidates, key=lambda other: sum(other.key[name] == found.key[name] for name in KEY))
    seeds = tuple(seed for seed in found.by_seed if seed in baseline.by_seed)
    if not seeds:
        return None
    pairs = [(baseline.by_seed[seed].scores, found.by_seed[seed].scores) for seed in seeds]
    return Contrast(
        baseline,
        seeds,
        tuple(accuracy(second.confusion) - accuracy(first.confusion) for first, second in pairs),
        tuple(discordant(first.right, second.right) for first, second in pairs),
        np.mean(
            [class_accuracy(second.confusion) - class_accuracy(first.confusion) for first, second in pairs], axis=0
        ),
    )


def moved(against: Contrast, classes: Sequence[str]) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """The classes that gained most and those that lost most, as (name, difference in recall), at most 3 each."""
    change = [
        (str(name), float(value)) for name, value in zip(classes, against.classes, strict=True) if not np.isnan(value)
    ]
    gained = sorted((pair for pair in change if pair[1] > 0), key=lambda pair: -pair[1])
    lost = sorted((pair for pair in change if pair[1] < 0), key=lambda pair: pair[1])
    return gained[:CLASSES_SHOWN], lost[:CLASSES_SHOWN]
