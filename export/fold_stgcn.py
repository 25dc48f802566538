"""ST-GCN as it is deployed: adjacency times edge weights as one constant, every batch norm in the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.fold_parts import Input, conv_norm
from train.stgcn import STGCN, Block


class FoldedBlock(nn.Module):
    """One block: a matrix product over the joints, a 1x1 convolution, the temporal one, and the residual."""

    graph: Tensor

    def __init__(self, trained: Block) -> None:
        super().__init__()
        space = trained.space
        joints = space.graph.shape[-1]
        self.register_buffer("graph", (space.graph * space.importance).detach().reshape(3 * joints, joints))
        self.mix = conv_norm(space.mix, space.norm)
        first, norm = trained.time
        assert isinstance(first, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        self.time = conv_norm(first, norm)
        self.residual = residual(trained.residual)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, V, T)
        mixed = (self.graph @ x).reshape(-1, self.mix.in_channels, *x.shape[2:])  # a channel's three mixes together
        y = self.time(torch.relu(self.mix(mixed)))
        return torch.relu(y if self.residual is None else y + self.residual(x))


def residual(trained: nn.Module | None) -> nn.Module | None:
    """A residual of the trained network, its batch norm folded."""
    if not isinstance(trained, nn.Sequential):
        return trained
    first, norm = trained
    assert isinstance(first, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return conv_norm(first, norm)


def fold_stgcn(trained: STGCN, channels: int, bodies: int, taken: int) -> nn.Sequential:
    """Windows (N, C, T, V) or (N, C, T, V, M) to feature maps (N*M, F, V, T/4)."""
    blocks = [FoldedBlock(block) for block in trained.blocks if isinstance(block, Block)]
    return nn.Sequential(Input(trained.input.norm, channels, bodies, taken, joints_first=True), *blocks)
