"""ST-GCN (Yan, Xiong and Lin, "Spatial Temporal Graph Convolutional Networks", AAAI 2018), written from the paper.

Ten blocks; each mixes the joints along three fixed adjacencies with learned edge weights (equation 10 and section
3.4), then nine frames along time. Inside, tensors are (N, C, V, T): frames innermost, so that mixing the joints is
one matrix product over contiguous memory. N batch with bodies folded in, C channels, T frames, V joints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from realtime.skeleton import Layout
from train.graph import InputNorm, spatial, unfold_bodies

SPAN = 9  # frames that a temporal convolution sees


class GraphConv(nn.Module):
    """Mixes joints along the three adjacencies, then channels: (N, C, V, T) to (N, C', V, T)."""

    graph: Tensor

    def __init__(self, channels_in: int, channels_out: int, graph: Tensor) -> None:
        super().__init__()
        self.register_buffer("graph", graph, persistent=False)  # (3, V, V)
        self.importance = nn.Parameter(torch.ones_like(graph))
        self.mix = nn.Conv2d(3 * channels_in, channels_out, 1, bias=False)  # a channel's three mixes side by side
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        n, c, v, t = x.shape
        mixed = (self.graph * self.importance).view(3 * v, v) @ x.reshape(n * c, v, t)  # (N*C, 3V, T)
        return self.norm(self.mix(mixed.view(n, c * 3, v, t)))


class Block(nn.Module):
    """Graph convolution, temporal convolution and a residual around both (none where the channels come from raw)."""

    def __init__(self, channels_in: int, channels_out: int, graph: Tensor, stride: int, residual: bool) -> None:
        super().__init__()
        self.space = GraphConv(channels_in, channels_out, graph)
        self.time = nn.Sequential(
            nn.Conv2d(channels_out, channels_out, (1, SPAN), (1, stride), (0, SPAN // 2), bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.residual: nn.Module | None = nn.Identity() if residual else None
        if residual and (channels_in != channels_out or stride != 1):
            self.residual = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, (1, stride), bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.time(self.space(x).relu_())
        return (y if self.residual is None else y.add_(self.residual(x))).relu_()


class STGCN(nn.Module):
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
