"""Finished run folders as the programs that look at them read them: result.json and scores.npz."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from realtime.errors import BundleError, UsageError
from train.scoring import accuracy, confusion


@dataclass(frozen=True)
class Scores:
    """What a model says of the test clips, in their order.

    logits (N, K) float32; labels (N,) int64 in [0, K); names (N,) str; classes (K,) str; feature (N, F) float32 and
    text (K, D) float32 where the run has them. Clip and text share a space only where F equals D.
    """

    logits: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    classes: np.ndarray
    feature: np.ndarray | None = None
    text: np.ndarray | None = None

    @property
    def right(self) -> np.ndarray:
        """(N,) bool: clips whose highest logit is their class's."""
        return self.logits.argmax(axis=1) == self.labels

    @property
    def confusion(self) -> np.ndarray:
        """(K, K) counts, row the true class."""
        return confusion(self.labels, self.logits.argmax(axis=1), len(self.classes))


@dataclass(frozen=True)
class Run:
    """One finished run: its folder, result.json and scores."""

    folder: Path
    result: dict[str, Any]
    scores: Scores


def _resume(folder: Path) -> str:
    return f"finish the run with: python -m train.fit --out {folder} --resume"


def save_scores(path: Path, scores: Scores) -> None:
    """Writes scores.npz so that a reader sees the old file or the new one. UsageError where it cannot."""
    partial = path.with_name(path.name + ".partial")
    arrays = {field.name: getattr(scores, field.name) for field in fields(scores)}
    try:
        with partial.open("wb") as file:
            np.savez(file, **{name: array for name, array in arrays.items() if array is not None})
        os.replace(partial, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); name a file in a folder that exists") from error


def load_scores(path: Path) -> Scores:
    """The scores in a scores.npz; BundleError where there is none, or it is broken or does not fit together."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {field.name: file[field.name] for field in fields(Scores) if field.name in file.files}
        scores = Scores(**arrays)
    except FileNotFoundError:
        raise BundleError(f"{path.parent} holds no scores yet; {_resume(path.parent)}") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path} is not a whole scores.npz ({error}); {_resume(path.parent)}") from error
    if fault := _fault(scores):
        raise BundleError(f"{path}: {fault}; {_resume(path.parent)}")
    return scores


def _fault(scores: Scores) -> str:
    """What does not fit together, or nothing."""
    clips, classes = len(scores.names), len(scores.classes)
    if not clips or scores.logits.shape != (clips, classes) or scores.labels.shape != (clips,):
        return (
            f"logits {scores.logits.shape} and labels {scores.labels.shape} are not of {clips} clips, {classes} classes"
        )
    if not np.isfinite(scores.logits).all():
        return "logits must be finite"
    if scores.labels.min() < 0 or scores.labels.max() >= classes:
        return f"labels must be in [0, {classes}), got {scores.labels.min()} to {scores.labels.max()}"
    for name, array, rows in (("feature", scores.feature, clips), ("text", scores.text, classes)):
        if array is not None and (array.ndim != 2 or len(array) != rows or not np.isfinite(array).all()):
            return f"{name} must be finite and ({rows}, width), got {array.shape}"
    return ""


def load_run(folder: Path) -> Run:
    """A finished run; BundleError where it is missing or unfinished, or its two files speak of different models."""
    path = folder / "result.json"
    if not folder.is_dir():
        raise BundleError(f"no run at {folder}; train one with: python -m train.fit --out {folder}")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if "test" not in result and "held_out" in result:
            raise BundleError(f"{folder} was trained on live windows and has no test clips; train one with --prepared")
        stated, _, _ = float(result["test"]["accuracy"]), result["method"], result["seed"]
    except FileNotFoundError:
        raise BundleError(f"{folder} holds no result yet; {_resume(folder)}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path} is not a whole result ({error!r}); {_resume(folder)}") from error
    scores = load_scores(folder / "scores.npz")
    found = accuracy(scores.confusion)
    if abs(found - stated) * len(scores.names) > 0.5:
        raise BundleError(f"{folder}: scores.npz gives {found:.4f}, result.json {stated:.4f}; {_resume(folder)}")
    return Run(folder, result, scores)


def same_clips(runs: Sequence[Run]) -> list[Run]:
    """The runs with their clips in the first one's order, matched by name.

    UsageError where a run has other classes, other clips, or another label for one of them.
    """
    first = runs[0]
    return [first, *(replace(run, scores=_in_order(run, first)) for run in runs[1:])]


def _in_order(run: Run, first: Run) -> Scores:
    scores, wanted = run.scores, first.scores
    both = f"{run.folder} and {first.folder}"
    if scores.classes.tolist() != wanted.classes.tolist():
        raise UsageError(f"{both} have other classes; name runs of one data set")
    if not np.array_equal(scores.names, wanted.names):
        place = {name: index for index, name in enumerate(scores.names.tolist())}
        odd = sorted(set(place) ^ set(wanted.names.tolist()))
        if odd:
            raise UsageError(f"{both} have other test clips ({len(odd)} in one only, such as {odd[0]}); "
                             "name runs of one data set and split")  # fmt: skip
        if not len(place) == len(scores.names) == len(wanted.names):
            raise UsageError(
                f"{both}: clip names must differ where the clips' order does; score them again in one order"
            )
        order = np.array([place[name] for name in wanted.names.tolist()])
        feature = None if scores.feature is None else scores.feature[order]
        scores = replace(
            scores, logits=scores.logits[order], labels=scores.labels[order], names=wanted.names, feature=feature
        )
    differ = np.flatnonzero(scores.labels != wanted.labels)
    if len(differ):
        raise UsageError(f"{both} label {wanted.names[differ[0]]} otherwise; prepare the data once for both")
    return scores
