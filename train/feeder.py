"""Prepared clips to batches on the device, by the published protocols: views, crops, resampling, streams.

NW-UCLA as in CTR-GCN's and GAP's feeder; all other sets as NTU RGB+D there. Both work on a whole batch at once where
the clips' joints lie (GPU or CPU). N clips, T frames, M bodies, V joints; joints (..., V, 3) in Kinect axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from realtime.errors import UsageError
from realtime.skeleton import Layout
from train.data.prepared import Prepared

STREAMS = ("joint", "bone", "joint_motion", "bone_motion")
FRAMES = {"nw_ucla": 52}  # as published; 64 for every other set
TURN_UCLA = math.radians(60)  # about x and y
TURN = 0.3  # radians, about each axis
TEST_CUT = 0.025  # of a clip's frames, at either end


def turn(angles: Tensor) -> Tensor:
    """Rotation matrices (N, 3, 3) = Rz Ry Rx from angles (N, 3) about x, y, z in radians."""
    cos, sin = angles.cos(), angles.sin()
    zero, one = torch.zeros_like(cos[:, 0]), torch.ones_like(cos[:, 0])

    def matrix(*rows: Tensor) -> Tensor:
        return torch.stack(rows, dim=1).reshape(-1, 3, 3)

    about_x = matrix(one, zero, zero, zero, cos[:, 0], -sin[:, 0], zero, sin[:, 0], cos[:, 0])
    about_y = matrix(cos[:, 1], zero, sin[:, 1], zero, one, zero, -sin[:, 1], zero, cos[:, 1])
    about_z = matrix(cos[:, 2], -sin[:, 2], zero, sin[:, 2], cos[:, 2], zero, zero, zero, one)
    return about_z @ about_y @ about_x


def streams_of(joints: Tensor, layout: Layout, streams: tuple[str, ...]) -> Tensor:
    """Network input (N, C, T, V, M) from joints (N, T, M, V, 3), 3 channels a stream in the order given.

    bone: joint minus its parent (the root: 0). joint_motion, bone_motion: next frame minus this one, last frame 0.
    """
    parts = []
    for stream in streams:
        part = joints - joints[..., list(layout.parents), :] if stream.startswith("bone") else joints
        if stream.endswith("motion"):
            part = torch.cat([part[:, 1:] - part[:, :-1], torch.zeros_like(part[:, :1])], dim=1)
        parts.append(part)
    return torch.cat(parts, dim=-1).permute(0, 4, 1, 3, 2).contiguous()


class Feeder:
    """The clips of a prepared set on a device; `train` and `test` make network inputs of them.

    Raises UsageError for an unknown stream.
    """

    def __init__(self, data: Prepared, frames: int, streams: tuple[str, ...], device: torch.device) -> None:
        unknown = [stream for stream in streams if stream not in STREAMS]
        if unknown or not streams:
            raise UsageError(f"--streams of a prepared set must be some of {', '.join(STREAMS)}, got {unknown}")
        self.layout, self.frames, self.streams = data.layout, frames, streams
        self.joints = torch.from_numpy(np.array(data.joints)).to(device)  # (R, M, V, 3)
        self.start, self.length = (torch.from_numpy(a.astype(np.int64)).to(device) for a in (data.start, data.frames))
        shown = np.flatnonzero((np.asarray(data.joints[:, 0]) != 0).any(axis=(1, 2)))  # rows that show the first body
        after = np.append(shown, len(data.joints))[np.searchsorted(shown, data.start)]
        appears = np.where(after < data.start + data.frames, after, data.start)
        self.appears = torch.from_numpy(appears.astype(np.int64)).to(device)
        self.centre = data.layout.index("spine") if "spine" in data.layout.joints else data.layout.root
        ucla = data.data == "nw_ucla"
        self._views: Callable[[Tensor, torch.Generator | None], Tensor] = self._ucla if ucla else self._ntu

    def train(self, picked: Tensor, generator: torch.Generator) -> Tensor:
        """Clips (N,) by number, each seen from a random side and at a random pace: (N, C, T, V, M)."""
        return streams_of(self._views(picked, generator), self.layout, self.streams)

    def test(self, picked: Tensor) -> Tensor:
        """Clips (N,) by number as they are tested: (N, C, T, V, M)."""
        return streams_of(self._views(picked, None), self.layout, self.streams)

    def _draw(self, generator: torch.Generator, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=self.joints.device)

    def _ucla(self, picked: Tensor, generator: torch.Generator | None) -> Tensor:
        """Spine of the first frame at the origin; a view +-60 degrees about x and y; per clip and axis to [-1, 1].

        Frames: sorted draws with repeats (train), evenly spaced (test). The published feeder also scales each clip
        at random, which the fitting to [-1, 1] undoes; it is left out.
        """
        length = self.length[picked]
        at = torch.arange(int(length.max()), device=length.device)
        whole = self.joints[self.start[picked, None] + at.minimum(length[:, None] - 1)]  # (N, Tmax, M, V, 3)
        whole = whole - whole[:, :1, :1, self.centre : self.centre + 1]
        if generator is not None:
            angles = (2 * self._draw(generator, len(picked), 3) - 1) * TURN_UCLA
            angles[:, 2] = 0
            whole = whole @ turn(angles).transpose(1, 2)[:, None, None]
        low, high = whole.amin(dim=(1, 2, 3), keepdim=True), whole.amax(dim=(1, 2, 3), keepdim=True)
        whole = 2 * (whole - low) / (high - low).clamp_min(1e-6) - 1
        if generator is not None:
            chosen = (self._draw(generator, len(picked), self.frames) * length[:, None]).long().sort(dim=1).values
        else:
            chosen = torch.arange(self.frames, device=length.device) * (length[:, None] - 1) // max(self.frames - 1, 1)
        return whole[torch.arange(len(picked), device=length.device)[:, None], chosen]

    def _ntu(self, picked: Tensor, generator: torch.Generator | None) -> Tensor:
        """A crop of 50 to 100 % (95 % in the middle to test) resized to T frames; spine of the first frame that shows
        the first body at the origin; a turn of up to 0.3 rad about each axis (train). An absent body stays zeros.
        """
        length, n = self.length[picked].float(), len(picked)
        if generator is not None:
            draws = self._draw(generator, n, 2)
            size = (length * (0.5 + 0.5 * draws[:, 0])).floor().clamp_min(self.frames).minimum(length)
            first = ((length - size + 1) * draws[:, 1]).floor()
        else:
            first = (length * TEST_CUT).floor()  # as many frames off either end
            size = length - 2 * first
        at = (torch.arange(self.frames, device=length.device) + 0.5) * (size / self.frames)[:, None] - 0.5
        at = at.clamp_min(0).minimum(size[:, None] - 1)
        low = at.floor()
        start = self.start[picked, None] + first[:, None].long()
        before, after = (
            self.joints[start + low.long()],
            self.joints[start + (low + 1).minimum(size[:, None] - 1).long()],
        )
        origin = self.joints[self.appears[picked]][:, None, :1, self.centre : self.centre + 1]
        before, after = (
            torch.where((x != 0).flatten(3).any(dim=3)[..., None, None], x - origin, 0.0) for x in (before, after)
        )
        part = (at - low)[:, :, None, None, None]
        out = before * (1 - part) + after * part
        if generator is not None:
            angles = (2 * self._draw(generator, n, 3) - 1) * TURN
            out = out @ turn(angles).transpose(1, 2)[:, None, None]
        return out
