"""Trains the action network on pooled Kinect data sets: python -m train.fit --help."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from realtime.command import run_command
from realtime.errors import LineError, UsageError
from realtime.features import channels, features
from realtime.skeleton import CORE_16
from train import checkpoint
from train.data import read
from train.device import autocast, pick_device
from train.evaluate import clip_report, score_clips
from train.pool import Pool, draw, weights
from train.settings import Config, check
from train.sources import Source, of_subjects, parse_held_out, parse_shares, parse_sources
from train.synthesis import synthetic_recordings
from train.vocabulary import CLASSES

EXAMPLES = """examples:
  python -m train.fit --data nw_ucla:DIR utd_mhad:DIR --held-out nw_ucla:9,10 utd_mhad:7,8 --out runs/first
  python -m train.fit --out runs/first --resume
"""


def _rate(config: Config, step: int, steps: int) -> float:
    """Learning rate at a step: linear warm-up, then a cosine to zero."""
    warm = config.warm_up * steps // config.epochs
    if step < warm:
        return config.lr * (step + 1) / warm
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


@torch.no_grad()
def _average(averages: Sequence[Tensor], values: Sequence[Tensor], count: Tensor | int) -> None:
    """Exponential moving average that forgets the first steps quickly: decay min(0.998, (1 + n) / (10 + n))."""
    kept = min(0.998, (1 + int(count)) / (10 + int(count)))
    for average, value in zip(averages, values, strict=True):
        if average.is_floating_point():
            average.lerp_(value, 1 - kept)
        else:
            average.copy_(value)


class Trainer:
    """One run: network, its moving average, optimiser and data; `epoch` is the verb."""

    def __init__(self, config: Config, pool: Pool, console: Console) -> None:
        self.config, self.pool, self.console = config, pool, console
        torch.manual_seed(config.seed)
        self.model = {
            "layout": CORE_16.name, "channels": channels(config.streams), "classes": list(CLASSES),
            "widths": list(config.widths), "groups": config.groups, "dropout": config.dropout,
            "streams": list(config.streams), "window": config.window, "fps": config.fps,
        }  # fmt: skip
        self.device = pick_device(config.device)
        self.network = checkpoint.build(self.model).to(self.device)
        self.average = torch.optim.swa_utils.AveragedModel(self.network, multi_avg_fn=_average, use_buffers=True)
        named = sorted(self.network.named_parameters(), key=lambda pair: pair[1].ndim <= 1)  # weights, then the rest
        self.names = [name for name, _ in named]  # in the optimiser's order
        decayed, plain = [p for _, p in named if p.ndim > 1], [p for _, p in named if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True)
        self.chances = weights(pool, parse_shares(config.share))
        self.autocast = autocast(config.precision, self.device)
        self.done = 0

    def epoch(self, number: int) -> dict[str, float]:
        """One pass of `draws` windows. Every random choice follows from (seed, number) alone, so resuming is exact."""
        config = self.config
        rng = np.random.default_rng([config.seed, number])
        torch.manual_seed(config.seed * 100_003 + number)
        order = rng.choice(len(self.chances), config.draws, p=self.chances)
        steps = config.draws // config.batch
        self.network.train()
        total = right = 0.0
        for step in range(steps):
            joints, labels = draw(
                self.pool, order[step * config.batch : (step + 1) * config.batch], config.window, rng, config.strength
            )
            made = features(joints, np.ones(joints.shape[:3], np.float32), config.streams)
            skeleton, target = (torch.from_numpy(array).to(self.device) for array in (made, labels))
            for group in self.optimiser.param_groups:
                group["lr"] = _rate(config, number * steps + step, config.epochs * steps)
            with self.autocast:
                logits, _ = self.network(skeleton)
            loss = nn.functional.cross_entropy(logits.float(), target, label_smoothing=config.smoothing)
            if not torch.isfinite(loss):
                raise LineError(f"loss is {loss.item()} at epoch {number}, batch {step}; try a lower --lr")
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
            self.optimiser.step()
            self.average.update_parameters(self.network)
            total += loss.item()
            right += (logits.argmax(1) == target.argmax(1)).float().mean().item()
        self.done = number + 1
        return {"loss": total / steps, "train_accuracy": right / steps}

    def state(self) -> dict[str, Tensor]:
        """Everything that an exact resume needs."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.module.state_dict().items()}
        tensors["averaged"] = self.average.n_averaged
        return tensors | checkpoint.optimiser_tensors(self.optimiser, self.names)

    def restore(self, tensors: dict[str, Tensor], content: dict) -> None:
        """Takes up where `state` was saved."""
        self.network.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("network.")})
        self.average.module.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("average.")})
        self.average.n_averaged.copy_(tensors["averaged"])
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        for name, parameter in zip(self.names, parameters, strict=True):
            if f"momentum.{name}" in tensors:
                self.optimiser.state[parameter]["momentum_buffer"] = tensors[f"momentum.{name}"].to(self.device)
        self.done = content["epochs_done"]

    def save(self) -> None:
        """Writes last.safetensors."""
        content = {"model": self.model, "epochs_done": self.done, "config": _plain(self.config)}
        checkpoint.save(self.config.out / "last", self.state(), content)


