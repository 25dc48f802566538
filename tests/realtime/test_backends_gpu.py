"""TensorRT chosen, proven, named by --engine, and left for the CPU when it fails; the library and the GPU are fakes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from realtime.backends import Falling, open_engine
from realtime.bundle import Bundle, load_bundle, load_reference
from realtime.engine import OrtEngine
from realtime.errors import BundleError
from tests.realtime import fake_cuda, fake_trt
from tests.realtime.engines import put
from tests.realtime.fake_trt import FakeTrt
from tests.realtime.hands import gate, model, weights, write_hands


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """Hands in fp32 and fp16, and an empty cache."""
    pytest.importorskip("onnx", reason="the tiny model is made with the onnx package, which is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return load_bundle(write_hands(tmp_path / "hands", fp16=(model(), gate("fp16"))))


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> FakeTrt:
    """A GPU, and a TensorRT whose engine computes what the bundle's graphs do."""

    def answers(skeleton: np.ndarray, classes: int, gain: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        matrix, bias = weights()
        logits = (skeleton.reshape(len(skeleton), -1) @ matrix + bias) * gain
        return logits, np.tile(np.float32([1, 0]), (len(skeleton), 1))

    monkeypatch.setattr(fake_trt, "WIDTH", 2)
    monkeypatch.setattr(fake_trt, "answers", answers)
    fake_cuda.install(monkeypatch)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)  # it is not installed
    return fake_trt.install(monkeypatch, bundle)


@pytest.mark.parametrize(
    ("backend", "precision"), [("auto", "auto"), ("auto", "fp16"), ("trt", "auto"), ("trt", "fp16")]
)
def test_an_engine_that_was_built_here_runs_and_says_so(bundle, trt, backend, precision):
    path = put(bundle)
    engine = open_engine(bundle, backend, precision=precision)
    assert (engine.backend, engine.precision) == ("tensorrt-10.3.0/Orin", "fp16")
    assert engine.why == f"fp16 in {path.name}"
    engine.close()


def test_the_cpu_runs_under_auto_until_an_engine_is_built(bundle, trt):
    engine = open_engine(bundle, precision="auto")
    assert engine.backend.endswith("/cpu")
    assert f"no TensorRT engine was built here: python -m export.trt {bundle.path} --backend trt" in engine.why
    assert "not ort-cuda: onnxruntime" in engine.why and "demanded" not in engine.why
    assert trt.calls == []  # nothing of NVIDIA's was touched


def test_an_engine_of_another_precision_is_not_taken_and_the_command_is_told(bundle, trt):
    put(bundle)
    with pytest.raises(BundleError, match="no trt engine of it for this machine was built yet") as caught:
        open_engine(bundle, "trt", precision="fp32")
    assert str(caught.value).endswith(f"python -m export.trt {bundle.path} --backend trt --precision fp32")
    assert open_engine(bundle, precision="fp32").backend.endswith("/cpu")


def test_an_engine_that_is_not_the_trained_model_is_refused_and_auto_goes_on(bundle, trt):
    put(bundle)
    trt.gain = 1.5
    with pytest.raises(BundleError, match=r"in fp16 on tensorrt-10.3.0/Orin logits differs from reference") as caught:
        open_engine(bundle, "trt", precision="auto")
    # What is in the cache fits by its sidecar, so without the flag it would be kept.
    assert str(caught.value).endswith(f"python -m export.trt {bundle.path} --backend trt --precision fp16 --replace")
    engine = open_engine(bundle, precision="auto")
    assert engine.backend.endswith("/cpu") and "not trt: bundle" in engine.why
    assert "not rtx: TensorRT-RTX cannot be imported" in engine.why


def test_an_engine_file_that_is_named_runs_whatever_the_cache_holds(bundle, trt, tmp_path, monkeypatch):
    elsewhere = put(bundle, folder=tmp_path / "usb")
    with pytest.raises(BundleError, match="give --trust where you know who built it"):
        open_engine(bundle, precision="auto", engine=elsewhere)
    engine = open_engine(bundle, precision="auto", engine=elsewhere, trust=True)
    assert isinstance(engine, Falling) and engine.precision == "fp16"
    with pytest.raises(BundleError, match="it is of precision fp16, not fp32"):
        open_engine(bundle, precision="fp32", engine=elsewhere, trust=True)
    fake_trt.install(monkeypatch, bundle, "tensorrt_rtx", "1.7.1.116")
    with pytest.raises(BundleError, match="it is of backend trt, not rtx"):
        open_engine(bundle, "rtx", precision="auto", engine=elsewhere, trust=True)
    shutil.rmtree(tmp_path / "usb")
    with pytest.raises(BundleError, match=r"no such file; build it: python -m export\.trt"):
        open_engine(bundle, precision="auto", engine=elsewhere, trust=True)


def test_tensorrt_that_fails_while_running_is_left_for_the_cpu_with_the_same_windows(bundle, trt):
    put(bundle)
    engine = open_engine(bundle, "trt", precision="auto")
    skeleton = load_reference(bundle).skeleton
    wanted = OrtEngine(bundle).infer(skeleton)
    np.testing.assert_allclose(engine.infer(skeleton)[0], wanted[0], atol=1e-4)
    trt.fail["execute_async_v3"] = "an illegal memory access was encountered"
    np.testing.assert_allclose(engine.infer(skeleton)[0], wanted[0], atol=1e-4)
    assert engine.backend.endswith("/cpu")
    assert "an illegal memory access was encountered" in engine.why and "\n" not in engine.why


def test_tensorrt_that_gives_numbers_that_are_none_is_left_for_the_cpu(bundle, trt):
    put(bundle)
    engine = open_engine(bundle, "trt", precision="auto")
    skeleton = load_reference(bundle).skeleton
    trt.gain = np.nan
    np.testing.assert_allclose(engine.infer(skeleton)[0], OrtEngine(bundle).infer(skeleton)[0], atol=1e-4)
    assert engine.backend.endswith("/cpu") and "values of logits that are not finite" in engine.why
