"""Says what a pre-trained skeleton encoder is worth: python -m train.probe --help."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from realtime.command import run_command
from train.checkpoint import make_folder, write_json
from train.device import pick_device
from train.ensemble import add_up, default_weights
from train.figures import draw_figures
from train.outcome import scored
from train.probing import Answer, Answers, Config, Probe, check, recipe_of
from train.runs import Run, save_scores
from train.statistics import mean_std, wilson
from train.tuning import Recipe

EXAMPLES = """examples:
  python -m train.probe runs/c2vl --protocol linear
  python -m train.probe runs/c2vl --protocol semi --shares 0.01 0.1
  python -m train.probe runs/c2vl-joint runs/c2vl-bone runs/c2vl-motion --protocol linear     # and the three together
  python -m train.probe runs/c2vl --protocol transfer --prepared prepared/pku_mmd2
  python -m train.probe runs/c2vl --protocol linear --scratch                                 # what chance weights give
"""


def outcome(about: dict[str, Any], found: Sequence[Answer]) -> dict[str, Any]:
    """result.json: the test of the first draw, whose scores are kept, and the accuracies of all."""
    tests = [scored(one.scores.labels, one.scores.logits) for one in found]
    accuracies = [test["accuracy"] for test in tests]
    mean, deviation = mean_std(accuracies)
    result = {**about, "labels_known": found[0].known, "test": tests[0]}
    if len(found) > 1:
        result["draws"] = {"accuracies": accuracies, "mean": mean, "deviation": deviation}
    if found[0].best:
        result["best"] = found[0].best
    return result


def fused(runs: Sequence[Sequence[Run]], given: Sequence[float]) -> tuple[tuple[float, ...], list[Answer]]:
    """The weighted sums of several runs' logits, draw by draw; runs[r][d] is run r's draw d."""
    weights = tuple(given) or default_weights([draws[0] for draws in runs])
    return weights, [Answer(add_up(draw, weights), 0, {}) for draw in zip(*runs, strict=True)]


def write(folder: Path, result: dict[str, Any], found: Sequence[Answer]) -> None:
    """result.json, scores.npz and the figures of one probe."""
    make_folder(folder)
    save_scores(folder / "scores.npz", found[0].scores)
    draw_figures(folder)
    write_json(folder / "result.json", result)


def _row(table: Table, folder: Path, result: dict[str, Any]) -> None:
    test, draws = result["test"], result.get("draws")
    low, high = wilson(round(test["accuracy"] * test["clips"]), test["clips"])
    mean = draws["mean"] if draws else test["accuracy"]
    spread = (
        f"± {draws['deviation']:.2%} over {len(draws['accuracies'])} draws" if draws else f"{low:.1%} to {high:.1%}"
    )
    best = f"{result['best']['accuracy']:.2%}" if "best" in result else ""
    table.add_row(str(folder), result["stream"], str(result["labels_known"]), f"{mean:.2%}", spread, best)


def probe(config: Config, console: Console) -> list[Path]:
    """Scores every run, and of several their sum; returns the folders that were written."""
    check(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    device, recipe = pick_device(config.device), recipe_of(config)
    probes = [Probe(config, folder, device, console) for folder in config.runs]
    trainings = len(config.shares) * config.draws if config.protocol == "semi" else 1
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    table = Table("probe", "stream", "labels", "accuracy", "95 % or deviation", "best (by test)")
    every: list[Answers] = []
    written = []
    with Progress(*columns, console=console, transient=True, disable=console.quiet) as progress:
        total = len(probes) * trainings * recipe.epochs if recipe else len(probes)
        task = progress.add_task(config.protocol, total=total)
        for one in probes:
            every.append(one.answers(recipe, lambda epoch: progress.advance(task)))
            for name, found in every[-1].items():
                folder = one.run.run / "probe" / name
                result = outcome(one.about(recipe), found)
                write(folder, result, found)
                _row(table, folder, result)
                written.append(folder)
            progress.advance(task, 0 if recipe else 1)
    if len(probes) > 1:
        written += _together(config, probes, every, recipe, table)
    console.print(table)
    return written


def _together(
    config: Config, probes: Sequence[Probe], every: Sequence[Answers], recipe: Recipe | None, table: Table
) -> list[Path]:
    """The sums of all runs, one for each folder that each of them has."""
    written = []
    abouts = [one.about(recipe) for one in probes]
    for name in every[0]:
        runs = [
            [Run(one.run.run, about, answer.scores) for answer in found[name]]
            for one, about, found in zip(probes, abouts, every, strict=True)
        ]
        weights, sums = fused(runs, config.weights)
        sums = [replace(answer, known=first.known) for answer, first in zip(sums, every[0][name], strict=True)]
        together = {"stream": " & ".join(about["stream"] for about in abouts), "weights": list(weights),
                    "run": " ".join(about["run"] for about in abouts)}  # fmt: skip
        result = outcome({**abouts[0], **together}, sums)
        folder = (config.out or probes[0].run.run / "probe") / f"{name}-{len(probes)}-streams"
        write(folder, result, sums)
        _row(table, folder, result)
        written.append(folder)
    return written


def run(config: Config, console: Console) -> int:
    """Scores, writes and prints."""
    probe(config, console)
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "train.probe", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
