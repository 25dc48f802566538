"""CTR-GCN (Chen et al., ICCV 2021) as the paper reads, with our weights: what ours is measured against.

A convolution for every subset and branch, every frame projected before the mean is taken, joints mixed by einsum.
N batch with bodies folded in, C channels, T frames, V joints, M bodies, R channels of a relation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from train.ctrgcn import CTRGCN, SUBSETS, Block, GraphConv, TemporalConv


class PlainSubset(nn.Module):
    """The refined graph convolution of one subset, as equations 3 to 6 of CTR-GCN read."""

    def __init__(self, channels_in: int, channels_out: int, rank: int) -> None:
        super().__init__()
        self.taker = nn.Conv2d(channels_in, rank, 1)
        self.giver = nn.Conv2d(channels_in, rank, 1)
        self.lift = nn.Conv2d(rank, channels_out, 1)
        self.transform = nn.Conv2d(channels_in, channels_out, 1, bias=False)

    def forward(self, x: Tensor, topology: Tensor, strength: Tensor) -> Tensor:  # (N, C, T, V)
        taker, giver = self.taker(x).mean(dim=2), self.giver(x).mean(dim=2)  # (N, R, V)
        relation = torch.tanh(taker.unsqueeze(3) - giver.unsqueeze(2))  # (N, R, V, V)
        refined = self.lift(relation) * strength + topology  # (N, C', V, V)
        return torch.einsum("ncuv,nctv->nctu", refined, self.transform(x))


class PlainSpace(nn.Module):
    """The three subsets one after another; weights copied from ours."""

    def __init__(self, ours: GraphConv) -> None:
        super().__init__()
        channels_in, channels_out = ours.transform.in_channels, ours.norm.num_features
        rank = ours.relate.out_channels // (2 * SUBSETS)
        subsets = [PlainSubset(channels_in, channels_out, rank) for _ in range(SUBSETS)]
        self.topology = nn.Parameter(ours.topology.detach().clone())
        self.strength = nn.Parameter(ours.strength.detach().clone())
        self.norm = like(ours.norm)
        self.residual = strided(ours.residual) if isinstance(ours.residual, nn.Sequential) else nn.Identity()
        relate = _pairs(ours.relate, lambda w: w.unflatten(0, (2, SUBSETS, rank)))  # taker or giver, subset, rank
        lift = _pairs(ours.lift, lambda w: w.unflatten(0, (SUBSETS, channels_out)))
        transform = ours.transform.weight.unflatten(0, (channels_out, SUBSETS))
        for k, subset in enumerate(subsets):
            for side, conv in enumerate((subset.taker, subset.giver)):
                fill(conv, relate[0][side, k], relate[1][side, k])
            fill(subset.lift, lift[0][k], lift[1][k])
            fill(subset.transform, transform[:, k])
        self.subsets = nn.ModuleList(subsets)

    def forward(self, x: Tensor) -> Tensor:
        mixed = [subset(x, self.topology[k], self.strength) for k, subset in enumerate(self.subsets)]
        return torch.relu(self.norm(mixed[0] + mixed[1] + mixed[2]) + self.residual(x))


class PlainTime(nn.Module):
    """The four temporal branches one after another; weights copied from ours."""

    def __init__(self, ours: TemporalConv) -> None:
        super().__init__()
        quarter, stride = ours.quarter, (ours.stride, 1)
        parts = [slice(i * quarter, (i + 1) * quarter) for i in range(4)]
        near = nn.Conv2d(quarter, quarter, (5, 1), stride, (2, 0), bias=False)
        far = nn.Conv2d(quarter, quarter, (5, 1), stride, (4, 0), (2, 1), bias=False)
        fill(near, ours.near.weight.mT)
        fill(far, ours.far.weight.mT)
        ends = (near, far, nn.MaxPool2d((3, 1), stride, (1, 0)))
        branches = []
        for part, end in zip(parts, ends, strict=False):
            reduce = nn.Conv2d(4 * quarter, quarter, 1, bias=False)
            fill(reduce, ours.reduce.weight[part])
            branches.append(nn.Sequential(reduce, like(ours.reduced, part), nn.ReLU(), end, like(ours.norm, part)))
        plain = nn.Conv2d(4 * quarter, quarter, 1, stride, bias=False)
        fill(plain, ours.reduce.weight[parts[3]])
        self.branches = nn.ModuleList([*branches, nn.Sequential(plain, like(ours.norm, parts[3]))])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class PlainBlock(nn.Module):
    """One block; weights copied from ours."""

    def __init__(self, ours: Block) -> None:
        super().__init__()
        self.space, self.time = PlainSpace(ours.space), PlainTime(ours.time)
        self.residual = strided(ours.residual) if isinstance(ours.residual, nn.Sequential) else ours.residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.time(self.space(x))
        return torch.relu(y if self.residual is None else y + self.residual(x))


class PlainNetwork(nn.Module):
    """Blocks behind the input's norm, as ours has it: clips (N, C, T, V, M) to feature maps (N, M, F, T', V)."""

    def __init__(self, norm: nn.BatchNorm1d, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(norm.num_features)
        self.norm.load_state_dict(norm.state_dict())
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, v, m = x.shape
        x = self.norm(x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t)).view(n, m, v, c, t)
        return self.blocks(x.permute(0, 1, 3, 4, 2).reshape(n * m, c, t, v)).unflatten(0, (n, m))


class PlainCTRGCN(PlainNetwork):
    """CTR-GCN as the paper reads, with our weights."""

    def __init__(self, ours: CTRGCN) -> None:
        super().__init__(ours.input.norm, [PlainBlock(block) for block in ours.blocks if isinstance(block, Block)])


def _pairs(conv: nn.Conv1d, shape: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    assert conv.bias is not None
    return shape(conv.weight), shape(conv.bias)


def fill(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None = None) -> None:
    """Copies a weight of any shape of as many numbers, and a bias."""
    with torch.no_grad():
        conv.weight.copy_(weight.reshape(conv.weight.shape))
        if bias is not None and conv.bias is not None:
            conv.bias.copy_(bias)


def like(norm: nn.BatchNorm2d, part: slice = slice(None)) -> nn.BatchNorm2d:
    """A batch norm of a part of another's channels, with its numbers."""
    state = {name: value[part] if value.dim() else value for name, value in norm.state_dict().items()}
    new = nn.BatchNorm2d(len(state["weight"]))
    new.load_state_dict(state)
    return new


def strided(ours: nn.Sequential) -> nn.Sequential:
    """A residual of a 1x1 convolution and batch norm, with the stride on the other axis."""
    conv, norm = ours
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    stride = (conv.stride[1], conv.stride[0])
    new = nn.Conv2d(conv.in_channels, conv.out_channels, 1, stride, bias=False)
    fill(new, conv.weight)
    return nn.Sequential(new, like(norm))
