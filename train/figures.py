"""Draws a finished run: confusion.png, tsne.png, per_class.json: python -m train.figures --help."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich.console import Console
from sklearn.manifold import TSNE  # type: ignore[import-untyped]

from realtime.command import run_command
from realtime.errors import UsageError
from train.checkpoint import write_json
from train.runs import Scores, load_scores
from train.statistics import per_class, row_shares

EXAMPLES = """examples:
  python -m train.figures runs/first
  python -m train.figures runs/first --classes "sit down" "stand up" throw
"""
CLASSES_DRAWN = 15  # more colours than this cannot be told apart
CLIPS_DRAWN = 200  # dots of a class
PERPLEXITY = 30.0
FEW_POINTS = 5  # t-SNE of fewer has no neighbourhoods to keep
CELL_INCHES = 0.36


@dataclass(frozen=True)
class Config:
    """Draw a finished run: confusion.png, tsne.png and per_class.json in its folder, from its scores.npz.

    tsne.png shows the test clips' features as dots and, where clips and class texts share a space, the texts as
    diamonds of the same colour.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    classes: tuple[str, ...] = ()
    """Classes of tsne.png, at most 15; where not given, all, or of more than 15 those most mistaken for one another."""


def draw_figures(folder: Path, classes: Sequence[str] = ()) -> None:
    """Reads a run's scores.npz and writes confusion.png, tsne.png and per_class.json beside it, each atomically.

    classes: those of tsne.png, see `Config`. tsne.png is left out where the scores hold no features. Raises
    BundleError where scores.npz is missing or broken, UsageError for a class that the run has not.
    """
    scores = load_scores(folder / "scores.npz")
    names, counts = [str(name) for name in scores.classes], scores.confusion
    chosen = _named(classes, names, counts) if classes else most_confused(counts, CLASSES_DRAWN)
    figures = per_class(counts)
    write_json(
        folder / "per_class.json",
        {
            name: {
                "clips": int(figures.clips[k]),
                "precision": _number(figures.precision[k]),
                "recall": _number(figures.recall[k]),
                "f1": _number(figures.f1[k]),
            }
            for k, name in enumerate(names)
        },
    )
    _write_png(folder / "confusion.png", _confusion_figure(counts, names))
    if scores.feature is not None:
        _write_png(folder / "tsne.png", _tsne_figure(scores, chosen))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _named(wanted: Sequence[str], names: list[str], counts: np.ndarray) -> list[int]:
    """Numbers of classes by name; UsageError for one without test clips."""
    known = [name for name, clips in zip(names, counts.sum(axis=1), strict=True) if clips]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise UsageError(f"no test clip is of class {unknown[0]!r}; --classes takes some of: {', '.join(known)}")
    if len(wanted) > CLASSES_DRAWN:
        raise UsageError(f"--classes takes at most {CLASSES_DRAWN}, got {len(wanted)}")
    return [names.index(name) for name in dict.fromkeys(wanted)]


def most_confused(counts: np.ndarray, at_most: int) -> list[int]:
    """Up to `at_most` classes with clips, in order of number, from a confusion (K, K).

    All where they are no more. Else pair after pair, the pair that is most often mistaken for one another first
    (the two directions' shares of their true class, added), until there are enough; places left where nothing is
    mistaken go to the first classes.
    """
    present = np.flatnonzero(counts.sum(axis=1))
    if len(present) <= at_most:
        return [int(k) for k in present]
    shares = row_shares(counts)[np.ix_(present, present)]
    first, second = np.triu_indices(len(present), 1)
    mistaken = (shares + shares.T)[first, second]
    order = np.argsort(-mistaken, kind="stable")
    ranked = [k for pair in order[mistaken[order] > 0] for k in (first[pair], second[pair])]
    chosen = list(dict.fromkeys([*ranked, *range(len(present))]))[:at_most]
    return sorted(int(present[k]) for k in chosen)


def _write_png(path: Path, figure: Figure) -> None:
    """Writes so that a reader sees the old picture or the new one."""
    partial = path.with_name(path.name + ".partial")
    try:
        figure.savefig(partial, format="png", dpi=110)
        os.replace(partial, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); make the run folder writable") from error


