"""Which measure tells actions that no model was taught: python -m scripts.bench_rejection --help."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from calib.rejecting import auroc, passed
from realtime.command import run_command
from realtime.features import features
from realtime.rejection import KINDS, measure
from realtime.scoring import softmax
from train import loop
from train.batches import LiveBatches
from train.compose import load_network
from train.distributed import Ranks
from train.evaluate import clip_windows, labelled_clips
from train.settings import Config as FitConfig
from train.settings import check
from train.statistics import mean_std
from train.trainer import Trainer
from train.vocabulary import ACTIONS, MEANING, NOTHING, action_of

EXAMPLES = """examples:
  python -m scripts.bench_rejection --data utd_mhad:DIR msrc12:DIR --held-out utd_mhad:7,8 msrc12:9,10 --out rejection
  python -m scripts.bench_rejection --data utd_mhad:DIR msrc12:DIR --held-out utd_mhad:7,8 msrc12:9,10 --out rejection
                                        # again: the draws that are there are not trained anew
"""
PROTOTYPE_WINDOWS = 4096  # training windows whose mean embedding stands for a class
SURE = 0.9  # a training window with so much of its label is of the class


@dataclass(frozen=True)
class Config:
    """Train small models with some actions left out, and see which measure tells these from the others.

    The actions are dealt into draws, so that each is left out exactly once. A draw's model is trained without them; on
    people whom it never saw, each clip is scored at the window where the line would have started an event. Known are
    the clips of actions it was taught, unknown those of the actions left out.
    """

    data: tuple[str, ...]
    """Data sets as NAME:PATH."""
    held_out: tuple[str, ...]
    """People to test on, as NAME:S1,S2; training never sees them."""
    out: Path
    """Folder of the runs; a draw whose scores.npz is there is not trained again."""
    draws: int = 4
    """Into how many parts the actions are dealt."""
    epochs: int = 16
    """Of each training."""
    windows: int = 3008
    """Windows of an epoch."""
    method: Literal["gap", "pcle"] = "pcle"
    """How the models are trained; pcle as the shipped bundle, but without the interaction that helps its training."""
    widths: tuple[int, ...] = (16, 32, 32, 64)
    """Channels of the network's blocks."""
    seed: int = 0
    """Of the dealing and the training."""


@contextmanager
def without(actions: Sequence[str]) -> Iterator[None]:
    """For a while the vocabulary has no word for these: they stay out of training, and are no "nothing" either."""
    kept = {data: dict(meaning) for data, meaning in MEANING.items()}
    try:
        for data, meaning in kept.items():
            MEANING[data] = {label: action for label, action in meaning.items() if action not in actions}
        yield
    finally:
        MEANING.update(kept)


def dealt(draws: int, seed: int) -> list[list[str]]:
    """The actions in as many parts, each in one."""
    order = np.random.default_rng(seed).permutation(list(ACTIONS))
    return [sorted(part.tolist()) for part in np.array_split(order, draws)]


def trained(config: Config, number: int, left_out: Sequence[str], console: Console) -> Path:
    """Trains one draw's model; returns its run folder."""
    run = config.out / f"draw-{number}"
    settings = FitConfig(
        out=run, method=config.method, interaction=False, data=config.data, held_out=config.held_out,
        epochs=config.epochs, draws=config.windows, widths=config.widths, warm_up=2, seed=config.seed + number,
        threads=1, device="cpu", prompts="pooled", refresh_text=8,
    )  # fmt: skip
    check(settings)

    def body(device: torch.device, ranks: object, said: Console) -> None:
        with without(left_out):
            batches = LiveBatches(settings, device, said)
        log = loop.train(Trainer(settings, batches, device, ranks), said, lambda _: {})  # type: ignore[arg-type]
        if log is not None:
            log.close()
        score(run, batches, left_out)

    loop.on_ranks(settings, console, body)
    return run


