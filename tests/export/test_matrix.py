"""Every backbone, head and precision is exported, parsed and built for real, as is each fault that was seen once."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from export.build import build_plan
from export.precision import check_quantised, for_tensorrt, to_fp16, to_int8
from export.wrapper import HEADS
from realtime.errors import BundleError
from tests.export.exported import exported
from tests.export.trained_like import clips
from train.backbones import BACKBONES

MAKE = {"fp32": lambda graph: graph, "fp16": to_fp16, "int8": lambda graph: to_int8(graph, clips(16, seed=5).numpy())}
NAME = "pcle1:0123456789abcdef"


@pytest.fixture(autouse=True)
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install -e '.[trt,rtx]'")


@pytest.mark.parametrize("precision", MAKE)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_head_and_precision_becomes_an_engine(backbone: str, head: str, precision: str):
    graph = MAKE[precision](exported(backbone, head))
    plan = build_plan(for_tensorrt(graph), NAME, "rtx")
    assert len(plan) > 100_000 and NAME.encode() in plan
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])  # and runs on a CPU
    logits, embedding = session.run(["logits", "embedding"], {"skeleton": clips(2, seed=6).numpy()})
    assert logits.dtype == embedding.dtype == np.float32 and np.isfinite(logits).all()


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
    graph = MAKE["int8"](exported("stgcn-edge", "skeleton"))
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
