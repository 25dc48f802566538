"""Trains a recogniser of actions: python -m train.fit --help."""

from __future__ import annotations

import sys

import torch
from rich.console import Console

from realtime.command import run_command
from train import loop
from train.batches import LiveBatches, PreparedBatches
from train.distributed import Ranks
from train.outcome import finish, held_out
from train.settings import Config, check
from train.trainer import Trainer

PROGRAM = "train.fit"
EXAMPLES = """examples:
  python -m train.prepare nw_ucla DOWNLOADED prepared/nw_ucla
  python -m train.fit --method pcle --prepared prepared/nw_ucla --out runs/pcle-0
  python -m train.fit --method pcle --data nw_ucla:DIR utd_mhad:DIR --held-out nw_ucla:9,10 --out runs/live
  python -m train.fit --method pcle --prepared prepared/ntu60 --backbone stgcn --init runs/c2vl --out runs/from-c2vl
  python -m train.fit --out runs/pcle-0 --resume
  torchrun --nproc-per-node 4 -m train.fit --method pcle --backbone ctrgcn --prepared prepared/ntu60 --out runs/ntu
"""


def _settings(config: Config) -> Config:
    """The settings to train with, checked; a resumed run's own."""
    return loop.settled(config, PROGRAM, check)


def fit(config: Config, console: Console) -> None:
    """Runs or resumes the training that `config` describes; under torchrun, on all its processes together."""
    config = _settings(config)
    loop.on_ranks(config, console, lambda device, here, said: _fit(config, device, here, said))


def _fit(config: Config, device: torch.device, here: Ranks, console: Console) -> None:
    source = LiveBatches if config.prepared is None else PreparedBatches
    batches: LiveBatches | PreparedBatches = source(config, device, console)
    trainer = Trainer(config, batches, device, here)

    def score(number: int) -> dict[str, float]:
        due = (number + 1) % config.evaluate_every == 0 or number + 1 == config.epochs
        return held_out(trainer) if due else {}

    log = loop.train(trainer, console, score)
    if log is None:
        return
    console.print("testing the last weights ...")
    result = finish(trainer, log.rows)
    log.close()
    said = result.get("test", {}).get("accuracy")
    found = result.get("held_out", {}) if said is None else {"test accuracy": said, **result["modes"]}
    console.print(f"{config.out}: " + (", ".join(f"{k} {v:.1%}" for k, v in found.items()) or "done"))


def run(config: Config, console: Console) -> int:
    """Trains, and says how to go on where it is interrupted."""
    return loop.until_interrupted(config, console, PROGRAM, lambda: fit(config, console))


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, PROGRAM, EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
