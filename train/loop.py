"""What programs that train share: settings of a resumed run, processes, a run folder's progress, curves and weights."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from realtime.errors import BundleError, UsageError
from train import checkpoint
from train.device import environment, pick_device
from train.distributed import Ranks, ranks
from train.learner import Learner, Settings, plain

Config = TypeVar("Config", bound=Settings)
SHOWN = ("epoch", "loss", "train_accuracy", "found", "alpha", "temperature")
Score = Callable[[int], dict[str, float]]  # of an epoch by its number: what else its row says


def settled(config: Config, program: str, check: Callable[[Config], None]) -> Config:
    """The settings to train with, checked: a resumed run's own, which stays on its device unless told otherwise."""
    last = config.out / "last.safetensors"
    if config.resume:
        config = _resumed(config, checkpoint.load(last, program)[1], program)
    elif last.exists():
        raise UsageError(f"{config.out} already holds a run; add --resume to continue it, or choose another --out")
    check(config)
    where: Any = {"device": "cuda" if pick_device(config.device).type == "cuda" else "cpu"}
    return replace(config, **where)  # type: ignore[type-var]


def _resumed(config: Config, content: dict[str, Any], program: str) -> Config:
    """The settings that a run was started with; only its folder, device and threads may be said anew."""
    known: Any = fields(config)  # type: ignore[arg-type]
    kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content["config"].items()}
    kept |= {one.name: Path(kept[one.name]) for one in known if "Path" in str(one.type) and kept.get(one.name)}
    device = kept.get("device", "cpu") if config.device == "auto" else config.device
    anew = {"out": config.out, "resume": True, "device": device, "threads": config.threads or kept.get("threads", 0)}
    try:
        old = type(config)(**{**kept, **anew})
    except TypeError as error:
        raise BundleError(f"{config.out} was begun by another version of {program} ({error}); train anew") from error
    changed = [
        f"--{one.name.replace('_', '-')}" for one in known
        if getattr(config, one.name) not in (one.default, getattr(old, one.name)) and one.name not in anew
    ]  # fmt: skip
    if changed:
        raise UsageError(f"{', '.join(changed)} cannot change in a resumed run; leave out, or choose another --out")
    return old


def on_ranks(config: Settings, console: Console, body: Callable[[torch.device, Ranks, Console], None]) -> None:
    """Calls the body on this process's device, alone or under torchrun with all the others; only the first speaks."""
    if config.threads:
        torch.set_num_threads(config.threads)
    with ranks(torch.device(config.device)) as here:
        if config.batch % here.world:
            raise UsageError(f"--batch {config.batch} does not divide among {here.world} processes; make it a multiple")
        device = torch.device("cuda", here.local) if config.device == "cuda" else torch.device("cpu")
        if here.first:
            checkpoint.make_folder(config.out)
        body(device, here, console if here.first else Console(quiet=True))


def train(learner: Learner, console: Console, score: Score) -> Log | None:
    """Trains the epochs that are left, from the last checkpoint in a resumed run; returns the first rank's log."""
    config = learner.config
    if config.resume:
        learner.restore(*checkpoint.load(config.out / "last.safetensors"))
    if not learner.ranks.first:
        for number in range(learner.done, config.epochs):
            for _ in learner.epoch(number):
                pass
        return None
    checkpoint.write_json(config.out / "config.json", plain(config))
    made = environment(learner.device, learner.autocast, learner.ranks.world)
    checkpoint.write_json(config.out / "environment.json", made)
    log = Log(learner, console, score)
    for number in range(learner.done, config.epochs):
        log.epoch(number)
    return log


class Log:
    """Progress, metrics.jsonl, TensorBoard, last and best weights of a run."""

    def __init__(self, learner: Learner, console: Console, score: Score) -> None:
        self.learner, self.console, self.config, self.score = learner, console, learner.config, score
        self.path = self.config.out / "metrics.jsonl"
        self.rows = self._earlier()
        self.best = max((row["best"] for row in self.rows if "best" in row), default=-1.0)
        self.writer = SummaryWriter(str(self.config.out), purge_step=learner.done + 1)
        self.started, self.first = time.monotonic(), learner.done
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
        rows = [row for row in rows if row["epoch"] <= self.learner.done]
        checkpoint.write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        return rows

    def epoch(self, number: int) -> None:
        """Trains an epoch, saves it, scores it where it is time, and says so."""
        learner, config, began = self.learner, self.config, time.monotonic()
        steps = learner.batches.steps
        with self.progress as progress:
            task = progress.add_task(f"epoch {number + 1} of {config.epochs}", total=steps)
            for _ in learner.epoch(number):
                progress.advance(task)
            progress.remove_task(task)
        pace = steps * config.batch / (time.monotonic() - began)
        row: dict[str, Any] = {"epoch": number + 1, **learner.row, "clips_per_s": pace, **self.score(number)}
        self._keep_best(row)
        row["seconds"] = time.monotonic() - self.started
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        learner.save("last")  # after its row: one that a crash leaves without weights is dropped, never the reverse
        for name, value in row.items():
            self.writer.add_scalar(name, value, number + 1)
        left = row["seconds"] / (number + 1 - self.first) * (config.epochs - number - 1)
        shown = {k: v for k, v in row.items() if k in SHOWN or k.startswith("accuracy/")}
        self.console.print("  ".join(f"{k} {v:.4g}" for k, v in shown.items()) + f"  (about {left / 60:.0f} min left)")

    def _keep_best(self, row: dict[str, Any]) -> None:
        """Writes the weights as the best where this epoch's are; says in best.json what chose them."""
        scored = {k: v for k, v in row.items() if k in ("accuracy/validation", "accuracy/test")}
        for name, value in scored.items():
            if value > self.best:
                self.best = row["best"] = value
                self.learner.save("best")
                chosen = {"epoch": row["epoch"], "accuracy": value, "chosen_by": name.partition("/")[2]}
                checkpoint.write_json(self.config.out / "best.json", chosen)

    def close(self) -> None:
        """Ends the curves."""
        self.writer.close()


def until_interrupted(config: Settings, console: Console, program: str, work: Callable[[], None]) -> int:
    """Trains, and says how to go on where it is interrupted; returns the exit code."""
    try:
        work()
    except KeyboardInterrupt:
        kept = (config.out / "last.safetensors").exists()
        how = f"continue with: python -m {program} --out {config.out} --resume" if kept else "no epoch was finished"
        console.print(f"interrupted; {how}")
        return 130
    return 0
