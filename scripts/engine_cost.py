"""What a graph must compute, and how fast a core computes at best: the time below which no engine can go."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

SIZE = 1024  # of the square matrices that a peak is measured on


def session(graph: bytes, threads: int) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU, as the runtime opens it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class Macs(NamedTuple):
    """Multiply-adds: of floats, and of int8, whose operands come out of DequantizeLinear."""

    fp32: int
    int8: int


def macs(graph: bytes, batch: int) -> Macs:
    """Multiply-adds of the convolutions and matrix products of a graph at a batch. ValueError for unknown shapes."""
    model = onnx.load_from_string(graph)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[0].ClearField("dim_param")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    floats = integers = 0
    dequantised = {node.output[0] for node in inferred.node if node.op_type == "DequantizeLinear"}
    for node in inferred.node:
        if node.op_type not in ("Conv", "MatMul", "Gemm"):
            continue
        made, left, right = (shapes.get(name) for name in (node.output[0], *node.input[:2]))
        if not (made and left and right and all((*made, *left, *right))):
            raise ValueError(f"{node.op_type} {node.name!r} has an unknown shape: {left} by {right} to {made}")
        if node.op_type == "Conv":
            each = math.prod(right[1:])
        elif node.op_type == "MatMul":
            each = left[-1]
        else:
            each = left[0 if any(a.name == "transA" and a.i for a in node.attribute) else 1]
        if dequantised.issuperset(node.input[:2]):
            integers += math.prod(made) * each
        else:
            floats += math.prod(made) * each
    return Macs(floats, integers)


def _product(kind: int) -> bytes:
    """A graph of one int8 matrix product with a constant, its left side of this type."""
    weight = np.random.default_rng(0).integers(-127, 127, (SIZE, SIZE)).astype(np.int8)
    node = helper.make_node("MatMulInteger", ["skeleton", "weight"], ["product"])
    inputs = [helper.make_tensor_value_info("skeleton", kind, [SIZE, SIZE])]
    outputs = [helper.make_tensor_value_info("product", TensorProto.INT32, [SIZE, SIZE])]
    made = helper.make_graph([node], "peak", inputs, outputs, [numpy_helper.from_array(weight, "weight")])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


@dataclass
class Peaks:
    """The most multiply-adds a second that large products reached so far; to be measured now and then during a run."""

    threads: int
    fp32: float = 0.0
    int8: float = 0.0

    def __post_init__(self) -> None:
        self._square = torch.rand(SIZE, SIZE)
        values = np.random.default_rng(1).integers(0, 127, (SIZE, SIZE))
        self._int8: list[tuple[onnxruntime.InferenceSession, np.ndarray]] = [
            (session(_product(kind), self.threads), values.astype(dtype))
            for kind, dtype in ((TensorProto.UINT8, np.uint8), (TensorProto.INT8, np.int8))
        ]

    def measure(self) -> None:
        """Takes a few products of each kind and keeps the best."""
        self.fp32 = max(self.fp32, _fastest(lambda: self._square @ self._square))
        for each, values in self._int8:
            self.int8 = max(self.int8, _fastest(lambda e=each, v=values: e.run(None, {"skeleton": v})))  # type: ignore[misc]


def _fastest(product: Callable[[], object]) -> float:
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - begun)
    return SIZE**3 / min(seconds)
