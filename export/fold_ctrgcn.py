"""CTR-GCN as it is deployed: every batch norm in the weights, and each product in the form that a CPU does fastest.

What goes into products over joints is made by plain matrix products, which read and write rows of channels; what only
convolutions touch stays with convolutions of 16 channels and more, which ONNX Runtime keeps in blocks of channels. To
change between the two forms costs as much as a small convolution, so every block does it twice and no more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.fold_parts import Input, conv, scale_shift
from export.fold_stgcn import residual
from train.ctrgcn import CTRGCN, SUBSETS, Block, GraphConv, TemporalConv


class FoldedGraphConv(nn.Module):
    """The refined graph convolution and its ReLU: (N, C, V, T) to (N, C', V, T), lower by `shift` (C', 1, 1).

    The batch norm's scale lies in the topologies. Its shift is not added: relu(y + shift) - shift is max(y, -shift),
    one pass over the map instead of two, and the temporal convolution takes the shift up in its biases.
    """

    relate: Tensor
    relate_bias: Tensor
    known: Tensor
    lift: Tensor
    transform: Tensor
    direct: Tensor | None
    least: Tensor

    def __init__(self, trained: GraphConv) -> None:
        super().__init__()
        scale, shift = scale_shift(trained.norm)
        self.channels, self.joints = len(scale), trained.topology.shape[-1]
        self._topology(trained, scale)
        weight = trained.transform.weight.detach().flatten(1)  # (3 C', C), subsets innermost
        self.register_buffer("transform", weight.contiguous())
        around, direct = residual(trained.residual), None
        if isinstance(around, nn.Conv2d) and around.bias is not None:
            shift = shift + around.bias.double()
            direct = around.weight.detach().flatten(1).contiguous()
        self.register_buffer("direct", direct)  # (C', C)
        self.shift = shift.detach()
        self.register_buffer("least", -shift.detach().float().view(-1, 1, 1))

    def _topology(self, trained: GraphConv, scale: Tensor) -> None:
        """Relations and what lifts them; two more of them, 1 and the shared topology, are `known` (3, R + 2, V, V)."""
        assert trained.relate.bias is not None and trained.lift.bias is not None
        v, channels = self.joints, self.channels
        weight, bias = trained.relate.weight.detach().squeeze(2), trained.relate.bias.detach().unsqueeze(1)
        rows = torch.cat([weight, bias], dim=1).unflatten(0, (2, SUBSETS, -1))  # (2, 3, R, C + 1)
        rows = functional.pad(rows, (0, 0, 0, 2)).flatten(0, 2)  # tanh(0 - 0) leaves room for the known ones
        self.register_buffer("relate", rows[:, :-1].contiguous())
        self.register_buffer("relate_bias", rows[:, -1:].contiguous())
        rank = len(rows) // (2 * SUBSETS)
        known = torch.zeros(SUBSETS, rank, v, v)
        known[:, -2], known[:, -1] = 1.0, trained.topology.detach()
        self.register_buffer("known", known.view(SUBSETS * rank, v, v))
        lift = trained.lift.weight.double().view(SUBSETS, channels, -1)
        lift = trained.strength.double() * torch.cat([lift, trained.lift.bias.double().view(SUBSETS, -1, 1)], dim=2)
        lift = torch.cat([lift, torch.ones_like(lift[:, :, :1])], dim=2) * scale.view(-1, 1)
        self.register_buffer("lift", lift.detach().float())  # (3, C', R + 2)

    def refined(self, x: Tensor) -> Tensor:
        """Topologies (N, C', V taking, 3V giving) of clips (N, C, V, T), scaled by the batch norm."""
        v = self.joints
        taker, giver = (self.relate @ x.mean(dim=3) + self.relate_bias).chunk(2, dim=1)  # (N, 3(R + 2), V) each
        relation = torch.tanh(taker.unsqueeze(3) - giver.unsqueeze(2)) + self.known  # (N, 3(R + 2), V, V)
        lifted = self.lift @ relation.reshape(-1, SUBSETS, self.lift.shape[2], v * v)
        lifted = lifted.reshape(-1, SUBSETS, self.channels, v, v).permute(0, 2, 3, 1, 4)  # (N, C', V, 3, V)
        return lifted.reshape(-1, self.channels, v, SUBSETS * v)

    def forward(self, x: Tensor) -> Tensor:
        c, v, t = x.shape[1:]
        flat = x.reshape(-1, c, v * t)
        given = (self.transform @ flat).reshape(-1, self.channels, SUBSETS * v, t)
        y = self.refined(x) @ given
        y = y + (x if self.direct is None else (self.direct @ flat).reshape(-1, self.channels, v, t))
        return torch.maximum(y, self.least)


class FoldedTemporalConv(nn.Module):
    """Four branches of a quarter of the channels, as `TemporalConv`, batch norms and the input's shift folded."""

    def __init__(self, trained: TemporalConv, lacking: Tensor) -> None:
        """lacking: (C,) what each channel of the input is too low by."""
        super().__init__()
        quarter, self.stride = trained.quarter, trained.stride
        weight = trained.reduce.weight.detach().double()  # (C, C, 1, 1)
        first, last = weight.split([3 * quarter, quarter])
        scale, shift = scale_shift(trained.reduced)
        end_scale, end_shift = (value.split(quarter) for value in scale_shift(trained.norm))
        first, shift = first * scale.view(-1, 1, 1, 1), shift + scale * (first.flatten(1) @ lacking)
        reduced = zip(first.split(quarter), shift.split(quarter), strict=True)
        self.to_near, self.to_far, self.to_pool = (conv(*pair) for pair in reduced)
        near, far, pool, plain = (value.view(-1, 1, 1, 1) for value in end_scale)
        self.near = conv(trained.near.weight.double() * near, end_shift[0], self.stride)
        self.far = conv(trained.far.weight.double() * far, end_shift[1], self.stride, 2)
        self.after_pool = conv(pool, end_shift[2], groups=quarter)
        self.plain = conv(last * plain, end_shift[3] + end_scale[3] * (last.flatten(1) @ lacking), self.stride)

    def forward(self, x: Tensor) -> Tensor:
        near, far, pool = (torch.relu(reduce(x)) for reduce in (self.to_near, self.to_far, self.to_pool))
        pool = self.after_pool(functional.max_pool2d(pool, (1, 3), (1, self.stride), (0, 1)))
        return torch.cat([self.near(near), self.far(far), pool, self.plain(x)], dim=1)


class FoldedBlock(nn.Module):
    """Graph convolution, temporal convolution and the residual around both."""

    def __init__(self, trained: Block) -> None:
        super().__init__()
        self.space = FoldedGraphConv(trained.space)
        self.time = FoldedTemporalConv(trained.time, self.space.shift)
        self.residual = residual(trained.residual)

    def forward(self, x: Tensor) -> Tensor:
        y = self.time(self.space(x))
        return torch.relu(y if self.residual is None else y + self.residual(x))


def fold_ctrgcn(trained: CTRGCN, channels: int, bodies: int, taken: int) -> nn.Sequential:
    """Windows (N, C, T, V) or (N, C, T, V, M) to feature maps (N*M, F, V, T/4)."""
    blocks = [FoldedBlock(block) for block in trained.blocks if isinstance(block, Block)]
    return nn.Sequential(Input(trained.input.norm, channels, bodies, taken, joints_first=True), *blocks)
