"""The joint graph of a layout as the graph convolutions take it, and what comes before the first of them.

Adjacencies follow the spatial partition of ST-GCN (Yan et al., AAAI 2018, section 3.3): a joint itself, its
neighbour towards the root, its neighbours away from it. N batch, C channels, T frames, V joints, M bodies.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from realtime.skeleton import Layout


def spatial(layout: Layout) -> np.ndarray:
    """Adjacencies (3, V, V) float32 of a layout: self, inward (the parent), outward (the children).

    Row u says with which weights joint u takes from the joints v. Each row is normalised to sum to 1 (the mean of
    the neighbours, ST-GCN equation 10); a row without neighbours stays zero.
    """
    size = len(layout)
    inward = np.zeros((size, size), np.float32)
    for parent, child in layout.bones:
        inward[child, parent] = 1.0
    outward = inward.T / np.maximum(inward.T.sum(axis=1, keepdims=True), 1.0)
    return np.stack([np.eye(size, dtype=np.float32), inward, outward])


class InputNorm(nn.Module):
    """Batch norm of the raw clip, one mean and variance for each (body, joint, channel), over clips and frames.

    Clips (N, C, T, V, M) come out as (N*M, C, V, T): bodies in the batch, frames innermost, the layout of the blocks.
    """

    def __init__(self, layout: Layout, channels: int, bodies: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(bodies * len(layout) * channels)

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, v, m = x.shape
        x = self.norm(x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t))
        return x.view(n * m, v, c, t).transpose(1, 2)


def pointwise(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """1x1 convolution of x (N, C, V, T) by weight (C', C, 1, 1) at every stride-th frame: (N, C', V, T / stride).

    Where it trains on a CPU it is a matrix product for each clip: a convolution there copies what it reads and
    writes into blocks of channels and back, up to half of its time at 64 channels.
    """
    if not (x.is_cpu and torch.is_grad_enabled()):
        return functional.conv2d(x, weight, stride=(1, stride))
    x = x[..., ::stride]
    weight = weight.flatten(1).to(x.dtype)  # before it expands: autocast would cast N copies
    return torch.bmm(weight.expand(len(x), -1, -1), x.flatten(2)).unflatten(2, x.shape[2:])


class Pointwise(nn.Conv2d):
    """`pointwise` as a module with a weight of its own."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__(channels_in, channels_out, 1, (1, stride), bias=False)

    def forward(self, input: Tensor) -> Tensor:
        return pointwise(input, self.weight, self.stride[1])


def unfold_bodies(x: Tensor, bodies: int) -> Tensor:
    """Feature maps (N*M, F, V, T) of the blocks as (N, M, F, T, V), without a copy."""
    return x.unflatten(0, (-1, bodies)).transpose(3, 4)
