"""The backbones by name, and what one costs."""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from realtime.errors import UsageError
from realtime.skeleton import Layout
from train.ctrgcn import CTRGCN
from train.graphnet import GraphNet
from train.stgcn import STGCN

BACKBONES = ("stgcn", "stgcn-edge", "ctrgcn", "ctrgcn-edge", "graphnet")
EDGE_BASE = 32  # half of the papers' width


def build(name: str, layout: Layout, channels: int, bodies: int) -> nn.Module:
    """A new backbone: clips (N, C, T, V, M) to feature maps (N, M, F, T', V); F is its attribute `width`.

    UsageError names the backbones where there is none of this name.
    """
    if name == "stgcn":
        return STGCN(layout, channels, bodies)
    if name == "stgcn-edge":
        return STGCN(layout, channels, bodies, EDGE_BASE)
    if name == "ctrgcn":
        return CTRGCN(layout, channels, bodies)
    if name == "ctrgcn-edge":
        return CTRGCN(layout, channels, bodies, EDGE_BASE)
    if name == "graphnet":
        return GraphNet(layout, channels, bodies)
    raise UsageError(f"backbone must be one of {', '.join(BACKBONES)}, got {name!r}")


def macs(network: nn.Module, x: Tensor) -> int:
    """Multiply-accumulates of the convolutions and matrix products of one call of the network on x."""
    with FlopCounterMode(display=False) as counter:
        network(x)
    return int(counter.get_total_flops() // 2)
