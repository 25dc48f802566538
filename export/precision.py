"""The same graph in other precisions: what a graph computes in is written in the graph, never asked of the engine.

fp32 is the trained model's own. fp16 is for GPUs. int8 is for CPUs and GPUs alike: see `to_int8`. Inputs and outputs
stay float32, and so does everything behind the last convolution (pooling, classifier, norm, class texts).
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from export.half import halved
from export.integer_form import integer_form
from export.quantise import MARK, quantised, ranges
from realtime.errors import BundleError, UsageError

PRECISIONS = ("fp32", "fp16", "int8")
FILES = {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
REMEDY = "make it with: python -m export.trt RUN --precision int8"
_EIGHT_BITS = (TensorProto.INT8, TensorProto.UINT8)


def to_fp16(graph: bytes) -> bytes:
    """The graph in float16 but for the input's normalisation and what lies behind the last convolution.

    A sum of squares over 512 values of 16 is already infinite in float16, and the 1e-12 of a norm is 0 there.
    Raises BundleError where a weight is beyond float16.
    """
    model = onnx.load_from_string(graph)
    made = halved(model, [node.name for node in _ends(model)])
    onnx.checker.check_model(made)
    return made.SerializeToString()


def to_int8(graph: bytes, windows: np.ndarray) -> bytes:
    """The graph with its convolutions in int8, for the value ranges that windows (n, C, T, V[, M]) float32 show.

    Convolutions that read the window itself, matrix products and what lies behind the last convolution stay float.
    Symmetric and with zero points of 0 throughout, which TensorRT demands; a tensor behind a ReLU is unsigned, in which
    ONNX Runtime on a CPU folds the ReLU into the convolution (1.5 times faster), but fills 0 to 127 only, so that
    `for_tensorrt` can make it signed without touching a number. Raises UsageError for windows of another shape.
    """
    model = onnx.load_from_string(graph)
    wanted = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
    if windows.dtype != np.float32 or list(windows.shape[1:]) != wanted or not len(windows):
        raise UsageError(
            f"calibration needs float32 windows (n, {', '.join(map(str, wanted))}), got {windows.dtype} {windows.shape}"
        )
    model = integer_form(model)
    made = quantised(model, ranges(model, windows))
    onnx.checker.check_model(made)
    data = made.SerializeToString()
    check_quantised(data)
    return data


def check_quantised(graph: bytes) -> None:
    """BundleError naming the node where TensorRT's parser would refuse this int8 graph, or read it otherwise."""
    model = onnx.load_from_string(graph)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    foreign = [n for n in model.graph.node if n.op_type.startswith(("QLinear", "Dynamic")) or "Integer" in n.op_type]
    if foreign:
        raise BundleError(
            f"int8 graph: {foreign[0].op_type} {foreign[0].name!r} is ONNX Runtime's own; TensorRT takes "
            f"QuantizeLinear and DequantizeLinear alone; {REMEDY}"
        )
    if not pairs:
        raise BundleError(f"int8 graph: it has no QuantizeLinear, so nothing in it is int8; {REMEDY}")
    marked = any(entry.key == MARK[0] and entry.value == MARK[1] for entry in model.metadata_props)
    for node in pairs:
        what = f"int8 graph: {node.op_type} {node.name!r}"
        data = constants.get(node.input[0])
        if data is not None and data.data_type == TensorProto.INT32:
            raise BundleError(f"{what} has an int32 bias, which TensorRT refuses; leave biases float; {REMEDY}")
        zero = constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero is None or zero.data_type not in _EIGHT_BITS or np.any(numpy_helper.to_array(zero)):
            raise BundleError(f"{what} has a zero point that is not an 8-bit 0, which TensorRT refuses; {REMEDY}")
        if zero.data_type == TensorProto.UINT8 and not marked:
            raise BundleError(
                f"{what} is unsigned; TensorRT reads it as signed and would cut it at half its range; {REMEDY}"
            )


def for_tensorrt(graph: bytes) -> bytes:
    """An int8 graph in the form that every TensorRT from 10.3 on takes; other graphs come back as they are.

    The numbers stay the same: unsigned tensors become signed at the same scale, int8 weights float ones behind a
    Q/DQ pair that gives the very same int8. Raises BundleError as `check_quantised`.
    """
    model = onnx.load_from_string(graph)
    if not any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        return graph
    check_quantised(graph)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.UINT8:  # zero points: check_quantised let no other pass
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((), np.int8), tensor.name))
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        weight = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if weight is not None:
            scale = numpy_helper.to_array(constants[node.input[1]])
            values = numpy_helper.to_array(weight)
            by = scale.reshape([-1 if scale.ndim and axis == 0 else 1 for axis in range(values.ndim)])
            weight.CopyFrom(numpy_helper.from_array(values.astype(np.float32) * by, weight.name))
            given = f"{weight.name}/quantised"
            nodes.append(
                helper.make_node("QuantizeLinear", [weight.name, *node.input[1:]], [given], name=given, axis=0)
            )
            node.input[0] = given
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


def _ends(model: onnx.ModelProto) -> list[NodeProto]:
    """The nodes in front of the first convolutions and those behind the last ones."""
    after: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "Conv" or after.intersection(node.input):
            after.update(node.output)
    before: set[str] = set()
    ends = []
    for node in reversed(model.graph.node):
        leads = bool(before.intersection(node.output))
        if not leads and node.op_type != "Conv":
            ends.append(node)
        if leads or node.op_type == "Conv":
            before.update(node.input)
            if node.op_type != "Conv" and not after.intersection(node.output):
                ends.append(node)
    return ends
