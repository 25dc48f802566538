"""The exported graph: answers as trained at any batch, no operation but those that every runtime does well."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from export.fold import folded
from export.graph import to_onnx
from export.wrapper import HEADS, Mean, Shifted, deployed
from realtime.skeleton import CORE_16, KINECT_V2_25
from tests.export.exported import exported, network
from tests.export.trained_like import CHANNELS, CLASSES, WINDOW, clips, small_graphnet, trained_like
from train.backbones import BACKBONES

SHAPE = (CHANNELS, WINDOW, len(CORE_16))
ALLOWED = {
    "Add", "Clip", "Concat", "Conv", "Div", "Gather", "Gemm", "MatMul", "Max", "MaxPool", "Mul", "ReduceL2",
    "ReduceMean", "Relu", "Reshape", "Slice", "Split", "Sub", "Tanh", "Transpose", "Unsqueeze",
}  # fmt: skip
ALLOWED_FUSED = ALLOWED | {"Gelu", "LayerNormalization", "Softmax", "Squeeze"}


def answers(graph: bytes, x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(["logits", "embedding"], {"skeleton": x})


def worst(found: list[np.ndarray], expected: tuple[torch.Tensor, ...]) -> float:
    """The largest difference, relative to the largest value."""
    return max(
        float(np.abs(ours - theirs.numpy()).max() / theirs.abs().max())
        for ours, theirs in zip(found, expected, strict=True)
    )


def operations(graph: bytes) -> set[str]:
    model = onnx.load_from_string(graph)
    assert not model.functions
    return {node.op_type for node in model.graph.node}


def check_graph(graph: bytes, network: nn.Module, allowed: set[str], relative: float = 1e-4, **windows) -> None:
    onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)
    for batch in (1, 3, 8):
        x = clips(batch, seed=batch, **windows)
        with torch.inference_mode():
            assert worst(answers(graph, x.numpy()), network(x)) < relative
    assert operations(graph) <= allowed


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_and_head_answers_on_onnx_runtime_as_in_torch(name: str, head: str):
    check_graph(exported(name, head), network(name, head), ALLOWED_FUSED if head == "fused" else ALLOWED)


@pytest.mark.parametrize(("name", "head"), [("stgcn", "skeleton"), ("stgcn-edge", "fused")])
def test_the_fast_form_answers_alike_and_has_no_convolution_left(name: str, head: str):
    trained = trained_like(name)
    graph = to_onnx(deployed(trained, head, fast=True), SHAPE)
    allowed = (ALLOWED_FUSED if head == "fused" else ALLOWED) - {"Conv", "MaxPool"}
    check_graph(graph, deployed(trained, head), allowed, 1e-3)  # its sums and differences round more


@pytest.mark.parametrize("name", ["stgcn-edge", "ctrgcn-edge", "graphnet"])
def test_two_bodies_of_a_published_layout_answer_alike(name: str):
    network = deployed(trained_like(name, bodies=2, layout=KINECT_V2_25), bodies=2)
    graph = to_onnx(network, (CHANNELS, WINDOW, len(KINECT_V2_25), 2))
    check_graph(graph, network, ALLOWED, layout=KINECT_V2_25, bodies=2)


def test_a_mean_of_shifted_networks_answers_alike():
    network = Shifted(Mean([deployed(small_graphnet(seed=seed)) for seed in (0, 1)]), 2, CLASSES, 1.5)
    check_graph(to_onnx(network, SHAPE), network, ALLOWED)


@pytest.fixture(scope="module")
def graph() -> bytes:
    return to_onnx(deployed(small_graphnet()), SHAPE, {"window": WINDOW, "classes": ["a", "b"]})


def test_the_graph_is_one_file_with_a_free_batch_only(graph: bytes):
    model = onnx.load_from_string(graph)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [20]
    (given,) = model.graph.input
    sizes = [given, *model.graph.output]
    assert [(value.name, value.type.tensor_type.shape.dim[0].dim_param) for value in sizes] == [
        ("skeleton", "N"), ("logits", "N"), ("embedding", "N"),
    ]  # fmt: skip
    assert [[d.dim_value for d in value.type.tensor_type.shape.dim[1:]] for value in sizes] == [
        [*SHAPE], [CLASSES], [48],
    ]  # fmt: skip
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)  # stack traces name paths
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)


def test_the_contract_is_canonical_json_in_the_metadata(graph: bytes):
    found = {entry.key: entry.value for entry in onnx.load_from_string(graph).metadata_props}
    assert (
        found["contract"]
        == '{"classes":["a","b"],"window":64}'
        == json.dumps(json.loads(found["contract"]), sort_keys=True, separators=(",", ":"))
    )


def test_a_wrong_weight_in_the_graph_is_noticed(graph: bytes):
    model, x = onnx.load_from_string(graph), clips(3)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0] += 0.1
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    with torch.inference_mode():
        expected = deployed(small_graphnet())(x)
        assert worst(answers(graph, x.numpy()), expected) < 1e-4
        assert worst(answers(model.SerializeToString(), x.numpy()), expected) > 1e-3
        other = deployed(small_graphnet(seed=1))(x)
    assert worst(answers(graph, x.numpy()), other) > 1e-2


def test_a_backbone_that_cannot_be_folded_is_named():
    with pytest.raises(TypeError, match="no fold of Linear"):
        folded(nn.Linear(2, 2), 3, 1, 1)
