"""Pictures of a site's thresholds: the operating curve, the thresholds themselves, and what is confused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from calib.allot import levels
from calib.counts import Counts
from calib.fitting import Fit
from calib.rejecting import Fitted
from realtime.bundle import Bundle
from realtime.errors import UsageError

BLUE, ORANGE, GREY = "#1f5fa8", "#d1660a", "#777777"
LEAST_RATE = 0.1  # an hour; where a logarithmic axis ends


def draw(folder: Path, bundle: Bundle, fit: Fit, made: Fitted, own: Counts, per_hour: float) -> list[Path]:
    """Writes operating.png, thresholds.png and, where windows of actions are labelled, confusion.png; returns them.

    Raises UsageError where the folder cannot be written.
    """
    pictures = {"operating.png": operating(fit, own, per_hour), "thresholds.png": per_action(bundle, fit)}
    if made.confusion.any():
        pictures["confusion.png"] = confusion(made.confusion, bundle.classes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in pictures.items():
            partial = folder / f"{name}.partial"
            figure.savefig(partial, format="png", dpi=100)
            os.replace(partial, folder / name)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written ({error.strerror}); choose another --pictures") from error
    return [folder / name for name in pictures]


def operating(fit: Fit, own: Counts, per_hour: float) -> Figure:
    """False alarms an hour against recall, or against the threshold where nothing is labelled."""
    figure = _figure(6.4, 4.2)
    axes = figure.add_subplot()
    rates = [max(rate, LEAST_RATE) for rate, _ in fit.common]
    recall = fit.counted.recall
    kept = [0.0 if share is None else share for _, share in fit.common]
    heights = kept if recall is not None else [float(level) for level in levels()]
    axes.plot(rates, heights, "-o", ms=3, color=GREY, label="one threshold for all actions")
    own_at, here_at = (own.recall, recall) if recall is not None else (None, float(np.median(fit.on)))
    if own_at is not None:
        axes.plot(max(own.per_hour, LEAST_RATE), own_at, "s", color=ORANGE, label="the bundle's own thresholds")
    rate = fit.rate
    spread = [[rate.per_hour - rate.low], [rate.high - rate.per_hour]]
    axes.errorbar(
        max(rate.per_hour, LEAST_RATE), here_at, xerr=spread, fmt="D", color=BLUE, capsize=3,
        label="these thresholds (95 %)",
    )  # fmt: skip
    axes.axvline(per_hour, color=BLUE, ls=":", lw=1)
    axes.text(per_hour, 1.01, f"asked for: {per_hour:g}", transform=axes.get_xaxis_transform(), ha="center", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("false alarms an hour, all actions together")
    axes.set_ylabel("share of actions that are told" if recall is not None else "threshold (these: the median)")
    axes.set_ylim(0, 1.04)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    return figure


def per_action(bundle: Bundle, fit: Fit) -> Figure:
    """On and off of each action, those hardest to start first; beside them what the bundle came with."""
    order = np.argsort(fit.on, kind="stable")
    figure = _figure(6.4, 1.2 + 0.17 * len(order))
    axes = figure.add_subplot()
    rows = np.arange(len(order))
    axes.hlines(rows, fit.off[order], fit.on[order], color=BLUE, lw=3, alpha=0.4)
    axes.plot(fit.on[order], rows, "o", ms=4, color=BLUE, label="on")
    axes.plot(fit.off[order], rows, "|", ms=7, color=BLUE, label="off")
    axes.plot([bundle.actions[k].on for k in order], rows, "x", ms=4, color=ORANGE, label="the bundle's on")
    false = fit.counted.false[order]
    names = [
        f"{bundle.actions[k].id} ({n} false)" if n else bundle.actions[k].id for k, n in zip(order, false, strict=True)
    ]
    axes.set_yticks(rows, names, fontsize=7)
    axes.set_xlim(0, 1)
    axes.set_ylim(-1, len(order))
    axes.set_xlabel("smoothed probability")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")
    return figure


def confusion(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Windows of known class: rows true, columns answered, in per cent of the true class; only classes that occur."""
    there = np.flatnonzero(counts.sum(axis=1))
    told = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    share = counts[np.ix_(there, told)] / counts[there].sum(axis=1, keepdims=True)
    figure = _figure(2.5 + 0.3 * len(told), 2.2 + 0.3 * len(there))
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(told)), [classes[k] for k in told], rotation=90, fontsize=7)
    labels = [f"{classes[k]} ({n})" for k, n in zip(there, counts[there].sum(axis=1), strict=True)]
    axes.set_yticks(range(len(there)), labels, fontsize=7)
    axes.set_xlabel("answered")
    axes.set_ylabel("true (windows)")
    axes.set_title(f"per cent of each true class; {np.trace(counts)} of {counts.sum()} windows right", fontsize=9)
    for row, column in zip(*np.nonzero(share >= 0.005), strict=True):
        value = share[row, column]
        colour = "white" if value > 0.5 else "black"
        axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=6, color=colour)
    return figure


def _figure(width: float, height: float) -> Figure:
    """A figure in inches that never asks for a screen."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
