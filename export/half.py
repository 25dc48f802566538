"""Puts float16 into a graph: every node computes in it but those that are named, with casts where the two meet."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from realtime.errors import BundleError

# What makes its own type, or has nothing of it.
UNTOUCHED = ("Shape", "Cast", "CastLike", "Constant", "ConstantOfShape", "Range", "Size")
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


def halved(model: ModelProto, kept: Collection[str]) -> ModelProto:
    """The graph in float16 with float32 inputs and outputs. kept: names of nodes that stay float32.

    Raises BundleError where a weight is beyond what float16 holds (65504).
    """
    return _Halver(model, kept).made()


class _Halver:
    """One graph on its way: the type that each tensor now has, and the new list of nodes."""

    def __init__(self, model: ModelProto, kept: Collection[str]) -> None:
        self.model = onnx.shape_inference.infer_shapes(model)
        self.kept = kept
        graph = self.model.graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
        self.types |= {name: tensor.data_type for name, tensor in self.constants.items()}
        self.nodes: list[NodeProto] = []
        self.there: set[str] = set()

    def made(self) -> ModelProto:
        for node in self.model.graph.node:
            copy = NodeProto()
            copy.CopyFrom(node)
            half = node.name not in self.kept and node.op_type not in UNTOUCHED
            if node.op_type not in UNTOUCHED:
                wanted = TensorProto.FLOAT16 if half else TensorProto.FLOAT
                for place, name in enumerate(node.input):
                    copy.input[place] = self._as(name, wanted)
            self.nodes.append(copy)
            for name in node.output:
                if half and self.types.get(name) == TensorProto.FLOAT:
                    self.types[name] = TensorProto.FLOAT16
        self._give_floats()
        return self._assembled()

    def _as(self, name: str, wanted: int) -> str:
        """The tensor in the type wanted; one that holds no floats as it is."""
        if self.types.get(name) not in _FLOATS or self.types[name] == wanted:
            return name
        given = f"{name}/{'half' if wanted == TensorProto.FLOAT16 else 'float'}"
        if given not in self.there:
            self.there.add(given)
            if name in self.constants:
                self._add_constant(name, given)
            else:
                self.nodes.append(helper.make_node("Cast", [name], [given], name=given, to=wanted))
        return given

    def _add_constant(self, name: str, given: str) -> None:
        with np.errstate(over="ignore"):
            value = numpy_helper.to_array(self.constants[name]).astype(np.float16)
        if not np.isfinite(value).all():
            raise BundleError(
                f"fp16 graph: the weight {name!r} holds values beyond 65504; leave fp16 out, or train it anew"
            )
        self.constants[given] = numpy_helper.from_array(value, given)

    def _give_floats(self) -> None:
        """The graph's outputs as float32 again."""
        for output in self.model.graph.output:
            if self.types[output.name] == TensorProto.FLOAT16:
                inner = f"{output.name}/half"
                for node in self.nodes:
                    for names in (node.input, node.output):
                        names[:] = [inner if name == output.name else name for name in names]
                self.nodes.append(
                    helper.make_node("Cast", [inner], [output.name], name=output.name, to=TensorProto.FLOAT)
                )

    def _assembled(self) -> ModelProto:
        used = {name for node in self.nodes for name in node.input}
        graph = self.model.graph
        for field in (graph.node, graph.initializer, graph.value_info):
            del field[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(tensor for name, tensor in self.constants.items() if name in used)
        return self.model