@torch.inference_mode()
def score(run: Path, batches: LiveBatches, left_out: Sequence[str]) -> None:
    """Writes scores.npz: the known classes' logits and the embedding of every clip's windows, and the prototypes."""
    net = load_network(run / "last.safetensors")
    text = net.text
    assert text is not None
    columns = [k for k, name in enumerate(batches.classes) if name not in left_out]

    def answer(skeleton: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        feature = net.network.feature_map(torch.from_numpy(skeleton).unsqueeze(-1)).mean(dim=(2, 3))
        logits, embedding = net.network.heads(feature)
        both = 0.5 * (logits + net.text_scale * embedding @ text.T)
        return both[:, columns].numpy(), embedding.numpy()

    net.network.eval()
    sums, seen = np.zeros((len(batches.classes), text.shape[1])), 0
    for x, labels in batches.epoch(10_000, Ranks()):
        _, embedding = answer(x.squeeze(-1).numpy())
        sums += (labels.numpy() >= SURE).T.astype(float) @ embedding
        seen += len(x)
        if seen >= PROTOTYPE_WINDOWS:
            break
    rows: list[tuple[np.ndarray, np.ndarray]] = []
    truth: list[str] = []
    clip: list[int] = []
    for source in batches.held:
        for one in labelled_clips(source.items):
            action = action_of(one.data, one.label)
            windows = clip_windows(one, batches.frames, batches.fps, batches.streams)
            if action is None or not len(windows):
                continue
            rows.append(answer(features(windows, np.ones(windows.shape[:-1], np.float32), batches.streams)))
            clip += [len(truth)] * len(windows)
            truth.append(action)
    prototypes = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    np.savez_compressed(
        run / "scores.npz", logits=np.concatenate([r[0] for r in rows]), embedding=np.concatenate([r[1] for r in rows]),
        clip=np.array(clip), truth=np.array(truth), classes=np.array([batches.classes[k] for k in columns]),
        text=text.numpy()[columns], means=prototypes[columns].astype(np.float32), left_out=np.array(left_out),
    )  # fmt: skip


def deciding(share: np.ndarray, clip: np.ndarray) -> np.ndarray:
    """The window (C,) of each clip in which an action is likeliest, from probabilities (N, K) of actions."""
    best = share.max(axis=1)
    return np.array([np.flatnonzero(clip == one)[best[clip == one].argmax()] for one in range(int(clip.max()) + 1)])


def measured(run: Path) -> dict[str, tuple[float, float]]:
    """By measure: the AUROC of known against unknown clips, and the share of unknown ones that pass at 95 % known."""
    with np.load(run / "scores.npz") as kept:
        data = {name: kept[name] for name in kept.files}
    nothing = data["classes"].tolist().index(NOTHING)
    actions = np.delete(softmax(data["logits"]), nothing, axis=1)
    at = deciding(actions, data["clip"])
    logits, embedding = data["logits"][at], data["embedding"][at]
    text, means = (np.delete(data[name], nothing, axis=0) for name in ("text", "means"))
    values = {kind: measure(kind, logits, embedding, nothing, text) for kind in KINDS}
    values["class means"] = measure("prototype", logits, embedding, nothing, means)
    values["energy and class means"] = even(values["energy"]) + even(values["class means"])
    values["softmax and class means"] = even(values["softmax"]) + even(values["class means"])
    unknown = np.isin(data["truth"], data["left_out"])
    return {
        name: (auroc(one[~unknown], one[unknown]), passed(one[~unknown], one[unknown])) for name, one in values.items()
    }


def even(values: np.ndarray) -> np.ndarray:
    """With mean 0 and deviation 1."""
    return (values - values.mean()) / max(float(values.std()), 1e-12)


def table(found: Sequence[dict[str, tuple[float, float]]]) -> Table:
    """Each measure's AUROC in every draw, its mean and deviation, and what passes at 95 % known."""
    columns = [f"draw {number}" for number in range(len(found))]
    shown = Table("measure", *columns, "AUROC", "better than softmax", "unknown that pass")
    for name in sorted(found[0], key=lambda name: -mean_std([one[name][0] for one in found])[0]):
        each, pass_ = ([one[name][k] for one in found] for k in (0, 1))
        mean, deviation = mean_std(each)
        wins = sum(one[name][0] > one["softmax"][0] for one in found)
        spread = "" if deviation is None else f" ± {deviation:.3f}"
        shown.add_row(
            name, *(f"{value:.3f}" for value in each), f"{mean:.3f}{spread}",
            "" if name == "softmax" else f"{wins} of {len(found)}", f"{mean_std(pass_)[0]:.1%}",
        )  # fmt: skip
    return shown


def run(config: Config, console: Console) -> int:
    """Trains what is not there yet, and prints the table."""
    torch.set_num_threads(1)
    found = []
    for number, left_out in enumerate(dealt(config.draws, config.seed)):
        if not (config.out / f"draw-{number}" / "scores.npz").is_file():
            console.print(f"draw {number}: without {', '.join(left_out)}")
            trained(config, number, left_out, console)
        found.append(measured(config.out / f"draw-{number}"))
    console.print(table(found))
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "scripts.bench_rejection", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
