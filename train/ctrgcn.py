"""CTR-GCN (Chen et al., "Channel-wise Topology Refinement Graph Convolution", ICCV 2021), written from the paper.

Ten blocks; each mixes the joints with a topology per clip and channel (section 3.2), then the frames in four
branches (section 3.4). Inside, tensors are (N, C, V, T): frames innermost and the three adjacency subsets beside
the joints, so that the refined graph convolution is one 1x1 convolution and one batched matrix product over
contiguous memory. N batch with bodies folded in, C channels, T frames, V joints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from realtime.skeleton import Layout
from train.graph import InputNorm, Pointwise, pointwise, spatial, unfold_bodies

SUBSETS = 3  # self, inward, outward


class GraphConv(nn.Module):
    """Channel-wise topology refinement of all three subsets at once: (N, C, V, T) to (N, C', V, T).

    Equations 3 to 6: each pair of joints has a relation, the tanh of the difference of two projections of their means
    over time; lifted to the output channels and scaled by a learned factor it refines the shared topology.
    """

    def __init__(self, channels_in: int, channels_out: int, graph: Tensor) -> None:
        super().__init__()
        rank = 8 if channels_in < 16 else channels_in // 8
        self.topology = nn.Parameter(graph.clone())  # (3, V, V), row u takes from the joints v
        self.strength = nn.Parameter(torch.zeros(1))
        self.relate = nn.Conv1d(channels_in, 2 * SUBSETS * rank, 1)
        self.lift = nn.Conv1d(SUBSETS * rank, SUBSETS * channels_out, 1, groups=SUBSETS)
        self.transform = Pointwise(channels_in, channels_out * SUBSETS)  # subsets innermost
        self.norm = nn.BatchNorm2d(channels_out)
        self.residual: nn.Module = nn.Identity()
        if channels_in != channels_out:
            self.residual = nn.Sequential(Pointwise(channels_in, channels_out), nn.BatchNorm2d(channels_out))

    def refined(self, x: Tensor) -> Tensor:
        """Topologies (N, C', 3, V, V) of clips (N, C, V, T); the last two axes are the giving and the taking joint."""
        n, v = len(x), x.shape[2]
        taker, giver = self.relate(x.mean(dim=3)).chunk(2, dim=1)  # (N, 3R, V) each; the mean commutes with it
        relation = torch.tanh(taker.unsqueeze(2) - giver.unsqueeze(3))  # (N, 3R, V giving, V taking)
        relation = relation.view(n, SUBSETS, -1, v * v)
        # The shared topology and the bias join as two more relations, so that one product makes all of equation 5.
        shared = self.topology.mT.reshape(1, SUBSETS, 1, v * v).to(relation.dtype).expand(n, -1, -1, -1)
        relation = torch.cat([relation, torch.ones_like(shared), shared], dim=2)  # (N, 3, R + 2, V * V)
        lifted = self._weights().to(relation.dtype).expand(n, -1, -1, -1) @ relation  # (N, 3, C', V * V)
        return lifted.view(n, SUBSETS, -1, v, v).transpose(1, 2)

    def _weights(self) -> Tensor:
        """Weights (1, 3, C', R + 2) of the relations, of the bias and of the shared topology."""
        assert self.lift.bias is not None
        weight = torch.cat([self.lift.weight.squeeze(2), self.lift.bias.unsqueeze(1)], dim=1) * self.strength
        weight = torch.cat([weight, torch.ones_like(weight[:, :1])], dim=1)
        return weight.unflatten(0, (1, SUBSETS, -1))

    def forward(self, x: Tensor) -> Tensor:
        n, _, v, t = x.shape
        topology = self.refined(x).reshape(-1, SUBSETS * v, v)  # (N*C', 3V, V)
        given = self.transform(x).view(-1, SUBSETS * v, t)  # (N*C', 3V, T)
        y = torch.bmm(topology.mT, given).view(n, -1, v, t)
        return self.norm(y).add_(self.residual(x))


class TemporalConv(nn.Module):
    """Four branches of a quarter of the channels: two dilated convolutions over five frames, a max pool, a 1x1.

    The branches share one weight of their 1x1 reductions and one batch norm at their ends.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.quarter = channels // 4
        self.stride = stride
        self.reduce = Pointwise(channels, channels)
        self.reduced = nn.BatchNorm2d(3 * self.quarter)
        self.near = nn.Conv2d(self.quarter, self.quarter, (1, 5), (1, stride), (0, 2), bias=False)
        self.far = nn.Conv2d(self.quarter, self.quarter, (1, 5), (1, stride), (0, 4), (1, 2), bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        first, last = self.reduce.weight.split([3 * self.quarter, self.quarter])
        # Two products, not one of which two slices are taken: batch norm is three times slower on a slice.
        near, far, pool = self.reduced(pointwise(x, first)).relu_().chunk(3, dim=1)
        near, far = self.near(near.contiguous()), self.far(far.contiguous())
        pool = functional.max_pool2d(pool, (1, 3), (1, self.stride), (0, 1))
        return self.norm(torch.cat([near, far, pool, pointwise(x, last, self.stride)], dim=1))


class Block(nn.Module):
    """Graph convolution, temporal convolution and a residual around both (none where the channels come from raw)."""

    def __init__(self, channels_in: int, channels_out: int, graph: Tensor, stride: int, residual: bool) -> None:
        super().__init__()
        self.space = GraphConv(channels_in, channels_out, graph)
        self.time = TemporalConv(channels_out, stride)
        self.residual: nn.Module | None = nn.Identity() if residual else None
        if residual and (channels_in != channels_out or stride != 1):
            self.residual = nn.Sequential(Pointwise(channels_in, channels_out, stride), nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.time(self.space(x).relu_())
        return (y if self.residual is None else y.add_(self.residual(x))).relu_()


class CTRGCN(nn.Module):
    """Clips (N, C, T, V, M) to feature maps (N, M, F, T/4, V), F = 4 * base.

    base: channels of the first four blocks; the fifth and the eighth double them and halve time.
    """

    def __init__(self, layout: Layout, channels: int, bodies: int, base: int = 64) -> None:
        super().__init__()
        self.input = InputNorm(layout, channels, bodies)
        graph = torch.from_numpy(spatial(layout))
        blocks: list[nn.Module] = []
        before = channels
        for width in (base,) * 4 + (2 * base,) * 3 + (4 * base,) * 3:
            grows = bool(blocks) and width != before
            blocks.append(Block(before, width, graph, 2 if grows else 1, residual=bool(blocks)))
            before = width
        self.blocks = nn.Sequential(*blocks)
        self.width = before

    def forward(self, x: Tensor) -> Tensor:
        return unfold_bodies(self.blocks(self.input(x)), x.shape[-1])
