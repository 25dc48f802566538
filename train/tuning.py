"""What a pre-trained backbone is worth: a classifier on it, the whole network tuned, or its nearest neighbours.

The C²VL paper names its protocols and gives none of their settings; `RECIPES` holds those of the public code that it
compares itself with, AimCLR (Guo et al., AAAI 2022) and CMD (Mao et al., ECCV 2022), and where neither fits our own.
N clips, C channels, T frames, V joints, M bodies, F backbone width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from realtime.errors import LineError, UsageError
from train.batches import PreparedBatches
from train.loss import cosines
from train.model import Recogniser

MOMENTUM = 0.9
SPREAD = 0.01  # standard deviation of a new classifier's weights, as in AimCLR
LOOKED_AT = 256  # clips at once


@dataclass(frozen=True)
class Recipe:
    """How labels are learned from: SGD with momentum whose rate falls to a tenth after shares of the epochs.

    encoder: the backbone's rate as a share of lr; 0 leaves it as it is and in eval mode. still: all norms keep their
    statistics while the network is tuned. augment: clips are cropped and turned at random, else seen as tested.
    """

    lr: float
    epochs: int
    batch: int
    falls: tuple[float, ...]
    weight_decay: float = 0.0
    encoder: float = 0.0
    still: bool = False
    augment: bool = False


_CMD = (50 / 80, 70 / 80)
# (protocol, name) -> recipe; the first of a protocol is its usual one.
RECIPES: dict[tuple[str, str], Recipe] = {
    ("linear", "aimclr"): Recipe(3.0, 100, 128, (0.8,)),
    ("linear", "cmd"): Recipe(0.1, 80, 64, _CMD, augment=True),
    ("finetune", "ours"): Recipe(0.05, 100, 128, (0.6, 0.8), 5e-4, encoder=0.2, augment=True),
    ("finetune", "aimclr"): Recipe(0.01, 100, 128, (0.8,), encoder=1.0, still=True),
    ("semi", "cmd"): Recipe(0.01, 80, 64, _CMD, encoder=1.0, augment=True),
    ("transfer", "cmd"): Recipe(0.01, 80, 64, _CMD, encoder=1.0, augment=True),
}


@dataclass(frozen=True)
class ClipSettings:
    """Which clips, and how they are seen, as `PreparedBatches` takes it."""

    prepared: Path
    split: str
    streams: tuple[str, ...]
    window: int
    backbone: str
    batch: int = 1
    repeat: int = 1
    seed: int = 0
    validation: float = 0.0
    resume: bool = False


def clips_of(
    settings: ClipSettings, layout: str, bodies: int, device: torch.device, console: Console
) -> PreparedBatches:
    """A prepared set's clips on the device; UsageError where its skeletons are not those that the backbone knows."""
    clips = PreparedBatches(settings, device, console)
    if (clips.layout.name, clips.bodies) != (layout, bodies):
        raise UsageError(
            f"{settings.prepared} has {clips.bodies} bodies in {clips.layout.name}, the run was trained on {bodies} in "
            f"{layout}; name a set of the same skeletons"
        )
    return clips


def subset(train: np.ndarray, share: float, seed: int, draw: int) -> np.ndarray:
    """A random share of training clips, whatever their classes; the same for the same seed, share and draw."""
    rng = np.random.default_rng([seed, round(share * 1_000_000), draw])
    return np.sort(rng.permutation(train)[: max(round(share * len(train)), 1)])


@torch.no_grad()
def features(backbone: nn.Module, clips: PreparedBatches, numbers: np.ndarray) -> Tensor:
    """Pooled features (N, F) of clips by number as they are tested, in eval mode."""
    backbone.eval()
    return torch.cat([backbone(x).mean(dim=(1, 3, 4)).float() for x in clips.inputs(numbers)])


@torch.inference_mode()
def nearest(known: Tensor, labels: Tensor, asked: Tensor, classes: int) -> Tensor:
    """For each of asked (N, F) and each class the cosine of its nearest among known (R, F): (N, K), -1 without any.

    The highest is the class of the one nearest neighbour.
    """
    known, found = nn.functional.normalize(known, dim=1), []
    index = labels.to(known.device)
    for part in nn.functional.normalize(asked, dim=1).split(LOOKED_AT):
        empty = torch.full((len(part), classes), -1.0, device=part.device)
        found.append(empty.scatter_reduce(1, index.expand(len(part), -1), cosines(part, known), "amax"))
    return torch.cat(found)


@torch.inference_mode()
def answers(network: Recogniser, clips: PreparedBatches, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, K) and unit features (N, F) of clips as they are tested."""
    network.eval()
    found = [network(x) for x in clips.inputs(numbers)]
    logits, feature = (torch.cat(parts).float().cpu().numpy() for parts in zip(*found, strict=True))
    return logits, feature


def classifier(backbone: nn.Module, classes: int, seed: int) -> Recogniser:
    """A new linear classifier on a backbone."""
    network = Recogniser(backbone, classes)
    with torch.no_grad():
        network.head.weight.normal_(0, SPREAD, generator=torch.Generator().manual_seed(seed))
        network.head.bias.zero_()
    return network


def tune(
    network: Recogniser, clips: PreparedBatches, numbers: np.ndarray, recipe: Recipe, seed: int,
    after: Callable[[int], None] = lambda epoch: None,
) -> None:  # fmt: skip
    """Trains the classifier, and with recipe.encoder the backbone, on the labels of clips by number.

    after: called with the number of epochs done, after each. LineError where the loss is no longer finite.
    """
    network.backbone.requires_grad_(bool(recipe.encoder))
    groups = [{"params": [*network.head.parameters()], "peak": recipe.lr}]
    if recipe.encoder:
        groups.append({"params": [*network.backbone.parameters()], "peak": recipe.lr * recipe.encoder})
    optimiser = torch.optim.SGD(groups, recipe.lr, MOMENTUM, weight_decay=recipe.weight_decay)
    seen = _seen(network, clips, numbers, recipe, seed)
    labels = torch.from_numpy(clips.labels[numbers]).to(clips.device)
    for epoch in range(recipe.epochs):
        network.train(bool(recipe.encoder) and not recipe.still)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * 0.1 ** sum(epoch >= fall * recipe.epochs for fall in recipe.falls)
        order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(numbers))).to(clips.device)
        for step, picked in enumerate(order.split(recipe.batch)):
            loss = nn.functional.cross_entropy(network.head(seen(picked, epoch, step)).float(), labels[picked])
            if not torch.isfinite(loss):
                raise LineError(f"loss is {loss.item()} at epoch {epoch + 1}; choose a lower --lr (now {recipe.lr})")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        after(epoch + 1)


def _seen(
    network: Recogniser, clips: PreparedBatches, numbers: np.ndarray, recipe: Recipe, seed: int
) -> Callable[[Tensor, int, int], Tensor]:
    """What gives the features (n, F) of some of the clips, by their place among numbers, at an epoch and step."""
    if not recipe.encoder and not recipe.augment:  # they never change
        known = features(network.backbone, clips, numbers)
        return lambda picked, epoch, step: known[picked]
    every = torch.from_numpy(numbers).to(clips.device)

    def seen(picked: Tensor, epoch: int, step: int) -> Tensor:
        if recipe.augment:
            generator = torch.Generator(clips.device).manual_seed((seed * 10_007 + epoch) * 1_000_003 + step)
            x = clips.feeder.train(every[picked], generator)
        else:
            x = clips.feeder.test(every[picked])
        with torch.set_grad_enabled(bool(recipe.encoder)):
            return network.feature_map(x).mean(dim=(2, 3))

    return seen
