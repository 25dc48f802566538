"""ST-GCN (Yan et al., AAAI 2018) as its authors publish it, with our weights: what the folded one is measured against.

Channels grow before the joints are mixed, by einsum; frames and joints are (T, V); every batch norm is one of its own.
N batch with bodies folded in, C channels, T frames, V joints, M bodies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scripts.plain_ctrgcn import PlainNetwork, fill, like, strided
from train.stgcn import SPAN, STGCN, Block, GraphConv


class PlainSpace(nn.Module):
    """A 1x1 convolution to three subsets, then one einsum over subsets and joints; weights copied from ours."""

    graph: Tensor

    def __init__(self, ours: GraphConv) -> None:
        super().__init__()
        subsets, channels = len(ours.graph), ours.norm.num_features
        self.conv = nn.Conv2d(ours.mix.in_channels // subsets, subsets * channels, 1, bias=False)
        fill(self.conv, ours.mix.weight.unflatten(1, (-1, subsets)).permute(2, 0, 1, 3, 4))
        self.register_buffer("graph", ours.graph.mT.clone())  # (3, V giving, V taking)
        self.importance = nn.Parameter(ours.importance.detach().mT.clone())
        self.norm = like(ours.norm)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, T, V)
        spread = self.conv(x).unflatten(1, (len(self.graph), -1))  # (N, 3, C', T, V)
        return self.norm(torch.einsum("nkctv,kvw->nctw", spread, self.graph * self.importance))


class PlainBlock(nn.Module):
    """One block; weights copied from ours."""

    def __init__(self, ours: Block) -> None:
        super().__init__()
        first, norm = ours.time
        assert isinstance(first, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        self.space = PlainSpace(ours.space)
        size = first.out_channels
        self.time = nn.Conv2d(size, size, (SPAN, 1), (first.stride[1], 1), (SPAN // 2, 0), bias=False)
        fill(self.time, first.weight.mT)
        self.norm = like(norm)
        self.residual = strided(ours.residual) if isinstance(ours.residual, nn.Sequential) else ours.residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.time(torch.relu(self.space(x))))
        return torch.relu(y if self.residual is None else y + self.residual(x))


class PlainSTGCN(PlainNetwork):
    """ST-GCN as published, with our weights: clips (N, C, T, V, M) to feature maps (N, M, F, T/4, V)."""

    def __init__(self, ours: STGCN) -> None:
        super().__init__(ours.input.norm, [PlainBlock(block) for block in ours.blocks if isinstance(block, Block)])
