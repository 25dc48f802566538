"""What every training run shares: an optimiser over named groups, one epoch's loop, state that resumes exactly.

`train.trainer` (recognisers) and `train.pretrain` (C²VL) fill in what is learned and from which batches.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from realtime.errors import LineError
from train import checkpoint
from train.device import autocast
from train.distributed import Ranks

CLIP = 5.0  # largest norm of a step's gradient
FALLS = ((9, 11), (10, 11))  # shares of a run after which a schedule by steps falls to a tenth


class Settings(Protocol):
    """The settings that a loop reads; a frozen dataclass has more."""

    @property
    def out(self) -> Path: ...
    @property
    def resume(self) -> bool: ...
    @property
    def epochs(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def lr(self) -> float: ...
    @property
    def schedule(self) -> str: ...
    @property
    def warm_up(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def precision(self) -> str: ...


class Batches(Protocol):
    """Where a run's batches come from: what its network takes, on the device, this rank's rows of each."""

    @property
    def steps(self) -> int: ...
    def epoch(self, number: int, ranks: Ranks) -> Iterator[tuple[Any, ...]]: ...


class Losses(Protocol):
    """The loss to descend, and its parts for the log."""

    total: Tensor
    parts: dict[str, Tensor]


def rate(config: Settings, step: int, steps: int, falls: tuple[tuple[int, int], ...] = FALLS) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then a cosine to zero or steps down to a tenth."""
    warm = config.warm_up * steps // config.epochs
    if step < warm:
        return (step + 1) / warm
    if config.schedule == "step":
        return 0.1 ** sum(step >= part * steps / whole for part, whole in falls)
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


def plain(config: Any) -> dict[str, Any]:
    """The settings as JSON holds them."""
    return json.loads(json.dumps(asdict(config), default=str))


class Learner:
    """A run in progress. `network` learns; `whole` is the same, or DistributedDataParallel around it.

    A subclass says with `peak` how fast a parameter learns, and may add to `begin`, `stepped` and `seen`. `model` is
    what its checkpoints say of the network beside its weights.
    """

    falls = FALLS
    config: Any  # a frozen dataclass that keeps to `Settings`
    batches: Any  # keeps to `Batches`

    def __init__(
        self, config: Settings, batches: Batches, device: torch.device, ranks: Ranks, network: nn.Module,
        model: dict[str, Any], idle: bool = False,
    ) -> None:  # fmt: skip
        """idle: parameters that a step, or the whole run, does not use."""
        self.config, self.batches, self.device, self.ranks, self.model = config, batches, device, ranks, model
        if ranks.world > 1 and device.type == "cuda":  # statistics of the global batch; there is none for the CPU
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        self.network = network
        self.names, self.optimiser = self._optimiser()
        self.whole: nn.Module = network
        if ranks.world > 1:
            self.whole = DistributedDataParallel(network, find_unused_parameters=idle)
        self.autocast = autocast(config.precision, device)
        self.done = 0
        self.row: dict[str, float] = {}

    def peak(self, name: str, parameter: nn.Parameter) -> tuple[float, float]:
        """Peak learning rate and weight decay of a parameter."""
        raise NotImplementedError

    def begin(self, number: int) -> None:
        """Before an epoch."""

    def stepped(self) -> None:
        """After a step of the optimiser."""

    def seen(self, losses: Any, given: tuple[Any, ...]) -> dict[str, Tensor]:
        """What else of a step is averaged over its epoch; `given` is the batch."""
        return {}

    def _optimiser(self) -> tuple[list[str], torch.optim.SGD]:
        """SGD over groups, each with its own peak rate that the schedule scales; and the parameters' names in order."""
        groups: dict[tuple[float, float], list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(self.peak(name, parameter), []).append((name, parameter))
        named = [pair for pairs in groups.values() for pair in pairs]
        made = [
            {"params": [p for _, p in pairs], "weight_decay": decay, "peak": peak}
            for (peak, decay), pairs in groups.items()
        ]
        return [name for name, _ in named], torch.optim.SGD(made, lr=self.config.lr, momentum=0.9, nesterov=True)

    def epoch(self, number: int) -> Iterator[int]:
        """Trains one epoch; yields after each step. Afterwards `row` holds its means."""
        config, steps = self.config, self.batches.steps
        torch.manual_seed((config.seed * 100_003 + number) * 1009 + self.ranks.rank)
        self.whole.train()
        self.begin(number)
        sums: dict[str, Tensor] = {}
        for step, given in enumerate(self.batches.epoch(number, self.ranks)):
            share = rate(config, number * steps + step, config.epochs * steps, self.falls)
            for group in self.optimiser.param_groups:
                group["lr"] = group["peak"] * share
            with self.autocast:
                losses = self.whole(*given)
            self._descend(losses, f"epoch {number + 1}, batch {step + 1} of {steps}", number)
            self.stepped()
            row = {"loss": losses.total, **self.seen(losses, given)}
            for name, value in (row | {f"loss/{k}": v for k, v in losses.parts.items()}).items():
                sums[name] = sums.get(name, 0) + value.detach()
            yield step
        self.done = number + 1
        self.row = {name: float(value) / steps for name, value in sums.items()}

    def _descend(self, losses: Losses, where: str, number: int) -> None:
        """One step down; LineError where the loss or its gradient is not finite."""
        self.optimiser.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        if not torch.isfinite(losses.total + norm):
            before = "; last.safetensors holds the epoch before" if number else ""
            raise LineError(
                f"loss is {losses.total.item()}, gradient {norm.item()} at {where}{before}; "
                f"start anew in another --out with a lower --lr (now {self.config.lr})"
            )
        self.optimiser.step()

    def state(self) -> dict[str, Tensor]:
        """Everything that an exact resume needs."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        return tensors | checkpoint.optimiser_tensors(self.optimiser, self.names)

    def restore(self, tensors: dict[str, Tensor], content: dict[str, Any]) -> None:
        """Takes up where `state` was saved."""
        self.network.load_state_dict(under(tensors, "network."))
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        for name, parameter in zip(self.names, parameters, strict=True):
            if f"momentum.{name}" in tensors:
                self.optimiser.state[parameter]["momentum_buffer"] = tensors[f"momentum.{name}"].to(self.device)
        self.done = content["epochs_done"]

    def save(self, name: str) -> None:
        """Writes NAME.safetensors into the run folder."""
        content = {"model": self.model, "epochs_done": self.done, "config": plain(self.config)}
        checkpoint.save(self.config.out / name, self.state(), content)


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, without it."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
