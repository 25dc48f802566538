"""Trains the action network on pooled Kinect data sets: python -m train.fit --help."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from rich.console import Console
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from realtime.command import run_command
from realtime.errors import LineError, UsageError
from realtime.features import channels, features
from realtime.skeleton import CORE_16
from train import checkpoint
from train.data import read
from train.evaluate import clip_report, score_clips
from train.pool import Pool, draw, weights
from train.sources import Source, parse_source
from train.synthesis import synthetic_recordings
from train.vocabulary import CLASSES

EXAMPLES = """examples:
  python -m train.fit --data nw_ucla:DIR utd_mhad:DIR --held-out nw_ucla:9,10 utd_mhad:7,8 --out runs/first
  python -m train.fit --out runs/first --resume
"""


@dataclass(frozen=True)
class Config:
    """Train the action network."""

    out: Path
    """Run folder: config.json, metrics.jsonl, TensorBoard curves, last.safetensors."""
    data: tuple[str, ...] = ()
    """Data sets as NAME:PATH (PATH is the folder of the published files)."""
    held_out: tuple[str, ...] = ()
    """Subjects kept out of training and scored, as NAME:S1,S2."""
    synthetic: int = 40
    """Generated recordings (about a minute each) added to the pool; 0 for none."""
    share: tuple[str, ...] = ("utkinect:0.8", "msr_action3d:1.2", "msrc12:1.0", "synthetic:0.25")
    """How often a set is drawn from, as NAME:WEIGHT; 1 where not named."""
    epochs: int = 60
    """Passes of `draws` windows."""
    draws: int = 5000
    """Windows an epoch."""
    batch: int = 64
    """Windows a step."""
    lr: float = 0.1
    """Peak learning rate of SGD with Nesterov momentum 0.9; cosine to zero after `warm_up` epochs."""
    warm_up: int = 3
    """Epochs of linear warm-up."""
    weight_decay: float = 5e-4
    """On weights of convolutions and linear layers only."""
    smoothing: float = 0.1
    """Label smoothing."""
    strength: float = 1.0
    """Scale of every augmentation; 0 for none."""
    widths: tuple[int, ...] = (64, 64, 64, 128, 128, 128, 192, 192)
    """Channels of the blocks."""
    groups: int = 8
    """Channel groups with an adjacency of their own."""
    dropout: float = 0.2
    """Before the classifier."""
    streams: tuple[str, ...] = ("joint", "bone", "motion")
    """Input streams."""
    window: int = 64
    """Frames of a window."""
    fps: float = 20.0
    """Frame rate of a window."""
    seed: int = 0
    """Of weights, order and augmentation."""
    threads: int = 0
    """CPU threads; 0 leaves PyTorch's choice."""
    precision: str = "auto"
    """fp32, bf16 (autocast), or auto: bf16 where the processor has it."""
    evaluate_every: int = 10
    """Epochs between scorings of the held-out subjects (and after the last)."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = field(default=False)
    """Continue the run in `out` with the settings it was started with; the result equals an uninterrupted run."""


def _autocast(precision: str) -> torch.autocast:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    wanted = precision == "bf16" or (precision == "auto" and "avx512_bf16" in flags)
    return torch.autocast("cpu", torch.bfloat16, enabled=wanted)


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

    def __init__(self, config: Config, pool: Pool, held: Pool | None, console: Console) -> None:
        self.config, self.pool, self.console = config, pool, console
        torch.manual_seed(config.seed)
        self.model = {
            "layout": CORE_16.name, "channels": channels(config.streams), "classes": list(CLASSES),
            "widths": list(config.widths), "groups": config.groups, "dropout": config.dropout,
            "streams": list(config.streams), "window": config.window, "fps": config.fps,
        }  # fmt: skip
        self.network = checkpoint.build(self.model)
        self.average = torch.optim.swa_utils.AveragedModel(self.network, multi_avg_fn=_average, use_buffers=True)
        self.names = [name for name, _ in self.network.named_parameters()]
        decayed = [p for _, p in self.network.named_parameters() if p.ndim > 1]
        plain = [p for _, p in self.network.named_parameters() if p.ndim <= 1]
        self.names = [n for n, p in self.network.named_parameters() if p.ndim > 1]
        self.names += [n for n, p in self.network.named_parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True)
        self.chances = weights(pool, dict(_pairs(config.share)))
        self.autocast = _autocast(config.precision)
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
            skeleton = torch.from_numpy(features(joints, np.ones(joints.shape[:3], np.float32), config.streams))
            target = torch.from_numpy(labels)
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
                self.optimiser.state[parameter]["momentum_buffer"] = tensors[f"momentum.{name}"]
        self.done = content["epochs_done"]

    def save(self) -> None:
        """Writes last.safetensors."""
        content = {"model": self.model, "epochs_done": self.done, "config": _plain(self.config)}
        checkpoint.save(self.config.out / "last", self.state(), content)


def _pairs(entries: tuple[str, ...]) -> list[tuple[str, float]]:
    return [(name, float(value)) for name, _, value in (entry.partition(":") for entry in entries)]


def _plain(config: Config) -> dict:
    return json.loads(json.dumps(asdict(config), default=str))


def _load_data(config: Config, console: Console) -> tuple[Pool, list[Source]]:
    """The training pool without the held-out subjects, and the held-out part of each set."""
    held = {name: set(subjects.split(",")) for name, _, subjects in (h.partition(":") for h in config.held_out)}
    pool, kept = Pool(config.fps), []
    for entry in config.data:
        source = parse_source(entry)
        started, before = time.monotonic(), len(pool.units)
        items = list(read(source.name, source.path, None))
        out = held.get(source.name, set())
        pool.add(item for item in items if str(item.subject) not in out)
        kept.append(Source(source.name, source.path, [item for item in items if str(item.subject) in out]))
        console.print(f"{source.name}: {len(items)} files, {len(pool.units) - before} units to train on, "
                      f"{len(kept[-1].items)} held out ({time.monotonic() - started:.0f} s)")  # fmt: skip
    if config.synthetic:
        pool.add(synthetic_recordings(config.synthetic, config.seed))
    if not pool.units:
        raise UsageError("nothing to train on; name data sets with --data NAME:PATH or keep --synthetic above 0")
    return pool, kept


def fit(config: Config, console: Console) -> None:
    """Runs or resumes the training that `config` describes."""
    last = config.out / "last.safetensors"
    if config.resume:
        _, content = checkpoint.load(last)
        kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content["config"].items()}
        config = Config(**{**kept, "out": config.out, "resume": True})
    elif last.exists():
        raise UsageError(f"{config.out} already holds a run; add --resume to continue it, or choose another --out")
    config.out.mkdir(parents=True, exist_ok=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    pool, held = _load_data(config, console)
    trainer = Trainer(config, pool, None, console)
    if config.resume:
        trainer.restore(*checkpoint.load(last))
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
            return network(torch.from_numpy(skeleton))[0].numpy()

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
