"""A float graph in the form that int8 kernels like: what was folded for float alone is undone."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

LEAST_COLUMNS = 64


def integer_form(model: ModelProto) -> ModelProto:
    """The same function, for `export.quantise`: products as convolutions, floors as ReLUs."""
    made = onnx.shape_inference.infer_shapes(model)
    _products(made)
    _floors(made)
    return made


def _products(model: ModelProto) -> None:
    """Each product of a weight (C', C) with maps (N, C, L) becomes the 1x1 convolution that it is.

    Weights on the left are no int8 kernel's favourite. Products with few columns cost next to nothing and stay.
    """
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.value_info}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "MatMul" or node.input[0] not in constants:
            continue
        weight, columns = numpy_helper.to_array(constants[node.input[0]]), shapes.get(node.input[1], [])
        if weight.ndim == 2 and len(columns) == 3 and columns[2] >= LEAST_COLUMNS:
            name = f"{node.name}/kernel"
            model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(weight[:, :, None]), name))
            node.op_type, node.input[:] = "Conv", [node.input[1], name]


def _floors(model: ModelProto) -> None:
    """max(x, floor) that 1x1 convolutions alone read becomes relu(x - floor), and their biases take up the rest.

    A tensor without negative values needs no sign, and its ReLU folds into the integer kernel before it.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes.append(node)
        floor = _floor(node, constants)
        if floor is None or not all(_plain(reader, constants) for reader in readers[node.output[0]]):
            continue
        names = [f"{node.name}/{part}" for part in ("less", "above")]
        model.graph.initializer.append(numpy_helper.from_array(-floor, names[0]))
        nodes[-1] = helper.make_node("Add", [node.input[0], names[0]], [names[1]], name=names[1])
        nodes.append(helper.make_node("Relu", [names[1]], list(node.output), name=node.name))
        for reader in readers[node.output[0]]:
            weight = numpy_helper.to_array(constants[reader.input[1]])
            bias = numpy_helper.to_array(constants[reader.input[2]]) + weight[:, :, 0, 0] @ floor[:, 0, 0]
            name = f"{reader.name}/bias"
            model.graph.initializer.append(numpy_helper.from_array(bias.astype(np.float32), name))
            reader.input[2] = name
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _floor(node: NodeProto, constants: dict[str, TensorProto]) -> np.ndarray | None:
    """The floor (C, 1, 1) of a Max, or None for any other node."""
    if node.op_type != "Max" or len(node.input) != 2 or node.input[1] not in constants:
        return None
    floor = numpy_helper.to_array(constants[node.input[1]])
    return floor if floor.ndim == 3 and floor.shape[1:] == (1, 1) else None


def _plain(node: NodeProto, constants: dict[str, TensorProto]) -> bool:
    """Whether a node is a 1x1 convolution of all channels, with a bias; its padding would be of the floor."""
    if node.op_type != "Conv" or len(node.input) != 3 or not {node.input[1], node.input[2]} <= constants.keys():
        return False
    groups = [attribute.i for attribute in node.attribute if attribute.name == "group"]
    padded = any(any(attribute.ints) for attribute in node.attribute if attribute.name == "pads")
    return tuple(constants[node.input[1]].dims[2:]) == (1, 1) and groups in ([], [1]) and not padded
