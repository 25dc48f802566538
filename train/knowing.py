"""Batches of pre-training: clips of a prepared set or live windows, each with what is said of it.

Both give (x (N, C, T, V, M), kind of knowledge -> (N, D) unit rows) on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from realtime.errors import UsageError
from train import knowledge_folder
from train.batches import LiveBatches, PreparedBatches
from train.distributed import Ranks
from train.pool import views, weights
from train.settings import LiveSettings
from train.sources import parse_shares


class Told(Protocol):
    """Where knowledge comes from."""

    @property
    def knowledge(self) -> Path | None: ...
    @property
    def use(self) -> tuple[str, ...]: ...
    @property
    def resume(self) -> bool: ...


class LiveTold(LiveSettings, Told, Protocol):
    """The settings of live windows with knowledge."""


class Known:
    """What a knowledge folder says of clips, by name, on the device.

    rows: "language", "vision" -> (N, D) unit rows in the order of the names; zeros where nothing is known.
    here: (N,) whether all of them know something. clips, unknown: how many do and do not. made: how language was made.
    Raises UsageError where the folder is of another set, says nothing of a clip, or has no such knowledge.
    """

    def __init__(self, config: Told, data: str, names: Sequence[str], device: torch.device, console: Console) -> None:
        assert config.knowledge is not None
        folder = knowledge_folder.load(config.knowledge, verify=not config.resume)
        if folder.data not in ("", data):
            raise UsageError(f"{config.knowledge} is of {folder.data}, the clips are of {data}; name its own")
        picked = folder.rows(names)
        there = {"language": folder.language, "vision": folder.vision}
        chosen = {name: array for name, array in there.items()
                  if (name in config.use if config.use else array is not None)}  # fmt: skip
        lacking = [name for name, array in chosen.items() if array is None]
        if lacking:
            raise UsageError(f"{config.knowledge} has no {lacking[0]}; leave it out of --use")
        made = folder.about.get("made", {})
        self.made: dict[str, Any] = made.get(knowledge_folder.LANGUAGE, {})
        self.encoder = {name: str(made.get(f"{name}.npy", {}).get("encoder", "")) for name in chosen}
        self.sha256 = {name: folder.about["sha256"][f"{name}.npy"] for name in chosen}
        arrays = {name: array[picked] for name, array in chosen.items() if array is not None}
        self.here = np.all([array.any(axis=1) for array in arrays.values()], axis=0)
        self.clips, self.unknown = int(self.here.sum()), int((~self.here).sum())
        self.rows = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        if not self.clips:
            raise UsageError(f"{config.knowledge} says nothing of any training clip; make it of these clips")
        left_out = f"; {self.unknown} of which nothing is known are left out" if self.unknown else ""
        console.print(f"{' and '.join(chosen)} of {self.clips} of {len(names)}{left_out}")

    def of(self, numbers: np.ndarray) -> dict[str, Tensor]:
        """The rows (N, D) of clips by number among the names."""
        return {name: rows[torch.from_numpy(numbers).to(rows.device)] for name, rows in self.rows.items()}


class PreparedKnowledge(PreparedBatches):
    """The training clips of a prepared set of which something is known."""

    def __init__(self, config: Any, device: torch.device, console: Console) -> None:
        super().__init__(replace(config, streams=config.streams or ("joint",)), device, console)
        self.known = Known(config, self.data, self.names[self.train], device, console)
        self.augment = config.augment
        self.place = np.zeros(len(self.names), np.int64)  # of each clip among those that train
        self.place[self.train] = np.arange(len(self.train))
        self.train = self.train[self.known.here]
        self.steps = max(len(self.train) * config.repeat // config.batch, 1)

    def epoch(self, number: int, ranks: Ranks) -> Iterator[tuple[Any, ...]]:
        """Batches of an epoch; this rank's rows of each."""
        part = ranks.part(self.config.batch)
        for step, picked in self.picked(number):
            if self.augment:
                x = self.views(picked, number, step)[part]
            else:
                x = self.feeder.test(torch.from_numpy(picked[part]).to(self.device))
            yield x, self.known.of(self.place[picked[part]])


class LiveKnowledge(LiveBatches):
    """Live windows of units of which something is known; a mirrored one with what is said of the mirrored unit.

    A window has its unit in sight, or as much of it as it holds, since what is said is said of all of it.
    """

    def __init__(self, config: LiveTold, device: torch.device, console: Console) -> None:
        super().__init__(config, device, console)
        self.known = Known(config, self.data, self.pool.names(), device, console)
        if self.known.made.get("pool") != self.pool.digest():
            raise UsageError(f"{config.knowledge} is of other clips; make it with these --data, --held-out and --fps")
        both = self.known.here.reshape(2, -1).all(axis=0)
        self.known.clips, self.known.unknown = int(both.sum()), int((~both).sum())  # units, whichever way they face
        self.chances = weights(self.pool, parse_shares(config.share), labels=False, known=both)

    def epoch(self, number: int, ranks: Ranks) -> Iterator[tuple[Any, ...]]:
        """Batches of an epoch; this rank's rows of each."""
        part, config = ranks.part(self.config.batch), self.config
        for picked, rng in self.picked(number):
            joints, flips, _ = views(self.pool, picked, self.frames, rng, config.strength, whole=True)
            yield self.inputs(joints[part]), self.known.of((picked + flips * len(self.pool.units))[part])
