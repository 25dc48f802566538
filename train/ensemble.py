"""Adds up the logits of runs on different streams: python -m train.ensemble --help."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from realtime.command import run_command
from realtime.errors import UsageError
from train.checkpoint import check_writable, make_folder, write_json
from train.runs import Run, Scores, load_run, same_clips, save_scores
from train.scoring import accuracy, mean_class_accuracy
from train.statistics import wilson

EXAMPLES = """examples:
  python -m train.ensemble runs/joint runs/bone runs/joint_motion runs/bone_motion
  python -m train.ensemble runs/joint runs/bone --weights 0.6 0.4 --out runs/joint_and_bone
"""
# CTR-GCN's (and AimCLR's for three streams), fixed before any test: joint and bone 0.6, their motions 0.4.
WEIGHTS = {"joint": 0.6, "bone": 0.6, "motion": 0.4, "joint_motion": 0.4, "bone_motion": 0.4}
SHARED = ("method", "backbone", "encoder", "data", "protocol", "split", "seed", "epochs")


@dataclass(frozen=True)
class Config:
    """Score the weighted sum of the logits of runs on the same test clips, as papers do with streams.

    Weights are given or the published ones of the streams. They are never searched: the only clips at hand are the
    test's, and weights fitted to them would say nothing of others.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Finished run folders, two or more."""
    weights: tuple[float, ...] = ()
    """One a run; where not given, by stream: joint and bone 0.6, their motions 0.4."""
    out: Path | None = None
    """Write the sums here: FILE.npz, or a folder that train.compare reads like a run's."""


def default_weights(runs: Sequence[Run]) -> tuple[float, ...]:
    """The published weight of each run's stream. UsageError for a stream that has none."""
    unknown = [run for run in runs if run.result.get("stream") not in WEIGHTS]
    if unknown:
        stream = unknown[0].result.get("stream")
        raise UsageError(f"{unknown[0].folder} has stream {stream!r}, which has no published weight; add --weights, "
                         f"one for each of the {len(runs)} runs")  # fmt: skip
    return tuple(WEIGHTS[run.result["stream"]] for run in runs)


def add_up(runs: Sequence[Run], weights: Sequence[float]) -> Scores:
    """Scores with logits sum_r w_r logits_r, clips in the first run's order, without features.

    UsageError where the runs' classes or clips differ (see `same_clips`), or the weights are not one a run, finite,
    from 0 on and somewhere above it.
    """
    if len(weights) != len(runs):
        raise UsageError(f"--weights must be one for each of the {len(runs)} runs, got {len(weights)}")
    if not (np.isfinite(weights).all() and min(weights) >= 0 and max(weights) > 0):
        raise UsageError(f"--weights must be numbers from 0 on, not all 0, got {' '.join(map(str, weights))}")
    aligned = same_clips(runs)
    logits = sum(weight * run.scores.logits.astype(np.float64) for weight, run in zip(weights, aligned, strict=True))
    return replace(aligned[0].scores, logits=np.asarray(logits, np.float32), feature=None, text=None)


def result_of(runs: Sequence[Run], weights: Sequence[float], scores: Scores) -> dict[str, Any]:
    """The ensemble's result.json: what its runs share, their streams joined by " & ", and its test."""
    shared = {name: _shared([run.result.get(name) for run in runs]) for name in SHARED}
    counts = scores.confusion
    return {
        **shared,
        "stream": " & ".join(str(run.result.get("stream")) for run in runs),
        "label": f"ensemble {' '.join(f'{weight:g}' for weight in weights)}",
        "runs": [str(run.folder) for run in runs],
        "weights": list(weights),
        "test": {
            "clips": len(scores.names),
            "accuracy": accuracy(counts),
            "mean_class_accuracy": mean_class_accuracy(counts),
        },
    }


def _shared(values: list[Any]) -> Any:
    """The value that all have, or all of them that say something as one text."""
    different = list(dict.fromkeys(values))
    return (
        values[0] if len(different) == 1 else " & ".join(str(value) for value in different if value not in (None, ""))
    )


def _table(runs: Sequence[Run], weights: Sequence[float], scores: Scores) -> Table:
    """Each run and the ensemble, for people."""
    table = Table("run", "stream", "weight", "accuracy", "95 %", "mean of classes", title=f"{len(scores.names)} clips")
    for run, weight in zip(runs, weights, strict=True):
        table.add_row(str(run.folder), str(run.result.get("stream")), f"{weight:g}", *_figures(run.scores))
    table.add_section()
    table.add_row("ensemble", "", "", *_figures(scores))
    return table


def _figures(scores: Scores) -> tuple[str, str, str]:
    counts = scores.confusion
    low, high = wilson(int(np.trace(counts)), int(counts.sum()))
    return f"{accuracy(counts):.2%}", f"{low:.1%} to {high:.1%}", f"{mean_class_accuracy(counts):.2%}"


def _write(path: Path, runs: Sequence[Run], weights: Sequence[float], scores: Scores) -> None:
    """The scores alone, or a folder that reads like a run's."""
    if path.suffix == ".npz":
        save_scores(path, scores)
        return
    save_scores(path / "scores.npz", scores)
    write_json(path / "result.json", result_of(runs, weights, scores))


def run(config: Config, console: Console) -> int:
    """Reads, adds up, writes and prints."""
    if len(config.runs) < 2:
        raise UsageError(f"an ensemble takes two runs or more, got {len(config.runs)}; name their folders")
    runs = [load_run(folder) for folder in config.runs]
    weights = config.weights or default_weights(runs)
    scores = add_up(runs, weights)
    if config.out is not None:
        _prepare(config.out)
        _write(config.out, runs, weights, scores)
    console.print(_table(runs, weights, scores))
    return 0


def _prepare(path: Path) -> None:
    """UsageError where --out cannot be written, or is the folder of a run that was trained."""
    if path.suffix == ".npz":
        check_writable(path)
    elif (path / "config.json").exists():
        raise UsageError(f"{path} is a trained run's folder; choose another --out")
    else:
        make_folder(path)


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "train.ensemble", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
