"""Where training's batches come from: live windows of pooled sets, or the clips of one prepared set.

Both give (x (N, C, T, V, M), target (N, K)) on the device, and both make an epoch's batches from the run's seed and
the epoch alone: a resumed run, and one on several devices, sees the same global batches as an uninterrupted one on one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.random import Generator
from rich.console import Console
from torch import Tensor

from realtime.errors import UsageError
from realtime.features import PAIR_STREAMS, channels, features
from realtime.skeleton import CORE_16
from train.data import read
from train.data.clip import Recording
from train.data.prepared import load
from train.data.splits import split
from train.distributed import Ranks
from train.feeder import FRAMES, Feeder
from train.pairs import PairPool
from train.pool import Pool, draw, weights
from train.settings import LiveSettings
from train.sources import Source, of_subjects, parse_held_out, parse_shares, parse_sources
from train.synthesis import synthetic_recordings
from train.vocabulary import CLASSES, PAIR_CLASSES

POOLED = "pooled"  # sets together, as one
LIVE_STREAMS = ("joint", "bone", "motion")
USUAL_SPLIT = {"nw_ucla": "xview", "sbu": "fold1"}  # xsub for every other set
TEST_BATCH = 256


class LiveBatches:
    """Windows as the device sees them, drawn from pooled sets; tested on held-out subjects."""

    split, layout = "held_out", CORE_16
    bodies = 1  # of the network's input: a pair's two are channels side by side

    def __init__(self, config: LiveSettings, device: torch.device, console: Console) -> None:
        self.config, self.device = config, device
        pairs = config.bodies == 2
        self.data = "interactions" if pairs else POOLED
        self.classes = PAIR_CLASSES if pairs else CLASSES
        self.streams = config.streams or (LIVE_STREAMS + PAIR_STREAMS if pairs else LIVE_STREAMS)
        self.channels, self.frames = channels(self.streams), config.window or 64
        self.fps = config.fps
        generated = synthetic_recordings(config.synthetic, config.seed)
        self.pool, self.held = load_pool(config.data, config.held_out, self.fps, console, config.bodies, generated)
        self.chances = weights(self.pool, parse_shares(config.share))
        self.steps = config.draws // config.batch

    def epoch(self, number: int, ranks: Ranks) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch; this rank's rows of each."""
        part = ranks.part(self.config.batch)
        for picked, rng in self.picked(number):
            joints, labels = draw(self.pool, picked, self.frames, rng, self.config.strength)
            yield self.inputs(joints[part]), torch.from_numpy(labels[part]).to(self.device)

    def picked(self, number: int) -> Iterator[tuple[np.ndarray, Generator]]:
        """Units by number of an epoch's batches, and what to draw their windows with."""
        config = self.config
        rng = np.random.default_rng([config.seed, number])
        order = rng.choice(len(self.chances), config.draws, p=self.chances)
        for step in range(self.steps):
            yield order[step * config.batch : (step + 1) * config.batch], rng

    def inputs(self, joints: np.ndarray) -> Tensor:
        """Network inputs (N, C, T, V, 1) of windows."""
        made = features(joints, np.ones(joints.shape[:-1], np.float32), self.streams)
        return torch.from_numpy(made).unsqueeze(-1).to(self.device)


def load_pool(
    data: Sequence[str],
    held_out: Sequence[str],
    fps: float,
    console: Console,
    bodies: int = 1,
    generated: Iterable[Recording] = (),
) -> tuple[Pool, list[Source]]:
    """The training pool without the held-out subjects, and the held-out part of each set."""
    sources = parse_sources(data)
    held = parse_held_out(held_out, [source.name for source in sources])
    pool: Pool = PairPool(fps) if bodies == 2 else Pool(fps)
    kept = []
    for source in sources:
        started, before = time.monotonic(), len(pool.units)
        out, rest = of_subjects(source.name, list(read(source.name, source.path)), held.get(source.name, ()))
        pool.add(rest)
        kept.append(replace(source, items=out))
        console.print(f"{source.name}: {len(out) + len(rest)} files, {len(pool.units) - before} units to train on, "
                      f"{len(out)} held out ({time.monotonic() - started:.0f} s)")  # fmt: skip
    if not sources:
        console.print("no --data and no --prepared: training on generated people alone")
    pool.add(generated)
    if not pool.units:
        raise UsageError("nothing to train on: no clip has a word of the vocabulary; name sets with --data NAME:PATH")
    return pool, kept