def _plain(config: Config) -> dict:
    return json.loads(json.dumps(asdict(config), default=str))


def _load_data(config: Config, console: Console) -> tuple[Pool, list[Source]]:
    """The training pool without the held-out subjects, and the held-out part of each set."""
    sources = parse_sources(config.data)
    held = parse_held_out(config.held_out, [source.name for source in sources])
    pool, kept = Pool(config.fps), []
    for source in sources:
        started, before = time.monotonic(), len(pool.units)
        out, rest = of_subjects(source.name, list(read(source.name, source.path)), held.get(source.name, ()))
        pool.add(rest)
        kept.append(replace(source, items=out))
        console.print(f"{source.name}: {len(out) + len(rest)} files, {len(pool.units) - before} units to train on, "
                      f"{len(out)} held out ({time.monotonic() - started:.0f} s)")  # fmt: skip
    if config.synthetic:
        pool.add(synthetic_recordings(config.synthetic, config.seed))
    if not pool.units:
        raise UsageError("nothing to train on; name data sets with --data NAME:PATH or keep --synthetic above 0")
    return pool, kept


def _settings(config: Config) -> Config:
    """The settings to train with, checked: a resumed run's own, which stays on its device unless told otherwise."""
    last = config.out / "last.safetensors"
    if config.resume:
        _, content = checkpoint.load(last)
        kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content["config"].items()}
        device = kept.get("device", "cpu") if config.device == "auto" else config.device
        config = Config(**{**kept, "out": config.out, "resume": True, "device": device})
    elif last.exists():
        raise UsageError(f"{config.out} already holds a run; add --resume to continue it, or choose another --out")
    check(config)
    return replace(config, device="cuda" if pick_device(config.device).type == "cuda" else "cpu")


def fit(config: Config, console: Console) -> None:
    """Runs or resumes the training that `config` describes."""
    config = _settings(config)
    checkpoint.make_folder(config.out)
    if config.threads:
        torch.set_num_threads(config.threads)
    pool, held = _load_data(config, console)
    trainer = Trainer(config, pool, console)
    if config.resume:
        trainer.restore(*checkpoint.load(config.out / "last.safetensors"))
    checkpoint.write_json(config.out / "config.json", _plain(config))
    writer = SummaryWriter(str(config.out))
    started, first = time.monotonic(), trainer.done
    with (config.out / "metrics.jsonl").open("a") as metrics:
        for number in range(first, config.epochs):
            row = {"epoch": number + 1, **trainer.epoch(number)}
            trainer.save()
            if (number + 1) % config.evaluate_every == 0 or number + 1 == config.epochs:
                row |= _held_out(trainer, held)
            row["seconds"] = time.monotonic() - started
            metrics.write(json.dumps(row) + "\n")
            metrics.flush()
            for name, value in row.items():
                writer.add_scalar(name, value, number + 1)
            left = row["seconds"] / (number + 1 - first) * (config.epochs - number - 1)
            console.print("  ".join(f"{k} {v:.4g}" for k, v in row.items()) + f"  (about {left / 60:.0f} min left)")
    writer.close()


def _held_out(trainer: Trainer, held: list[Source]) -> dict[str, float]:
    """Accuracy of the averaged network on the held-out clips of each set."""
    network, config = trainer.average.module.eval(), trainer.config

    def logits(skeleton: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(skeleton).to(trainer.device))[0].cpu().numpy()

    row = {}
    for source in held:
        scored = score_clips(logits, source.items, CLASSES, config.streams, config.window, config.fps)
        report = clip_report(source.name, scored, CLASSES)
        if report["clips"]:
            row[f"accuracy/{source.name}"] = report["accuracy"]
    return row


def run(config: Config, console: Console) -> int:
    """Trains, and says how to go on where it is interrupted."""
    try:
        fit(config, console)
    except KeyboardInterrupt:
        console.print(f"interrupted; continue with: python -m train.fit --out {config.out} --resume")
        return 130
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "train.fit", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
