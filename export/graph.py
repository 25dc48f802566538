"""A trained network as an ONNX graph, in bytes."""

from __future__ import annotations

import io
import logging
import warnings

import onnx
import torch
from torch import nn

OPSET = 20


def to_onnx(network: nn.Module, channels: int, window: int, joints: int) -> bytes:
    """The network as one self-contained ONNX file: skeleton (N, C, T, V) -> logits (N, K), embedding (N, D).

    N is free, all else static. Weights lie inside the file, so its hash covers them.
    """
    example = torch.zeros(2, channels, window, joints)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notes of the exporter on its own internals
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            network.eval(),
            (example,),
            input_names=["skeleton"],
            output_names=["logits", "embedding"],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("N", min=1, max=1024)},),
            verbose=False,
            external_data=False,
        )
    assert program is not None  # it is None only where the exporter writes a file itself
    buffer = io.BytesIO()
    onnx.save_model(program.model_proto, buffer)
    return buffer.getvalue()