def _set_aside(names: np.ndarray, share: float) -> np.ndarray:
    """Mask (N,) of about this share of clips to validate on; the views of one performance stay together."""
    scenes = np.array([re.sub(r"C\d{3}|_v\d+$|-[LMR]", "", str(name)) for name in names])
    each = np.unique(scenes)
    chosen = np.random.default_rng(len(each)).permutation(each)[: round(share * len(each))]
    return np.isin(scenes, chosen)


class PreparedSettings(Protocol):
    """What `PreparedBatches` reads of a program's settings."""

    @property
    def prepared(self) -> Path | None: ...
    @property
    def resume(self) -> bool: ...
    @property
    def split(self) -> str: ...
    @property
    def streams(self) -> tuple[str, ...]: ...
    @property
    def window(self) -> int: ...
    @property
    def backbone(self) -> str: ...
    @property
    def validation(self) -> float: ...
    @property
    def repeat(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def seed(self) -> int: ...


class PreparedBatches:
    """The clips of one prepared set by its published protocol; they lie on the device, and so is the work on them."""

    def __init__(self, config: PreparedSettings, device: torch.device, console: Console) -> None:
        assert config.prepared is not None
        prepared = load(config.prepared, verify=not config.resume)
        self.config, self.device = config, device
        self.data, self.layout, self.classes = prepared.data, prepared.layout, prepared.classes
        self.fps = prepared.fps
        self.split = config.split or USUAL_SPLIT.get(self.data, "xsub")
        self.frames = config.window or FRAMES.get(self.data, 64)
        full = config.backbone in ("ctrgcn", "stgcn")
        self.streams: tuple[str, ...] = config.streams or (("joint",) if full else ("joint", "bone"))
        self.channels, self.bodies = 3 * len(self.streams), prepared.joints.shape[1]
        self.feeder = Feeder(prepared, self.frames, self.streams, device)
        self.names, self.labels = np.asarray(prepared.name), prepared.label.astype(np.int64)
        train, test = (np.flatnonzero(mask) for mask in split(prepared, self.split))
        kept = _set_aside(self.names[train], config.validation)
        self.train, self.validation, self.test = train[~kept], train[kept], test
        self.steps = max(len(self.train) * config.repeat // config.batch, 1)
        if not len(self.train) or not len(test):
            raise UsageError(f"split {self.split} of {config.prepared} leaves {len(train)} clips to train on and "
                             f"{len(test)} to test; choose another --split or --validation")  # fmt: skip
        console.print(f"{self.data} {self.split}: {len(self.train)} clips to train on, {len(self.validation)} to "
                      f"validate, {len(test)} to test; {', '.join(self.streams)}, {self.frames} frames")  # fmt: skip

    def picked(self, number: int) -> Iterator[tuple[int, np.ndarray]]:
        """(step, clips by number) of an epoch's batches. Every clip comes `repeat` times, in a new random order.

        The last clips that fill no batch are left to other epochs; fewer clips than a batch are filled up from anew.
        """
        config = self.config
        rng = np.random.default_rng([config.seed, number])
        order = np.concatenate([rng.permutation(self.train) for _ in range(config.repeat)])
        order = np.resize(order, self.steps * config.batch)
        for step in range(self.steps):
            yield step, order[step * config.batch : (step + 1) * config.batch]

    def views(self, picked: np.ndarray, number: int, step: int) -> Tensor:
        """Network inputs of clips, each seen at random: the same for the same seed, epoch and step."""
        seed = self.config.seed * 1_000_003 + number * self.steps + step + 1
        generator = torch.Generator(self.device).manual_seed(seed)
        return self.feeder.train(torch.from_numpy(picked).to(self.device), generator)

    def epoch(self, number: int, ranks: Ranks) -> Iterator[tuple[Tensor, ...]]:
        """The batches of an epoch; this rank's rows of each."""
        part = ranks.part(self.config.batch)
        for step, picked in self.picked(number):
            labels = torch.from_numpy(self.labels[picked][part]).to(self.device)
            wanted = torch.nn.functional.one_hot(labels, len(self.classes)).float()
            yield self.views(picked, number, step)[part], wanted

    def inputs(self, numbers: np.ndarray) -> Iterator[Tensor]:
        """Network inputs of clips by number, as they are tested, some at a time."""
        for at in range(0, len(numbers), TEST_BATCH):
            yield self.feeder.test(torch.from_numpy(numbers[at : at + TEST_BATCH]).to(self.device))
