import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from export.graph import to_onnx
from export.integer_form import integer_form
from export.precision import check_quantised, for_tensorrt, to_fp16, to_int8
from export.quantise import MARK, ranges
from export.wrapper import deployed
from realtime.errors import BundleError, UsageError
from realtime.skeleton import KINECT_V2_25
from tests.export.trained_like import clips, small_graphnet, trained_like
from train.graphnet import GraphNet

CONTRACT = {"layout": "CORE_16"}


@pytest.fixture(scope="module")
def graph():
    return to_onnx(deployed(small_graphnet(), "both"), (9, 64, 16), CONTRACT)


@pytest.fixture(scope="module")
def windows():
    return clips(48).numpy()


@pytest.fixture(scope="module")
def int8(graph, windows):
    return to_int8(graph, windows)


@pytest.fixture(scope="module")
def fp16(graph):
    return to_fp16(graph)


def answers(graph, windows):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(["logits", "embedding"], {"skeleton": windows})


def rms(values):
    return np.sqrt((values**2).mean())


def nodes(graph, kind):
    return [node for node in onnx.load_from_string(graph).graph.node if node.op_type == kind]


def zeros(graph):
    """Types of the zero points."""
    model = onnx.load_from_string(graph)
    names = {node.input[2] for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    return {tensor.data_type for tensor in model.graph.initializer if tensor.name in names}


@pytest.mark.parametrize(("precision", "most"), [("fp16", 0.01), ("int8", 0.1)])
def test_less_precision_gives_nearly_the_same_answers(graph, windows, request, precision, most):
    made = request.getfixturevalue(precision)
    for ours, theirs in zip(answers(made, windows), answers(graph, windows), strict=True):
        assert ours.dtype == np.float32
        assert 0 < rms(ours - theirs) < most * rms(theirs)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_contract_is_carried_over(graph, request, precision):
    entries = {e.key: e.value for e in onnx.load_from_string(request.getfixturevalue(precision)).metadata_props}
    assert entries["contract"] == '{"layout":"CORE_16"}'


def test_norm_and_class_texts_stay_fp32(fp16):
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(fp16))
    types = {v.name: v.type.tensor_type.elem_type for v in (*model.graph.value_info, *model.graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for kind in ("ReduceL2", "Clip", "Div", "Gemm"):
        for node in nodes(fp16, kind):
            assert {types[name] for name in (*node.input, *node.output) if types.get(name) != TensorProto.INT64} == {
                TensorProto.FLOAT
            }, kind
    (clip,) = nodes(fp16, "Clip")
    (least,) = [tensor for tensor in model.graph.initializer if tensor.name == clip.input[1]]
    assert 0 < numpy_helper.to_array(least) < 1e-10  # float16 would have made 1e-7 of it
    assert all(types[node.output[0]] == TensorProto.FLOAT16 for node in nodes(fp16, "Conv"))


def quantised_convolutions(graph):
    return [node.name for node in nodes(graph, "Conv") if "/float" in node.input[1]]


def test_first_convolution_grouped_ones_and_head_stay_float(graph, int8):
    first, *others = nodes(int8, "Conv")
    grouped = [node.name for node in others if any(a.name == "group" and a.i > 1 for a in node.attribute)]
    chosen = [node.name for node in others if node.name not in grouped]
    assert first.name == nodes(graph, "Conv")[0].name
    assert chosen and quantised_convolutions(int8) == chosen
    assert all("/float" not in name for node in nodes(int8, "Gemm") for name in node.input)


def test_ranges_are_taken_of_what_is_quantised_alone(graph, windows, int8):
    """Of a large network all tensors together are gigabytes."""
    found = ranges(integer_form(onnx.load_from_string(graph)), windows)
    assert found.keys() == {node.input[0] for node in nodes(int8, "QuantizeLinear")}


def test_two_bodies_are_quantised_as_one_is(int8):
    shaped = {"layout": KINECT_V2_25, "bodies": 2}
    network = GraphNet(KINECT_V2_25, 9, 2, (16, 16, 32), 4)
    graph = to_onnx(deployed(trained_like(network, "graphnet", 2, KINECT_V2_25), bodies=2), (9, 64, 25, 2))
    made = to_int8(graph, clips(8, **shaped).numpy())
    assert len(nodes(made, "QuantizeLinear")) == len(nodes(int8, "QuantizeLinear")) > 0
    windows = clips(4, **shaped, seed=1).numpy()
    for ours, theirs in zip(answers(made, windows), answers(graph, windows), strict=True):
        assert 0 < np.abs(ours - theirs).max() < 0.1 * np.abs(theirs).max()


def test_onnx_runtime_makes_integer_kernels_of_every_quantised_convolution(int8, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    options.add_session_config_entry("session.qdqisint8allowed", "0")  # as on x86, whatever runs the test
    onnxruntime.InferenceSession(int8, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert kinds.count("QLinearConv") == len(quantised_convolutions(int8))
    assert kinds.count("Relu") < len(nodes(int8, "Relu")) / 3  # folded into the kernels before them


def test_tensorrts_form_has_the_same_numbers_and_no_unsigned_tensor(int8, windows):
    theirs = for_tensorrt(int8)
    assert zeros(int8) == {TensorProto.INT8, TensorProto.UINT8} and zeros(theirs) == {TensorProto.INT8}
    constants = {t.name for t in onnx.load_from_string(theirs).graph.initializer}
    assert not any(node.input[0] in constants for node in nodes(theirs, "DequantizeLinear"))
    for ours, wanted in zip(answers(theirs, windows), answers(int8, windows), strict=True):
        assert rms(ours - wanted) < 0.1 * rms(wanted)  # 0 but for what lies outside the range that calibration chose
    check_quantised(theirs)


def test_graphs_without_int8_are_left_as_they_are(graph, fp16):
    assert for_tensorrt(graph) is graph and for_tensorrt(fp16) is fp16


class Reader(CalibrationDataReader):
    def __init__(self, windows):
        self.batches = iter([{"skeleton": windows[:8]}])

    def get_next(self):
        return next(self.batches, None)


def by_onnx_runtime(graph, windows, folder, **options):
    quantize_static(onnx.load_from_string(graph), folder / "q.onnx", Reader(windows), **options)
    return (folder / "q.onnx").read_bytes()


def test_a_default_quantised_model_is_refused_as_tensorrt_would(graph, windows, tmp_path):
    made = by_onnx_runtime(graph, windows, tmp_path)
    with pytest.raises(BundleError, match=r"(Dequantize|Quantize)Linear '.+' has .*TensorRT refuses.*export\.trt"):
        check_quantised(made)
    with pytest.raises(BundleError, match="TensorRT refuses"):
        for_tensorrt(made)
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    assert not parsed(trt, made)


def test_our_form_is_parsed(int8, fp16):
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    assert parsed(trt, for_tensorrt(int8)) and parsed(trt, fp16)


def parsed(trt, graph):
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    network = trt.Builder(logger).create_network(0)
    return trt.OnnxParser(network, logger).parse(graph)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"activation_type": QuantType.QInt8, "extra_options": {"ActivationSymmetric": True}},
            "has an int32 bias, which TensorRT refuses",
        ),
        (
            {"activation_type": QuantType.QUInt8, "extra_options": {"QuantizeBias": False}},
            "is unsigned; TensorRT reads",
        ),
        ({"quant_format": QuantFormat.QOperator}, "QLinear.* is ONNX Runtime's own"),
    ],
)
def test_other_ways_to_quantise_are_refused_by_name(graph, windows, tmp_path, options, said):
    with pytest.raises(BundleError, match=said):
        check_quantised(by_onnx_runtime(graph, windows, tmp_path, **options))


