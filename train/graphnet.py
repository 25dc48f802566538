"""The compact graph network: decoupled graph convolutions and branched temporal ones.

Family of ST-GCN (Yan et al., AAAI 2018): each block mixes joints along a learned graph, then frames along time.
Joints are mixed with one adjacency per group of channels (Cheng et al., "Decoupling GCN with DropGraph", ECCV
2020), frames with dilated branches (Liu et al., MS-G3D, CVPR 2020; also in CTR-GCN). N batch with bodies folded
in, C channels, T frames, V joints, M bodies, F backbone width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from realtime.skeleton import Layout
from train.graph import spatial


class GraphConv(nn.Module):
    """Mixes joints by a learned adjacency per channel group, then channels by a 1x1 convolution."""

    def __init__(self, channels_in: int, channels_out: int, graph: np.ndarray, groups: int) -> None:
        super().__init__()
        start = torch.from_numpy(graph)  # (3, V, V)
        mixes = start[torch.arange(groups) % len(start)] + 0.02 * torch.randn(groups, *start.shape[1:])
        self.adjacency = nn.Parameter(mixes)  # (G, V, V)
        self.spread = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, T, V)
        y = self.spread(x)
        n, c, t, v = y.shape
        groups = len(self.adjacency)
        y = y.reshape(n, groups, c // groups * t, v) @ self.adjacency.transpose(1, 2)  # (N, G, C/G*T, V)
        return self.norm(y.reshape(n, c, t, v))


class TemporalConv(nn.Module):
    """Four branches of a quarter of the channels each: two dilated convolutions, a max pool, a plain 1x1."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        quarter = channels // 4
        self.reduce = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.near = nn.Conv2d(quarter, quarter, (5, 1), (stride, 1), (2, 0), bias=False)
        self.far = nn.Conv2d(quarter, quarter, (5, 1), (stride, 1), (4, 0), (2, 1), bias=False)
        self.pool = nn.MaxPool2d((3, 1), (stride, 1), (1, 0))
        self.skip = nn.MaxPool2d((1, 1), (stride, 1)) if stride > 1 else nn.Identity()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, T, V)
        near, far, pool, skip = self.reduce(x).chunk(4, dim=1)
        return self.norm(torch.cat([self.near(near), self.far(far), self.pool(pool), self.skip(skip)], dim=1))


class Block(nn.Module):
    """Graph convolution, temporal convolution, and a residual around both."""

    def __init__(self, channels_in: int, channels_out: int, graph: np.ndarray, stride: int, groups: int) -> None:
        super().__init__()
        self.graph = GraphConv(channels_in, channels_out, graph, groups)
        self.time = TemporalConv(channels_out, stride)
        self.residual: nn.Module = nn.Identity()
        if channels_in != channels_out or stride != 1:
            self.residual = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, (stride, 1), bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.time(torch.relu(self.graph(x))) + self.residual(x))


class GraphNet(nn.Module):
    """Clips (N, C, T, V, M) to feature maps (N, M, F, T', V), F the last of the widths.

    widths: channels of the blocks; time is halved at the stem and wherever the width grows. The input norm has one mean
    and variance for each body, channel and joint.
    """

    def __init__(
        self,
        layout: Layout,
        channels: int,
        bodies: int,
        widths: tuple[int, ...] = (64, 64, 64, 128, 128, 128, 192, 192),
        groups: int = 8,
    ) -> None:
        super().__init__()
        graph = spatial(layout)
        self.input_norm = nn.BatchNorm1d(bodies * channels * len(layout))
        self.stem = nn.Sequential(
            nn.Conv2d(channels, widths[0], (5, 1), (2, 1), (2, 0), bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        blocks, before = [], widths[0]
        for width in widths:
            blocks.append(Block(before, width, graph, 2 if width > before else 1, groups))
            before = width
        self.blocks = nn.Sequential(*blocks)
        self.width = before

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, v, m = x.shape
        x = self.input_norm(x.permute(0, 4, 1, 3, 2).reshape(n, m * c * v, t))
        x = x.reshape(n * m, c, v, t).transpose(2, 3)  # (N*M, C, T, V)
        return self.blocks(self.stem(x)).unflatten(0, (n, m))
