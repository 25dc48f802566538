"""Trains a recogniser of actions: python -m train.fit --help."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from realtime.command import run_command
from realtime.errors import BundleError, UsageError
from train import checkpoint
from train.batches import LiveBatches, PreparedBatches
from train.device import pick_device
from train.distributed import Ranks, ranks
from train.outcome import environment, finish, held_out
from train.settings import Config, check
from train.trainer import Trainer, plain

EXAMPLES = """examples:
  python -m train.prepare nw_ucla DOWNLOADED prepared/nw_ucla
  python -m train.fit --method pcle --prepared prepared/nw_ucla --out runs/pcle-0
  python -m train.fit --method pcle --data nw_ucla:DIR utd_mhad:DIR --held-out nw_ucla:9,10 --out runs/live
  python -m train.fit --out runs/pcle-0 --resume
  torchrun --nproc-per-node 4 -m train.fit --method pcle --backbone ctrgcn --prepared prepared/ntu60 --out runs/ntu
"""


def _settings(config: Config) -> Config:
    """The settings to train with, checked: a resumed run's own, which stays on its device unless told otherwise."""
    last = config.out / "last.safetensors"
    if config.resume:
        config = _resumed(config, checkpoint.load(last)[1])
    elif last.exists():
        raise UsageError(f"{config.out} already holds a run; add --resume to continue it, or choose another --out")
    check(config)
    return replace(config, device="cuda" if pick_device(config.device).type == "cuda" else "cpu")


def _resumed(config: Config, content: dict[str, Any]) -> Config:
    """The settings that a run was started with; only its folder, device and threads may be said anew."""
    kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content["config"].items()}
    kept |= {k: Path(kept[k]) for k in ("prepared", "text_weights") if kept.get(k)}
    device = kept.get("device", "cpu") if config.device == "auto" else config.device
    anew = {"out": config.out, "resume": True, "device": device, "threads": config.threads or kept.get("threads", 0)}
    try:
        old = Config(**{**kept, **anew})
    except TypeError as error:
        raise BundleError(f"{config.out} was begun by another version of train.fit ({error}); train anew") from error
    changed = [
        f"--{one.name.replace('_', '-')}" for one in fields(Config)
        if getattr(config, one.name) not in (one.default, getattr(old, one.name)) and one.name not in anew
    ]  # fmt: skip
    if changed:
        raise UsageError(f"{', '.join(changed)} cannot change in a resumed run; leave out, or choose another --out")
    return old


def fit(config: Config, console: Console) -> None:
    """Runs or resumes the training that `config` describes; under torchrun, on all its processes together."""
    config = _settings(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    with ranks(torch.device(config.device)) as here:
        if config.batch % here.world:
            raise UsageError(f"--batch {config.batch} does not divide among {here.world} processes; make it a multiple")
        device = torch.device("cuda", here.local) if config.device == "cuda" else torch.device("cpu")
        _fit(config, device, here, console if here.first else Console(quiet=True))


def _fit(config: Config, device: torch.device, here: Ranks, console: Console) -> None:
    if here.first:
        checkpoint.make_folder(config.out)
    source = LiveBatches if config.prepared is None else PreparedBatches
    batches: LiveBatches | PreparedBatches = source(config, device, console)
    trainer = Trainer(config, batches, device, here)
    if config.resume:
        trainer.restore(*checkpoint.load(config.out / "last.safetensors"))
    if not here.first:
        for number in range(trainer.done, config.epochs):
            for _ in trainer.epoch(number):
                pass
        return
    checkpoint.write_json(config.out / "config.json", plain(config))
    checkpoint.write_json(config.out / "environment.json", environment(trainer))
    log = Log(trainer, console)
    for number in range(trainer.done, config.epochs):
        log.epoch(number)
    console.print("testing the last weights ...")
    result = finish(trainer, log.rows)
    log.close()
    said = result.get("test", {}).get("accuracy")
    found = result.get("held_out", {}) if said is None else {"test accuracy": said, **result["modes"]}
    console.print(f"{config.out}: " + (", ".join(f"{k} {v:.1%}" for k, v in found.items()) or "done"))


class Log:
    """Progress, metrics.jsonl, TensorBoard, last and best weights of a run."""

    def __init__(self, trainer: Trainer, console: Console) -> None:
        self.trainer, self.console, self.config = trainer, console, trainer.config
        self.path = self.config.out / "metrics.jsonl"
        self.rows = self._earlier()
        self.best = max((row["best"] for row in self.rows if "best" in row), default=-1.0)
        self.writer = SummaryWriter(str(self.config.out), purge_step=trainer.done + 1)
        self.started, self.first = time.monotonic(), trainer.done
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=console, transient=True, disable=console.quiet)

    def _earlier(self) -> list[dict[str, Any]]:
        """Rows of the epochs that the checkpoint holds; those of an epoch that a crash lost are dropped."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        rows = []
        for line in lines:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:  # a row half written when the process died
                break
        rows = [row for row in rows if row["epoch"] <= self.trainer.done]
        checkpoint.write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        return rows

    def epoch(self, number: int) -> None:
        """Trains an epoch, saves it, scores it where it is time, and says so."""
        trainer, config, began = self.trainer, self.config, time.monotonic()
        steps = trainer.batches.steps
        with self.progress as progress:
            task = progress.add_task(f"epoch {number + 1} of {config.epochs}", total=steps)
            for _ in trainer.epoch(number):
                progress.advance(task)
            progress.remove_task(task)
        pace = steps * config.batch / (time.monotonic() - began)
        row: dict[str, Any] = {"epoch": number + 1, **trainer.row, "clips_per_s": pace}
        if (number + 1) % config.evaluate_every == 0 or number + 1 == config.epochs:
            row |= held_out(trainer)
        self._keep_best(row)
        row["seconds"] = time.monotonic() - self.started
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        trainer.save("last")  # after its row: one that a crash leaves without weights is dropped, never the reverse
        for name, value in row.items():
            self.writer.add_scalar(name, value, number + 1)
        left = row["seconds"] / (number + 1 - self.first) * (config.epochs - number - 1)
        shown = {k: v for k, v in row.items() if k in ("epoch", "loss", "train_accuracy") or k.startswith("accuracy/")}
        self.console.print("  ".join(f"{k} {v:.4g}" for k, v in shown.items()) + f"  (about {left / 60:.0f} min left)")

    def _keep_best(self, row: dict[str, Any]) -> None:
        """Writes the weights as the best where this epoch's are; says in best.json what chose them."""
        scored = {k: v for k, v in row.items() if k in ("accuracy/validation", "accuracy/test")}
        for name, value in scored.items():
            if value > self.best:
                self.best = row["best"] = value
                self.trainer.save("best")
                chosen = {"epoch": row["epoch"], "accuracy": value, "chosen_by": name.partition("/")[2]}
                checkpoint.write_json(self.config.out / "best.json", chosen)

    def close(self) -> None:
        """Ends the curves."""
        self.writer.close()


def run(config: Config, console: Console) -> int:
    """Trains, and says how to go on where it is interrupted."""
    try:
        fit(config, console)
    except KeyboardInterrupt:
        kept = (config.out / "last.safetensors").exists()
        how = f"continue with: python -m train.fit --out {config.out} --resume" if kept else "no epoch was finished"
        console.print(f"interrupted; {how}")
        return 130
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "train.fit", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