def test_unsigned_tensors_over_their_whole_range_are_refused(int8):
    model = onnx.load_from_string(int8)
    kept = [entry for entry in model.metadata_props if entry.key != MARK[0]]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    with pytest.raises(BundleError, match="TensorRT reads it as signed"):
        check_quantised(model.SerializeToString())


def test_a_graph_with_nothing_quantised_is_no_int8_graph(graph):
    with pytest.raises(BundleError, match="no QuantizeLinear"):
        check_quantised(graph)


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 3, 64, 16), np.float32), np.zeros((4, 9, 64, 16)), np.zeros((0, 9, 64, 16), np.float32)]
)
def test_calibration_wants_the_networks_own_input(graph, wrong):
    with pytest.raises(UsageError, match=r"calibration needs float32 windows \(n, 9, 64, 16\)"):
        to_int8(graph, wrong)


def test_one_odd_window_does_not_coarsen_all_others(graph, windows):
    odd = windows.copy()
    odd[7] *= 100
    wanted, plain, robust = (answers(g, windows)[0] for g in (graph, to_int8(graph, windows), to_int8(graph, odd)))
    assert rms(robust - wanted) < 2 * rms(plain - wanted)


def test_a_device_converts_and_judges_without_torch():
    blocked = "import sys; sys.modules['torch'] = None; "
    code = blocked + "import export.parity, export.precision, export.windows as w; print(w.LEAST_GATE)"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1000\n"), done.stderr
