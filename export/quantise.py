"""Puts int8 into a graph: Q/DQ pairs around convolutions and around what lies between them.

ONNX Runtime turns DQ -> operation -> Q into one integer kernel, and so does TensorRT. What is not worth it, or would
cost accuracy, reads floats.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, helper, numpy_helper

MARK = ("quantised", "symmetric; unsigned tensors fill 0 to 127")  # metadata: unsigned may be read as signed
MOST = 127
MOVING = ("MaxPool", "Split", "Slice", "Reshape", "Transpose")  # give values that they took: one scale on both sides
BETWEEN = (*MOVING, "Relu", "Add", "Concat")
AT_ONCE = 8 * 9 * 64 * 16  # input values in a call: eight live windows; every tensor asked for is held for each
WITHIN = 0.9  # of the windows that calibrate; of 0.8 to 1, logits move least with this


def ranges(model: ModelProto, windows: np.ndarray) -> dict[str, float]:
    """How large the values of each tensor get that int8 is for: what WITHIN of windows (n, C, T, V[, M]) stay below.

    The largest value of all would be that of one odd window, and every other would pay for it in coarser steps.
    """
    watched = ModelProto()
    watched.CopyFrom(model)
    asked = _Quantiser(model, {}).touched() - {output.name for output in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name in asked]
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    floats = [output.name for output in session.get_outputs() if output.name in asked and "float" in output.type]
    largest: dict[str, list[np.ndarray]] = {name: [] for name in floats}
    fed = {model.graph.input[0].name}  # all that depends on the windows, with one body or two to each
    for node in model.graph.node:
        if fed.intersection(node.input):
            fed.update(node.output)
    size = max(AT_ONCE // windows[0].size, 1)
    for at in range(0, len(windows), size):
        batch = windows[at : at + size]
        values = session.run(floats, {session.get_inputs()[0].name: batch})
        for name, value in zip(floats, values, strict=True):
            if name in fed:  # else a constant, which is quantised from itself
                largest[name].append(np.abs(value).reshape(len(batch), -1).max(axis=1, initial=0.0))
    return {
        name: float(np.quantile(np.concatenate(each), WITHIN, method="lower")) for name, each in largest.items() if each
    }


def quantised(model: ModelProto, largest: dict[str, float]) -> ModelProto:
    """The graph with Q/DQ pairs for these ranges (see `ranges`)."""
    return _Quantiser(model, largest).made()


class _Quantiser:
    """One graph on its way: which nodes work on int8, which tensors are int8 and at which scale."""

    def __init__(self, model: ModelProto, largest: dict[str, float]) -> None:
        self.model, self.largest = model, largest
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.maker = {name: node for node in model.graph.node for name in node.output}
        self.users: dict[str, list[NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self.users[name].append(node)
        self.inside = self._inside()
        self.wanted = self._wanted()
        self.scales = self._scales()
        self.nodes: list[NodeProto] = []
        self.added: dict[str, np.ndarray] = {}

    def made(self) -> ModelProto:
        for node in self.model.graph.node:
            works, copy = node.name in self.inside, NodeProto()
            copy.CopyFrom(node)
            for place, name in enumerate(node.input):
                if name in self.wanted and (works or self.maker[name].name in self.inside):
                    copy.input[place] = self._dequantised(name, node)
                elif works and node.op_type == "Conv" and place == 1:
                    copy.input[place] = self._weight(name)
            self.nodes.append(copy)
            for name in node.output:
                if name in self.wanted:
                    self._quantise(name)
        return self._assembled()

    def _inside(self) -> set[str]:
        """Names of the nodes that work on int8: convolutions of int8's kind, and what lies between them.

        The first ones see raw values, which differ most in size. Grouped ones scale channels by what may differ a
        hundredfold, and have few multiplications to save.
        """
        after: set[str] = set()  # tensors that some convolution has a part in
        chosen: set[str] = set()
        for node in self.model.graph.node:
            if node.op_type == "Conv" and node.input[0] in after and not _grouped(node):
                chosen.add(node.name)
            if node.op_type == "Conv" or after.intersection(node.input):
                after.update(node.output)
        between = [node for node in self.model.graph.node if node.op_type in BETWEEN]
        for node in between:
            makers = [self.maker[name].name for name in node.input if name in self.maker]
            if makers and chosen.issuperset(makers) and len(makers) == self._floats_in(node):
                chosen.add(node.name)
        for node in reversed(between):  # where nobody behind takes int8, floats serve as well
            readers = [user for name in node.output for user in self.users[name]]
            if node.op_type != "Relu" and not any(reader.name in chosen for reader in readers):
                chosen.discard(node.name)
        return chosen

    def _floats_in(self, node: NodeProto) -> int:
        """How many inputs of a node carry values, not shapes and axes."""
        return len(node.input) if node.op_type in ("Add", "Concat") else 1

    def _folds(self, name: str) -> bool:
        """Whether a tensor vanishes: the ReLU that alone reads it is folded into the node that makes it."""
        readers = self.users[name]
        return len(readers) == 1 and readers[0].op_type == "Relu" and readers[0].name in self.inside

    def _wanted(self) -> set[str]:
        """The tensors that get a Q/DQ pair."""
        return {name for name in self.touched() if name in self.largest}

    def touched(self) -> set[str]:
        """All that nodes of int8 read and make; constants and shapes as well."""
        nodes = (node for node in self.model.graph.node if node.name in self.inside)
        return {name for node in nodes for name in (*node.input, *node.output) if not self._folds(name)}

    def _scales(self) -> dict[str, np.float32]:
        """The scale of each wanted tensor; those that a moving node joins share one."""
        group = {name: name for name in self.wanted}

        def head(name: str) -> str:
            while group[name] != name:
                name = group[name]
            return name

        for node in self.model.graph.node:
            if node.name in self.inside and node.op_type in MOVING:
                for name in node.output:
                    group[head(name)] = head(node.input[0])
        most: dict[str, float] = defaultdict(float)
        for name in self.wanted:
            most[head(name)] = max(most[head(name)], self.largest[name])
        return {name: np.float32(max(most[head(name)], 1e-6) / MOST) for name in self.wanted}

    def _unsigned(self, name: str) -> bool:
        """Whether a tensor has no negative values: it comes from a ReLU, or was only moved since."""
        maker = self.maker[name]
        return maker.op_type == "Relu" or (maker.op_type in MOVING and self._unsigned(maker.input[0]))

    def _quantise(self, name: str) -> None:
        self.added[f"{name}/scale"] = np.asarray(self.scales[name])
        self.added[f"{name}/zero"] = np.zeros((), np.uint8 if self._unsigned(name) else np.int8)
        given = f"{name}/int8"
        self.nodes.append(helper.make_node("QuantizeLinear", _triple(name, name), [given], name=given))

    def _dequantised(self, name: str, reader: NodeProto) -> str:
        """A float tensor of an int8 one for one reader alone: kernels fuse with a DQ that nobody else reads."""
        given = f"{name}/float for {reader.name}"
        if all(node.name != given for node in self.nodes[-3:]):  # x + x reads it twice
            self.nodes.append(helper.make_node("DequantizeLinear", _triple(f"{name}/int8", name), [given], name=given))
        return given

    def _weight(self, name: str) -> str:
        """A convolution's weight (C', ...) in int8, one scale for each output channel."""
        given = f"{name}/float"
        if f"{name}/int8" not in self.added:
            weight = numpy_helper.to_array(self.constants[name])
            scale = np.maximum(np.abs(weight).max(axis=tuple(range(1, weight.ndim))), 1e-9) / MOST  # (C',)
            levels = np.rint(weight / scale.reshape(-1, *(1,) * (weight.ndim - 1)))
            self.added[f"{name}/int8"] = levels.clip(-MOST, MOST).astype(np.int8)
            self.added[f"{name}/scale"] = scale.astype(np.float32)
            self.added[f"{name}/zero"] = np.zeros(len(scale), np.int8)
            self.nodes.append(
                helper.make_node("DequantizeLinear", _triple(f"{name}/int8", name), [given], name=given, axis=0)
            )
        return given

    def _assembled(self) -> ModelProto:
        made = ModelProto()
        made.CopyFrom(self.model)
        used = {name for node in self.nodes for name in node.input}
        for field in (made.graph.node, made.graph.initializer, made.graph.value_info):
            del field[:]
        made.graph.node.extend(self.nodes)
        made.graph.initializer.extend(tensor for name, tensor in self.constants.items() if name in used)
        made.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in self.added.items())
        entry = made.metadata_props.add()
        entry.key, entry.value = MARK
        return made


def _grouped(node: NodeProto) -> bool:
    return any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)


def _triple(data: str, of: str) -> list[str]:
    """Inputs of a Q or DQ node on `data`, which is tensor `of` in int8 or float."""
    return [data, f"{of}/scale", f"{of}/zero"]
