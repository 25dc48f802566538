"""The compact graph network as it is deployed: every batch norm in the weights.

Tensors are (N, C, T, V), joints innermost, so that mixing the joints is one matrix product over many rows a group. As
in CTR-GCN's folded form, each block changes once from rows to blocks of channels and once back. N batch with bodies
folded in, C channels, T frames, V joints, G groups.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.fold_parts import Input, conv, conv_norm, scale_shift
from train.graphnet import Block, GraphConv, GraphNet, TemporalConv


class FoldedGraphConv(nn.Module):
    """Channels, then joints by a constant adjacency per group, and the ReLU: (N, C, T, V) to (N, C', T, V).

    Lower by `shift` (C',), as CTR-GCN's: relu(y + shift) - shift is max(y, -shift).
    """

    spread: Tensor
    graph: Tensor
    least: Tensor

    def __init__(self, trained: GraphConv) -> None:
        super().__init__()
        scale, shift = scale_shift(trained.norm)
        weight = trained.spread.weight.detach().double().flatten(1) * scale.view(-1, 1)
        self.register_buffer("spread", weight.float())  # (C', C)
        self.register_buffer("graph", trained.adjacency.detach().mT.contiguous())  # (G, V giving, V taking)
        self.register_buffer("least", -shift.detach().float().view(-1, 1, 1))
        self.shift = shift.detach()

    def forward(self, x: Tensor) -> Tensor:
        c, t, v = x.shape[1:]
        channels, groups = len(self.spread), len(self.graph)
        y = self.spread @ x.reshape(-1, c, t * v)
        mixed = y.reshape(-1, groups, channels // groups * t, v) @ self.graph
        return torch.maximum(mixed.reshape(-1, channels, t, v), self.least)


class FoldedTemporalConv(nn.Module):
    """Four branches of a quarter of the channels, as `TemporalConv`, batch norms and the input's shift folded."""

    def __init__(self, trained: TemporalConv, lacking: Tensor) -> None:
        """lacking: (C,) what each channel of the input is too low by."""
        super().__init__()
        first, norm, _ = trained.reduce
        assert isinstance(first, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        self.stride = trained.near.stride[0]
        quarter = trained.near.out_channels
        scale, shift = scale_shift(norm)
        weight = first.weight.detach().double() * scale.view(-1, 1, 1, 1)
        pairs = zip(weight.split(quarter), (shift + weight.flatten(1) @ lacking).split(quarter), strict=True)
        near, far, pool, skip = (conv(*pair, frames_last=False) for pair in pairs)
        skip.stride = (self.stride, 1)
        self.to_near, self.to_far, self.to_pool, self.to_skip = near, far, pool, skip
        scales, shifts = (value.split(quarter) for value in scale_shift(trained.norm))
        by = [value.view(-1, 1, 1, 1) for value in scales]
        near_weight, far_weight = trained.near.weight.double().mT * by[0], trained.far.weight.double().mT * by[1]
        self.near = conv(near_weight, shifts[0], self.stride, frames_last=False)
        self.far = conv(far_weight, shifts[1], self.stride, 2, frames_last=False)
        self.after_pool = conv(by[2], shifts[2], groups=quarter)
        self.after_skip = conv(by[3], shifts[3], groups=quarter)

    def forward(self, x: Tensor) -> Tensor:
        near, far, pool = (torch.relu(reduce(x)) for reduce in (self.to_near, self.to_far, self.to_pool))
        pool = self.after_pool(functional.max_pool2d(pool, (3, 1), (self.stride, 1), (1, 0)))
        return torch.cat([self.near(near), self.far(far), pool, self.after_skip(torch.relu(self.to_skip(x)))], dim=1)


class FoldedBlock(nn.Module):
    """Graph convolution, temporal convolution and the residual around both."""

    def __init__(self, trained: Block) -> None:
        super().__init__()
        self.space = FoldedGraphConv(trained.graph)
        self.time = FoldedTemporalConv(trained.time, self.space.shift)
        self.residual: nn.Module = nn.Identity()
        if isinstance(trained.residual, nn.Sequential):
            first, norm = trained.residual
            assert isinstance(first, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            self.residual = conv_norm(first, norm, frames_last=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.time(self.space(x)) + self.residual(x))


class Turned(nn.Module):
    """Maps with their last two axes exchanged."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(2, 3)


def fold_graphnet(trained: GraphNet, channels: int, bodies: int, taken: int) -> nn.Sequential:
    """Windows (N, C, T, V) or (N, C, T, V, M) to feature maps (N*M, F, V, T')."""
    first, norm, _ = trained.stem
    assert isinstance(first, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    stem = conv_norm(first, norm, frames_last=False)
    blocks = [FoldedBlock(block) for block in trained.blocks if isinstance(block, Block)]
    read = Input(trained.input_norm, channels, bodies, taken, joints_first=False)
    return nn.Sequential(read, Turned(), stem, nn.ReLU(), *blocks, Turned())
