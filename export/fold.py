"""Folds a trained backbone for the device: the same function with fewer operations, and none that ONNX does badly.

No einsum, no batch norm: what is constant once training is over lies in weights and biases. The tests hold that the
answers stay the same.
"""

from __future__ import annotations

import torch
from torch import nn

from export.fold_ctrgcn import fold_ctrgcn
from export.fold_fast import fold_stgcn_fast
from export.fold_graphnet import fold_graphnet
from export.fold_stgcn import fold_stgcn
from train.ctrgcn import CTRGCN
from train.graphnet import GraphNet
from train.stgcn import STGCN

FAST = (STGCN,)  # backbones that have a form with fewest multiplications


@torch.no_grad()
def folded(backbone: nn.Module, channels: int, bodies: int, taken: int, fast_frames: int | None = None) -> nn.Module:
    """Windows (N, C, T, V), or (N, C, T, V, M) of several bodies, to feature maps (N*M, F, V, T').

    bodies: for how many the backbone was trained; taken: how many the windows have, all of them or 1, which is then
    the first. fast_frames: T, for the form that does with fewest multiplications in fp32 on a CPU, which has no
    convolutions that could be quantised; only ST-GCN has one of its own. The backbone stays as it is.
    TypeError for a backbone that nobody taught this module to fold.
    """
    made: nn.Module
    if isinstance(backbone, STGCN) and fast_frames is not None:
        made = fold_stgcn_fast(backbone, channels, bodies, taken, fast_frames)
    elif isinstance(backbone, STGCN):
        made = fold_stgcn(backbone, channels, bodies, taken)
    elif isinstance(backbone, CTRGCN):
        made = fold_ctrgcn(backbone, channels, bodies, taken)
    elif isinstance(backbone, GraphNet):
        made = fold_graphnet(backbone, channels, bodies, taken)
    else:
        raise TypeError(f"there is no fold of {type(backbone).__name__}; write one beside export/fold_stgcn.py")
    return made.eval().requires_grad_(False)
