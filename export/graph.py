"""A network as an ONNX graph, in bytes."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import onnx
import torch
from torch import nn

OPSET = 20  # the one value that fits TensorRT from 10.3 on, ONNX Runtime's static quantisation, and fp16 scales


def to_onnx(network: nn.Module, shape: tuple[int, ...], contract: Mapping[str, Any] | None = None) -> bytes:
    """The network as one self-contained ONNX file: skeleton (N, *shape) -> logits (N, K), embedding (N, D).

    shape is (C, T, V), or (C, T, V, M). N is free, all else static. Weights lie inside the file, so its hash covers
    them. The contract, what a program must feed, goes in as JSON under the key "contract" of the metadata.
    """
    example = torch.zeros(2, *shape)
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
    model = program.model_proto
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]  # the exporter's notes, which hold paths of this machine
        part.doc_string = ""
    if contract is not None:
        entry = model.metadata_props.add()
        entry.key, entry.value = "contract", json.dumps(contract, sort_keys=True, separators=(",", ":"))
    buffer = io.BytesIO()
    onnx.save_model(model, buffer)
    return buffer.getvalue()
