"""Checkpoints as `load_network` gives them, without training: statistics and weights where nothing is zero or one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from realtime.skeleton import CORE_16, Layout
from train.backbones import build
from train.compose import Trained, places_of
from train.graphnet import GraphNet
from train.interaction import Interaction
from train.model import Recogniser

CHANNELS, WINDOW, CLASSES, WIDTH = 9, 64, 7, 48


def small_graphnet(bodies: int = 1, seed: int = 0) -> Trained:
    """A network that exports in seconds."""
    torch.manual_seed(seed)
    return trained_like(GraphNet(CORE_16, CHANNELS, bodies, (16, 16, 32), 4), "graphnet", bodies, seed=seed)


def trained_like(
    backbone: nn.Module | str, name: str = "", bodies: int = 1, layout: Layout = CORE_16, texts: bool = True,
    channels: int = CHANNELS, frames: int = WINDOW, seed: int = 0,
) -> Trained:  # fmt: skip
    """A checkpoint of this backbone (or of the one of this name) that could have been trained."""
    torch.manual_seed(seed)
    if isinstance(backbone, str):
        backbone, name = build(backbone, layout, channels, bodies), backbone
    network = Recogniser(backbone, CLASSES, WIDTH if texts else None)
    shake(network)
    centre(network, clips(24, layout, bodies if bodies > 1 else None, channels, frames, seed))
    model = {
        "layout": layout.name, "backbone": name, "channels": channels, "bodies": bodies, "window": frames,
        "classes": [f"action {number}" for number in range(CLASSES)],
    }  # fmt: skip
    if not texts:
        return Trained(network.eval(), {"model": model}, None, 1.0)
    places = places_of(network, channels, frames, len(layout), bodies)
    interaction = Interaction(*places, WIDTH)
    shake(interaction, gates=0.5)
    text = nn.functional.normalize(torch.randn(CLASSES, WIDTH), dim=1)
    return Trained(network.eval(), {"model": model}, text, 11.0, interaction.eval(), 7.0)


@torch.no_grad()
def shake(network: nn.Module, gates: float = 0.0) -> None:
    """Every parameter away from its start, where zeros and ones hide mistakes; weights keep their size."""
    for name, value in network.named_parameters():
        if value.ndim < 2 or name.endswith(("importance", "topology", "place")):
            value.add_(0.3 * torch.randn_like(value))
        if name.endswith(("strength", "gate")):
            value.add_(max(gates, 0.5))


@torch.no_grad()
def centre(network: Recogniser, x: Tensor) -> None:
    """Statistics of these windows (N, C, T, V[, M]), and heads that tell them apart, as training ends with.

    Without it all windows are of one class, which no loss of precision would change.
    """
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # the mean of all batches
    for batch in x.split(8):
        network.train()(batch)
    pooled = network.eval().feature_map(x).mean(dim=(2, 3))
    for head in (network.head, network.project):
        if head is not None:
            values = head(pooled)
            head.weight.div_(values.std(dim=0)[:, None])
            head.bias.copy_(-head.weight @ pooled.mean(dim=0))


def clips(
    count: int, layout: Layout = CORE_16, bodies: int | None = None, channels: int = CHANNELS, frames: int = WINDOW,
    seed: int = 0,
) -> Tensor:  # fmt: skip
    """Windows (N, C, T, V), or (N, C, T, V, M) where bodies are said: postures that swing, each its own way."""
    rng = np.random.default_rng(seed)
    joints = (len(layout), *([] if bodies is None else [bodies]))
    time = np.linspace(0, 2 * np.pi, frames).reshape(1, 1, -1, *(1 for _ in joints))
    posture, swing, phase = (
        rng.normal(mean, by, (count, channels, 1, *joints)) for mean, by in ((0.2, 0.4), (0, 0.4), (0, 3))
    )
    pace = rng.uniform(0.5, 6, (count, *(1 for _ in time.shape[1:])))
    values = posture + swing * np.sin(pace * time + phase) + rng.normal(0, 0.1, (count, channels, frames, *joints))
    return torch.from_numpy(values.astype(np.float32))
