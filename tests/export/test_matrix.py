"""Every backbone, head and precision is exported, parsed and built for real, as is each fault that was seen once."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from export.build import build_plan
from export.graph import to_onnx
from export.parity import Session
from export.precision import check_quantised, for_tensorrt, to_fp16, to_int8
from export.wrapper import HEADS, deployed
from realtime.errors import BundleError
from realtime.skeleton import KINECT_V2_25
from tests.export.exported import exported
from tests.export.trained_like import CHANNELS, clips, trained_like
from train.backbones import BACKBONES

MAKE = {"fp32": lambda graph: graph, "fp16": to_fp16, "int8": lambda graph: to_int8(graph, clips(16, seed=5).numpy())}
WITHIN = {"fp32": (0.0, 1.0), "fp16": (0.05, 0.95), "int8": (0.8, 0.5)}  # error, agreement
NAME = "pcle1:0123456789abcdef"


@pytest.fixture(autouse=True)
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install -e '.[trt,rtx]'")


@pytest.mark.parametrize("precision", MAKE)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_head_and_precision_becomes_an_engine(backbone: str, head: str, precision: str):
    graph = exported(backbone, head)
    check(graph, MAKE[precision](graph), precision, clips(64, seed=6).numpy())


@pytest.mark.parametrize("backbone", ["stgcn-edge", "ctrgcn-edge", "graphnet"])
def test_two_bodies_become_engines_in_every_precision(backbone: str):
    windows = {"layout": KINECT_V2_25, "bodies": 2, "frames": 32}
    graph = to_onnx(deployed(trained_like(backbone, **windows), bodies=2), (CHANNELS, 32, 25, 2))
    x = clips(48, **windows, seed=6).numpy()
    for precision, made in (("fp32", graph), ("fp16", to_fp16(graph)), ("int8", to_int8(graph, x[:16]))):
        check(graph, made, precision, x[16:])


def check(fp32: bytes, graph: bytes, precision: str, x: np.ndarray) -> None:
    """The graph's engine is built, and the graph runs on a CPU and tells windows apart as fp32 does.

    Both graphs, the device's own and TensorRT's form of it. Unrelated logits would have an error of 1.4 and agree in
    one window of seven. These networks are deeper in noise than trained ones, so int8 agrees less than a gate asks.
    """
    plan = build_plan(for_tensorrt(graph), NAME, "rtx")
    assert len(plan) > 100_000 and NAME.encode() in plan
    wanted, _ = Session(fp32).run(x)
    assert len(set(wanted.argmax(axis=1))) >= 3
    worst, least = WITHIN[precision]
    for form in {graph, for_tensorrt(graph)}:
        logits, embedding = Session(form).run(x)
        assert logits.dtype == embedding.dtype == np.float32 and np.isfinite(embedding).all()
        error = np.sqrt(((logits - wanted) ** 2).mean()) / (wanted - wanted.mean(axis=0)).std()
        agree = (logits.argmax(axis=1) == wanted.argmax(axis=1)).mean()
        assert error <= worst and agree >= least, f"{precision}: error {error:.3f}, {agree:.1%} agree"


class Reader(CalibrationDataReader):
    """What ONNX Runtime's own quantiser wants to be fed by."""

    def __init__(self) -> None:
        self._rows = iter(clips(8, seed=7).numpy())

    def get_next(self):
        row = next(self._rows, None)
        return None if row is None else {"skeleton": row[None]}


def test_a_graph_quantised_with_the_defaults_is_refused_before_tensorrt_and_by_it(tmp_path):
    (tmp_path / "model.onnx").write_bytes(exported("stgcn-edge", "skeleton"))
    quantize_static(tmp_path / "model.onnx", tmp_path / "int8.onnx", Reader())
    planted = (tmp_path / "int8.onnx").read_bytes()
    with pytest.raises(BundleError, match=r"zero point|int32 bias|unsigned"):
        check_quantised(planted)
    with pytest.raises(BundleError, match=r"TensorRT-RTX .* refuses this graph"):
        build_plan(planted, NAME, "rtx")


def test_an_int8_graph_is_the_same_numbers_in_the_form_that_tensorrt_takes():
    wide = 3 * clips(16, seed=5).numpy()  # beyond the ranges both forms differ: unsigned tensors have room there
    graph = to_int8(exported("stgcn-edge", "skeleton"), wide)
    turned = for_tensorrt(graph)
    assert turned != graph
    types = {tensor.data_type for tensor in onnx.load_from_string(turned).graph.initializer}
    assert onnx.TensorProto.UINT8 not in types
    x = {"skeleton": clips(4, seed=8).numpy()}
    both = [
        onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(["logits"], x)[0]
        for data in (graph, turned)
    ]
    assert np.abs(both[0] - both[1]).max() < 0.02 * np.abs(both[0]).max()
