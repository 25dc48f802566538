"""CTR-GCN as it is deployed: every batch norm in the weights, shared topology and lifted bias as one constant."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.fold_parts import Input, conv, scale_shift
from export.fold_stgcn import residual
from train.ctrgcn import CTRGCN, SUBSETS, Block, GraphConv, TemporalConv


class FoldedGraphConv(nn.Module):
    """The refined graph convolution: (N, C, V, T) to (N, C', V, T), before the ReLU.

    The batch norm behind it scales the topologies; its shift lies in the residual's bias.
    """

    relate_weight: Tensor
    relate_bias: Tensor
    lift: Tensor
    shared: Tensor
    shift: Tensor

    def __init__(self, trained: GraphConv) -> None:
        super().__init__()
        scale, shift = scale_shift(trained.norm)
        self.channels, self.joints = len(scale), trained.topology.shape[-1]
        assert trained.relate.bias is not None and trained.lift.bias is not None
        self.register_buffer("relate_weight", trained.relate.weight.detach().squeeze(2))  # (6R, C)
        self.register_buffer("relate_bias", trained.relate.bias.detach().view(-1, 1))
        strength = trained.strength.double()
        lift = strength * trained.lift.weight.double().view(SUBSETS, self.channels, -1) * scale.view(-1, 1)
        bias = strength * trained.lift.bias.double().view(SUBSETS, self.channels, 1) * scale.view(-1, 1)
        topology = trained.topology.double().mT.reshape(SUBSETS, 1, -1) * scale.view(-1, 1)  # (3, C', V * V)
        self.register_buffer("lift", lift.detach().float())
        self.register_buffer("shared", (topology + bias).detach().float())
        weight = trained.transform.weight.detach()
        self.transform = conv(weight, torch.zeros(len(weight)))
        self.residual = residual(trained.residual)
        if isinstance(self.residual, nn.Conv2d) and self.residual.bias is not None:
            self.residual.bias.data += shift.float()
        self.register_buffer("shift", shift.detach().float().view(-1, 1, 1))

    def refined(self, x: Tensor) -> Tensor:
        """Topologies (N, C', 3V giving, V taking) of clips (N, C, V, T), scaled by the batch norm."""
        v = self.joints
        taker, giver = (self.relate_weight @ x.mean(dim=3) + self.relate_bias).chunk(2, dim=1)  # (N, 3R, V) each
        relation = torch.tanh(taker.unsqueeze(2) - giver.unsqueeze(3))  # (N, 3R, V giving, V taking)
        lifted = self.lift @ relation.reshape(-1, SUBSETS, self.lift.shape[2], v * v) + self.shared
        return lifted.transpose(1, 2).reshape(-1, self.channels, SUBSETS * v, v)

    def forward(self, x: Tensor) -> Tensor:
        given = self.transform(x).reshape(-1, self.channels, SUBSETS * self.joints, x.shape[3])
        y = self.refined(x).mT @ given
        return y + self.residual(x) if isinstance(self.residual, nn.Conv2d) else y + self.shift + x


class FoldedTemporalConv(nn.Module):
    """Four branches of a quarter of the channels, as `TemporalConv`, batch norms folded."""

    pool_scale: Tensor
    pool_shift: Tensor

    def __init__(self, trained: TemporalConv) -> None:
        super().__init__()
        quarter, self.stride = trained.quarter, trained.stride
        scale, shift = scale_shift(trained.reduced)
        weight = trained.reduce.weight.detach().double()
        self.reduce = conv(weight[: 3 * quarter] * scale.view(-1, 1, 1, 1), shift)
        scale, shift = (value.split(quarter) for value in scale_shift(trained.norm))
        four = (1, 1, 1, 1)
        self.near = conv(trained.near.weight.double() * scale[0].view(-1, *four[1:]), shift[0], self.stride)
        self.far = conv(trained.far.weight.double() * scale[1].view(-1, *four[1:]), shift[1], self.stride, 2)
        self.register_buffer("pool_scale", scale[2].float().view(-1, 1, 1))
        self.register_buffer("pool_shift", shift[2].float().view(-1, 1, 1))
        self.plain = conv(weight[3 * quarter :] * scale[3].view(-1, *four[1:]), shift[3], self.stride)

    def forward(self, x: Tensor) -> Tensor:
        near, far, pool = torch.relu(self.reduce(x)).chunk(3, dim=1)
        pool = functional.max_pool2d(pool, (1, 3), (1, self.stride), (0, 1)) * self.pool_scale + self.pool_shift
        return torch.cat([self.near(near), self.far(far), pool, self.plain(x)], dim=1)


class FoldedBlock(nn.Module):
    """Graph convolution, temporal convolution and the residual around both."""

    def __init__(self, trained: Block) -> None:
        super().__init__()
        self.space, self.time = FoldedGraphConv(trained.space), FoldedTemporalConv(trained.time)
        self.residual = residual(trained.residual)

    def forward(self, x: Tensor) -> Tensor:
        y = self.time(torch.relu(self.space(x)))
        return torch.relu(y if self.residual is None else y + self.residual(x))


def fold_ctrgcn(trained: CTRGCN, channels: int, bodies: int, taken: int) -> nn.Sequential:
    """Windows (N, C, T, V) or (N, C, T, V, M) to feature maps (N*M, F, V, T/4)."""
    blocks = [FoldedBlock(block) for block in trained.blocks if isinstance(block, Block)]
    return nn.Sequential(Input(trained.input.norm, channels, bodies, taken, joints_first=True), *blocks)
