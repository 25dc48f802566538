import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.integer_form import integer_form

RNG = np.random.default_rng(0)
C, V, T = 3, 4, 32


def model(nodes, constants, shape=(C, V, T)):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(made):
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.random.default_rng(1).normal(size=(2, C, V, T)).astype(np.float32)})[0]


def kinds(made):
    return [node.op_type for node in made.graph.node]


def weights(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def test_a_product_with_maps_is_a_convolution():
    plain = model(
        [
            helper.make_node("Reshape", ["x", "flat"], ["f"], name="f"),
            helper.make_node("MatMul", ["w", "f"], ["y"], name="m"),
        ],
        {"flat": np.array([-1, C, V * T]), "w": weights(5, C)},
    )
    made = integer_form(plain)
    assert kinds(made) == ["Reshape", "Conv"]
    onnx.checker.check_model(made)
    np.testing.assert_allclose(run(made), run(plain), atol=1e-5)


def test_a_product_with_few_columns_stays():
    plain = model(
        [
            helper.make_node("ReduceMean", ["x", "frames"], ["f"], name="f", keepdims=0),
            helper.make_node("MatMul", ["w", "f"], ["y"], name="m"),
        ],
        {"frames": np.array([3]), "w": weights(5, C)},
    )
    assert kinds(integer_form(plain)) == ["ReduceMean", "MatMul"]


def floored(kernel=1, group=1, other_reader=False):
    """max(x, floor) and what reads it."""
    pad = kernel // 2
    nodes = [
        helper.make_node("Max", ["x", "floor"], ["m"], name="m"),
        helper.make_node("Conv", ["m", "w", "b"], ["a"], name="a", pads=[0, pad, 0, pad], group=group),
        helper.make_node("Conv", ["m", "u", "b"], ["c"], name="c"),
        helper.make_node("Add", ["a", "c"], ["s"], name="s"),
        helper.make_node("Add", ["s", "m"], ["y"], name="y") if other_reader else
        helper.make_node("Identity", ["s"], ["y"], name="y"),
    ]  # fmt: skip
    return model(
        nodes,
        {"floor": weights(C, 1, 1), "w": weights(C, C // group, 1, kernel), "u": weights(C, C, 1, 1), "b": weights(C)},
    )


def test_a_floor_before_convolutions_is_a_relu():
    plain = floored()
    made = integer_form(plain)
    assert kinds(made) == ["Add", "Relu", "Conv", "Conv", "Add", "Identity"]
    onnx.checker.check_model(made)
    np.testing.assert_allclose(run(made), run(plain), atol=1e-5)


@pytest.mark.parametrize("others", [{"kernel": 3}, {"group": 3}, {"other_reader": True}])
def test_a_floor_that_padding_or_others_would_see_stays(others):
    plain = floored(**others)
    made = integer_form(plain)
    assert kinds(made) == kinds(plain)
    np.testing.assert_array_equal(run(made), run(plain))
