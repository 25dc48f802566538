"""What the folded networks are made of: batch norms gone into weights and biases, the input's into a product and a sum.

Folded networks keep frames innermost, as the trained ones do: (N, C, V, T). N batch with bodies folded in, C channels,
T frames, V joints, M bodies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

Norm = nn.BatchNorm1d | nn.BatchNorm2d


def scale_shift(norm: Norm) -> tuple[Tensor, Tensor]:
    """What a batch norm in eval mode multiplies each channel by and then adds, in double precision."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def conv(
    weight: Tensor, bias: Tensor, stride: int = 1, dilation: int = 1, groups: int = 1, frames_last: bool = True
) -> nn.Conv2d:
    """A convolution of weight (C', C / groups, 1, span) along time that keeps the length (but for its stride).

    Of maps (N, C, V, T), or of (N, C, T, V) where frames do not come last.
    """
    channels_out, channels_in, _, span = weight.shape
    pairs = [(1, span), (1, stride), (0, dilation * (span // 2)), (1, dilation)]
    kernel, by, padding, apart = pairs if frames_last else [(last, first) for first, last in pairs]
    made = nn.Conv2d(groups * channels_in, channels_out, kernel, by, padding, apart, groups)
    assert made.bias is not None
    weight = weight.detach().float()
    made.weight.data = (weight if frames_last else weight.mT).contiguous()
    made.bias.data = bias.detach().float().contiguous()
    return made


def conv_norm(trained: nn.Conv2d, norm: nn.BatchNorm2d, frames_last: bool = True) -> nn.Conv2d:
    """A convolution without bias and the batch norm behind it as one; frames stay where they are."""
    scale, shift = scale_shift(norm)
    weight = trained.weight.double() * scale.view(-1, 1, 1, 1)
    axis = 1 if frames_last else 0
    weight = weight if frames_last else weight.mT
    return conv(weight, shift, trained.stride[axis], trained.dilation[axis], frames_last=frames_last)


def unit(x: Tensor) -> Tensor:
    """Rows at unit length, as `functional.normalize`, whose expansion would ask for the shape at run time."""
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-12)


class Input(nn.Module):
    """Windows (N, C, T, V), or (N, C, T, V, M), normalised by joint, channel and body: (N*M, C, V, T)."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm1d, channels: int, bodies: int, taken: int, joints_first: bool) -> None:
        """bodies: the norm's; taken: the windows'. joints_first: the norm's channels are (M, V, C), else (M, C, V)."""
        super().__init__()
        for name, value in zip(("scale", "shift"), scale_shift(norm), strict=True):
            by_body = value.view(bodies, -1, channels).mT if joints_first else value.view(bodies, channels, -1)
            self.register_buffer(name, by_body[:taken].float().unsqueeze(3).contiguous())  # (M, C, V, 1)
        self.taken = taken

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            return x.transpose(2, 3) * self.scale + self.shift
        x = x.permute(0, 4, 1, 3, 2) * self.scale + self.shift  # (N, M, C, V, T)
        return x.reshape(-1, *x.shape[2:])