def _figure(width: float, height: float) -> Figure:
    """A figure in inches that never asks for a screen."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _confusion_figure(counts: np.ndarray, names: list[str]) -> Figure:
    """Rows true, columns answered, in per cent of the true class's clips; cells of nothing stay empty."""
    shares, classes = row_shares(counts), len(names)
    side = max(4.0, CELL_INCHES * classes + 2.5)
    figure = _figure(side, side)
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(classes), names, rotation=90, fontsize=8)
    labels = [f"{name} ({count})" for name, count in zip(names, counts.sum(axis=1), strict=True)]
    axes.set_yticks(range(classes), labels, fontsize=8)
    axes.set_xlabel("answered")
    axes.set_ylabel("true (clips)")
    axes.set_title(f"per cent of each true class; {np.trace(counts)} of {counts.sum()} clips right", fontsize=9)
    for row, column in zip(*np.nonzero(counts), strict=True):
        share = shares[row, column]
        colour = "white" if share > 0.5 else "black"
        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour)
    return figure


def _drawn(labels: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """Numbers of the clips to draw: of each class at most CLIPS_DRAWN, spread evenly over its clips."""
    picked = []
    for k in chosen:
        clips = np.flatnonzero(labels == k)
        picked.append(clips[np.linspace(0, len(clips) - 1, min(len(clips), CLIPS_DRAWN)).astype(int)])
    return np.concatenate(picked)


def plane(points: np.ndarray) -> np.ndarray:
    """t-SNE (n, 2) of points (n, F) by cosine distance (van der Maaten and Hinton 2008); the same for the same points.

    It starts from the two principal axes, and for fewer than FEW_POINTS points stays there.
    """
    points = points.astype(np.float64)
    points = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    left, size, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    start = np.zeros((len(points), 2))
    start[:, : len(size[:2])] = (left * size)[:, :2]
    if len(points) < FEW_POINTS:
        return start
    # Small, as t-SNE needs; equal points start where chance puts them, or they could never part.
    start = 1e-4 * start / max(start[:, 0].std(), 1e-12)
    if not start.any():
        start = np.random.default_rng(0).normal(scale=1e-4, size=start.shape)
    tsne = TSNE(perplexity=min(PERPLEXITY, (len(points) - 1) / 3), init=start.astype(np.float32), random_state=0)
    return tsne.fit_transform(points.astype(np.float32))


def _tsne_figure(scores: Scores, chosen: Sequence[int]) -> Figure:
    """Clips as dots and, where they share the clips' space, class texts as diamonds."""
    assert scores.feature is not None
    clips = _drawn(scores.labels, chosen)
    points = scores.feature[clips]
    with_text = scores.text is not None and scores.text.shape[1] == points.shape[1]
    if scores.text is not None and with_text:
        points = np.concatenate([points, scores.text[list(chosen)]])
    places = plane(points)
    figure = _figure(8.5, 6)
    axes = figure.add_subplot()
    colours = [colormaps["tab20"](number) for number in (*range(0, 20, 2), *range(1, 20, 2))]
    for colour, k in zip(colours, chosen, strict=False):
        dots = places[: len(clips)][scores.labels[clips] == k]
        axes.scatter(dots[:, 0], dots[:, 1], s=12, color=colour, linewidths=0, alpha=0.8, label=str(scores.classes[k]))
    for colour, place in zip(colours, places[len(clips) :], strict=False):
        axes.scatter(place[0], place[1], s=60, color=colour, marker="D", edgecolors="black", linewidths=1.0, zorder=3)
    handles, _ = axes.get_legend_handles_labels()
    if with_text:
        handles.append(Line2D([], [], ls="", marker="D", color="grey", markeredgecolor="black", label="class text"))
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"t-SNE of {len(clips)} test clips, cosine distance", fontsize=9)
    return figure


def run(config: Config, console: Console) -> int:
    """Draws and says where."""
    draw_figures(config.run, config.classes)
    console.print(f"drew {config.run}", soft_wrap=True, markup=False)
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "train.figures", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
