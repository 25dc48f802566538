"""The compact graph network as it is deployed: every batch norm in the weights, frames innermost."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.fold_parts import Input, conv, conv_norm, scale_shift
from train.graphnet import Block, GraphConv, GraphNet, TemporalConv


class FoldedGraphConv(nn.Module):
    """Channels by a 1x1 convolution, then joints by a constant adjacency per group: (N, C, V, T) to (N, C', V, T)."""

    graph: Tensor
    shift: Tensor

    def __init__(self, trained: GraphConv) -> None:
        super().__init__()
        scale, shift = scale_shift(trained.norm)
        self.spread = conv(trained.spread.weight.double() * scale.view(-1, 1, 1, 1), torch.zeros_like(shift))
        self.register_buffer("graph", trained.adjacency.detach().unsqueeze(1).contiguous())  # (G, 1, V, V)
        self.register_buffer("shift", shift.detach().float().view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.spread(x)
        channels, v, t = y.shape[1:]
        groups = len(self.graph)
        mixed = self.graph @ y.reshape(-1, groups, channels // groups, v, t)
        return mixed.reshape(-1, channels, v, t) + self.shift


class FoldedTemporalConv(nn.Module):
    """Four branches of a quarter of the channels, as `TemporalConv`, batch norms folded."""

    end_scale: Tensor
    end_shift: Tensor

    def __init__(self, trained: TemporalConv) -> None:
        super().__init__()
        first, norm, _ = trained.reduce
        self.reduce = conv_norm(first, norm)  # type: ignore[arg-type]
        self.stride = trained.near.stride[0]
        quarter = trained.near.out_channels
        scale, shift = scale_shift(trained.norm)
        by = scale.view(-1, 1, 1, 1)
        self.near = conv(trained.near.weight.double().mT * by[:quarter], shift[:quarter], self.stride)
        halves = slice(quarter, 2 * quarter)
        self.far = conv(trained.far.weight.double().mT * by[halves], shift[halves], self.stride, 2)
        self.register_buffer("end_scale", scale[2 * quarter :].detach().float().view(-1, 1, 1))
        self.register_buffer("end_shift", shift[2 * quarter :].detach().float().view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        near, far, pool, skip = torch.relu(self.reduce(x)).chunk(4, dim=1)
        pool = functional.max_pool2d(pool, (1, 3), (1, self.stride), (0, 1))
        ends = torch.cat([pool, skip[..., :: self.stride]], dim=1) * self.end_scale + self.end_shift
        return torch.cat([self.near(near), self.far(far), ends], dim=1)


class FoldedBlock(nn.Module):
    """Graph convolution, temporal convolution and the residual around both."""

    def __init__(self, trained: Block) -> None:
        super().__init__()
        self.space, self.time = FoldedGraphConv(trained.graph), FoldedTemporalConv(trained.time)
        self.residual: nn.Module = nn.Identity()
        if isinstance(trained.residual, nn.Sequential):
            self.residual = conv_norm(*trained.residual, turned=True)  # type: ignore[misc]

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.time(torch.relu(self.space(x))) + self.residual(x))


def fold_graphnet(trained: GraphNet, channels: int, bodies: int, taken: int) -> nn.Sequential:
    """Windows (N, C, T, V) or (N, C, T, V, M) to feature maps (N*M, F, V, T')."""
    first, norm, _ = trained.stem
    stem = conv_norm(first, norm, turned=True)  # type: ignore[arg-type]
    blocks = [FoldedBlock(block) for block in trained.blocks if isinstance(block, Block)]
    read = Input(trained.input_norm, channels, bodies, taken, joints_first=False)
    return nn.Sequential(read, stem, nn.ReLU(), *blocks)
