"""ST-GCN with fewer multiplications, for fp32 on a CPU: its temporal convolutions by `export.fast_fir`.

A CPU core runs the plain form at the peak of its multiply-adds already, three quarters of them in convolutions over
nine frames. Inside, tensors are (T, N, C, V), frames first: a tile of frames is a slice, its transforms are one matrix
product with all else as columns, and each of the algorithm's products is one matrix product over the channels.
N windows with bodies folded in, C channels, T frames, V joints, P products of a tile, G tiles, n frames of a tile.

What a block gives is lower than the plain form's map by a constant (C, V), which the next block's constants take up:
relu(y + bias) - bias is max(y, -bias), one pass over the map instead of two.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.fast_fir import halving_filter, minimal_filter
from export.fold_parts import Input
from export.fold_stgcn import FoldedBlock
from train.stgcn import SPAN, STGCN, Block

TILE = 8  # frames of output for 16 products instead of 72; with stride 2, for 23
FEW = 2  # as few tiles take all frames: a product over some zeros costs less than copies of frames
Order = list[int]  # the frame at each place of the first axis


class FastTime(nn.Module):
    """A folded convolution over nine frames, without its bias: (T, N, C, V) to (T', N, C', V).

    Where there are few tiles, frames of the same place in each tile come out side by side, so that a product's weights
    are read once for all tiles; `order` says so.
    """

    inputs: Tensor
    weight: Tensor
    outputs: Tensor
    taken: Tensor | None
    kept: Tensor | None

    def __init__(self, folded: nn.Conv2d, order: Order) -> None:
        super().__init__()
        self.stride = folded.stride[1]
        frames = -(-len(order) // self.stride)
        made = (minimal_filter if self.stride == 1 else halving_filter)(SPAN, TILE)
        self.tiles = -(-frames // TILE)
        self.few = self.tiles <= FEW
        taps = folded.weight.detach().double().squeeze(2)  # (C', C, 9)
        weight = torch.einsum("pr,ocr->poc", torch.from_numpy(made.taps), taps).float()
        self.register_buffer("weight", weight[:, None, None] if self.few else weight[:, None])
        self.register_buffer("outputs", torch.from_numpy(made.outputs).float())  # (m, P)
        self._inputs(torch.from_numpy(made.inputs), order)
        whole = torch.arange(self.tiles * TILE).view(self.tiles, TILE)
        whole = whole.T.flatten() if self.few else whole.flatten()
        kept = torch.nonzero(whole < frames).flatten()
        self.register_buffer("kept", None if len(kept) == len(whole) else kept)
        self.order: Order = whole[kept].tolist()

    def _inputs(self, inputs: Tensor, order: Order) -> None:
        """Which frames each tile takes, and its transform, without columns for frames that are not there."""
        products, size = inputs.shape
        frames = len(order)
        count = frames if self.few else min(size, frames)
        of_tiles = torch.zeros(self.tiles, products, count, dtype=inputs.dtype)
        taken = []
        for tile in range(self.tiles):
            start = self.stride * TILE * tile - SPAN // 2
            first = min(max(start, 0), frames - count)
            inside = range(max(start, 0), min(start + size, frames))
            of_tiles[tile][:, [frame - first for frame in inside]] = inputs[:, [frame - start for frame in inside]]
            taken += [order.index(frame) for frame in range(first, first + count)]
        if self.few:
            of_tiles = of_tiles.transpose(0, 1)[:, :, order].flatten(0, 1)  # (P * G, T)
        self.register_buffer("inputs", of_tiles.float().contiguous())
        self.register_buffer("taken", None if self.few else torch.tensor(taken))

    def forward(self, x: Tensor) -> Tensor:
        frames, _, channels_in, joints = x.shape
        products, channels = len(self.weight), self.weight.shape[-2]
        flat = x.reshape(frames, -1)
        if self.taken is not None:
            flat = flat.index_select(0, self.taken).reshape(self.tiles, self.inputs.shape[2], -1)
        shape = (products, self.tiles) if self.few else (self.tiles, products)
        mixed = self.weight @ (self.inputs @ flat).reshape(*shape, -1, channels_in, joints)
        mixed = mixed.reshape(products, -1) if self.few else mixed.reshape(self.tiles, products, -1)
        y = (self.outputs @ mixed).reshape(self.tiles * TILE, -1, channels, joints)
        return y if self.kept is None else y.index_select(0, self.kept)


class FastBlock(nn.Module):
    """One block: (T, N, C, V), lower by `shift` (C, V), to (T', N, C', V), lower by its own."""

    graph: Tensor
    mix: Tensor
    mix_bias: Tensor
    direct: Tensor | None
    places: Tensor | None
    least: Tensor

    def __init__(self, plain: FoldedBlock, order: Order, shift: Tensor) -> None:
        super().__init__()
        self.frames, self.around = len(order), plain.residual is not None
        assert plain.mix.bias is not None and plain.time.bias is not None
        joints = plain.graph.shape[1]
        mix = plain.mix.weight.detach().flatten(1)  # (C', 3 C), a channel's three mixes together
        channels = len(mix)
        lacking = (shift @ plain.graph.mT.double()).reshape(-1, joints)  # (3 C, V)
        bias = plain.mix.bias.detach().double()[:, None] + mix.double() @ lacking
        self.register_buffer("mix_bias", bias.float())  # (C', V)
        # Joints first costs fewer multiply-adds where channels grow; else channels first reads and writes less.
        self.joints_first = 3 * channels > mix.shape[1]
        graph = plain.graph.mT  # (V giving, 3 V taking)
        if not self.joints_first:
            graph = plain.graph.view(3, joints, joints).mT.flatten(0, 1)  # (3 V giving, V taking)
            mix = mix.unflatten(1, (-1, 3)).mT.flatten(0, 1)  # (3 C', C)
        self.register_buffer("graph", graph.contiguous())
        self.register_buffer("mix", mix.contiguous())
        self.time = FastTime(plain.time, order)
        self.shift, direct = plain.time.bias.detach().double()[:, None].expand(-1, joints), None
        if isinstance(plain.residual, nn.Conv2d) and plain.residual.bias is not None:
            direct = plain.residual.weight.detach().flatten(1)
            shift = plain.residual.bias.detach().double()[:, None] + direct.double() @ shift
        if self.around:
            self.shift = self.shift + shift
        self.register_buffer("direct", direct)  # (C', C)
        self.register_buffer("least", -self.shift.float())  # (C', V)
        places = [order.index(self.time.stride * frame) for frame in self.time.order]
        self.register_buffer("places", None if places == list(range(len(order))) else torch.tensor(places))

    def forward(self, x: Tensor) -> Tensor:
        y = self.time(torch.relu(self._mixed(x) + self.mix_bias))
        if self.around:
            near = x if self.places is None else x.index_select(0, self.places)
            y = y + (near if self.direct is None else self.direct @ near)
        return torch.maximum(y, self.least)

    def _mixed(self, x: Tensor) -> Tensor:
        """The graph convolution (T, N, C', V), without its bias."""
        joints = x.shape[3]
        if self.joints_first:
            return self.mix @ (x.reshape(-1, joints) @ self.graph).reshape(self.frames, -1, self.mix.shape[1], joints)
        y = (self.mix @ x).reshape(-1, len(self.graph)) @ self.graph
        return y.reshape(self.frames, -1, len(self.mix_bias), joints)


class FramesFirst(nn.Module):
    """Normalised windows (N, C, V, T) as (T, N, C, V)."""

    def __init__(self, read: Input) -> None:
        super().__init__()
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        return self.read(x).permute(3, 0, 1, 2)


class FramesLast(nn.Module):
    """(T, N, C, V) in an order of frames, lower by a shift (C, V), as maps (N, C, V, T)."""

    shift: Tensor
    places: Tensor | None

    def __init__(self, shift: Tensor, order: Order) -> None:
        super().__init__()
        self.register_buffer("shift", shift.float())
        places = [order.index(frame) for frame in range(len(order))]
        self.register_buffer("places", None if places == order else torch.tensor(places))

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.places is None else x.index_select(0, self.places)
        return (x + self.shift).permute(1, 2, 3, 0)


def fold_stgcn_fast(trained: STGCN, channels: int, bodies: int, taken: int, frames: int) -> nn.Sequential:
    """Windows (N, C, T, V) or (N, C, T, V, M) of T = frames to feature maps (N*M, F, V, T/4)."""
    read = Input(trained.input.norm, channels, bodies, taken, joints_first=True)
    blocks: list[nn.Module] = [FramesFirst(read)]
    shift = torch.zeros(channels, read.scale.shape[2], dtype=torch.double)
    order = list(range(frames))
    for block in trained.blocks:
        assert isinstance(block, Block)
        made = FastBlock(FoldedBlock(block), order, shift)
        order, shift = made.time.order, made.shift
        blocks.append(made)
    return nn.Sequential(*blocks, FramesLast(shift, order))
