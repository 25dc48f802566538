"""Which engine is chosen and why; what is refused; and that a GPU that fails loses no window."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from realtime import backends
from realtime.backends import Falling, open_engine, timed
from realtime.bundle import Bundle, load_bundle, load_reference
from realtime.engine import OrtEngine
from realtime.errors import BundleError, GpuError, UsageError
from realtime.graphs import Graph
from realtime.scoring import tolerances, verify
from realtime.sidecar import contract_of
from tests.realtime.hands import STRONG, gate, model, write_hands

onnx = pytest.importorskip("onnx", reason="the tiny model is made with the onnx package, which is not installed")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Bundle]:
    """A bundle with further graphs: make(int8=(graph, gate))."""
    return lambda **graphs: load_bundle(write_hands(tmp_path / "hands", **graphs))


@pytest.fixture
def no_gpu(monkeypatch) -> None:
    monkeypatch.setattr(backends, "driver_problem", lambda: "no NVIDIA driver is installed (libcuda.so.1: not there)")


class Slow:
    """An engine that takes so many milliseconds, and fails at the call given by `fails_at`."""

    backend, why = "fake-1.0/gpu", "a fake"

    def __init__(self, inner: OrtEngine, ms: float = 0.0, fails_at: int = 0) -> None:
        self.inner, self.ms, self.fails_at = inner, ms, fails_at
        self.precision, self.calls, self.closed = inner.precision, 0, False

    def infer(self, skeleton):
        self.calls += 1
        if self.calls == self.fails_at:
            raise GpuError("cuStreamSynchronize failed: CUDA_ERROR_LAUNCH_FAILED")
        time.sleep(self.ms / 1e3)
        return self.inner.infer(skeleton)

    def close(self) -> None:
        self.closed = True
        raise GpuError("cuMemFree failed: CUDA_ERROR_LAUNCH_FAILED")


def test_without_a_gpu_auto_is_the_cpu_and_says_so(make, no_gpu):
    engine = open_engine(make(), precision="auto")
    assert engine.backend.endswith("/cpu") and engine.precision == "fp32"
    assert engine.why.endswith("fp32: the bundle has no int8 graph; no NVIDIA driver is installed")


def test_the_faster_graph_is_taken_and_the_times_are_told(make, no_gpu):
    bundle = make(int8=(model(), gate()))
    skeleton = load_reference(bundle).skeleton
    slow, fast = Slow(OrtEngine(bundle), 4.0), Slow(OrtEngine(bundle, precision="int8"), 0.5)
    slow.close = fast.close = lambda: None
    best = backends._faster([slow, fast], skeleton)
    assert best is fast
    assert best.why.startswith("int8: 0.") and " ms a window against 4" in best.why and "for fp32" in best.why
    assert abs(slow.calls - fast.calls) <= 1  # in turns, so that other work on this machine hits both alike


def test_of_two_graphs_that_are_about_as_fast_fp32_is_taken_each_time(make, monkeypatch):
    bundle = make(int8=(model(), gate()))
    for fp32_ms, int8_ms, best in ((1.0, 0.95, "fp32"), (1.0, 1.2, "fp32"), (1.0, 0.8, "int8")):
        monkeypatch.setattr(backends, "timed", lambda engines, skeleton, said=(fp32_ms, int8_ms): list(said))
        assert open_engine(bundle, "ort", precision="auto").precision == best


def test_an_overruled_gate_is_told(make, monkeypatch):
    monkeypatch.setattr(backends, "timed", lambda engines, skeleton: [1.0, 0.5])
    engine = open_engine(make(int8=(model(), gate(passed=False, allowed=True))), "ort", precision="auto")
    assert engine.precision == "int8" and "its gate was overruled" in engine.why


def test_timing_takes_little_time(make):
    engine = OrtEngine(make())
    begun = time.perf_counter()
    medians = timed([engine, engine], load_reference(make()).skeleton)
    assert len(medians) == 2 and min(medians) > 0
    assert time.perf_counter() - begun < 1.0


def test_one_of_the_graphs_that_passed_runs_under_auto(make, no_gpu):
    engine = open_engine(make(int8=(model(), gate())), precision="auto")
    assert engine.precision in ("fp32", "int8")
    assert "ms a window against" in engine.why


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_demanded_precision_is_what_runs(make, no_gpu, precision):
    engine = open_engine(make(int8=(model(), gate())), "ort", precision=precision)
    assert engine.precision == precision


def test_a_failed_gate_is_refused_where_demanded_and_left_out_under_auto(make, no_gpu):
    bundle = make(int8=(model(), gate(passed=False, agreement=0.9)))
    with pytest.raises(BundleError, match=r"its int8 graph failed: 90.00% of 1000 windows agree with fp32") as caught:
        open_engine(bundle, precision="int8")
    assert "--allow-drop" in str(caught.value) and "\n" not in str(caught.value)
    engine = open_engine(bundle, precision="auto")
    assert engine.precision == "fp32" and "its int8 graph failed: 90.00%" in engine.why


def test_a_failed_gate_that_was_overruled_runs(make, no_gpu):
    bundle = make(int8=(model(), gate(passed=False, allowed=True)))
    assert open_engine(bundle, precision="int8").precision == "int8"


def test_a_graph_may_be_as_far_from_the_reference_as_twice_its_gate_found(make, no_gpu):
    assert tolerances(Graph("model.onnx")) == {"logits": 1e-3, "embedding": 1e-3}
    off = model(STRONG * 1.01)  # a hundredth: up to 0.25 of the logits
    found = {"logits": 0.2, "embedding": 0.0}
    assert open_engine(make(int8=(off, gate(reference=found))), precision="int8").precision == "int8"
    exact = make(int8=(off, gate(reference={"logits": 1e-3, "embedding": 0.0})))
    with pytest.raises(BundleError, match=r"in int8 on onnxruntime.* logits differs from reference.npz by"):
        open_engine(exact, precision="int8")
    engine = open_engine(exact, precision="auto")
    assert engine.precision == "fp32" and "int8 does not give its reference results here" in engine.why


def test_another_best_class_that_is_clear_fails_the_proof(make):
    class Swapped(Slow):
        def infer(self, skeleton):
            logits, embedding = self.inner.infer(skeleton)
            return logits[:, ::-1], embedding

    bundle = make()
    clear = np.diff(np.sort(load_reference(bundle).logits, axis=1))[:, -1].max()  # between the two best
    with pytest.raises(BundleError, match="logits differs from reference"):
        verify(Swapped(OrtEngine(bundle)), bundle, {"logits": clear / 2, "embedding": 1e-3})


def test_a_graph_of_other_joints_is_refused_although_every_hash_fits(make, no_gpu):
    bundle = make()
    contract = json.loads(json.dumps(contract_of(bundle)))
    assert open_engine(make(int8=(told(contract), gate())), precision="int8").precision == "int8"
    for key, value in (("joints", contract["joints"][::-1]), ("classes", contract["classes"][::-1])):
        bundle = make(int8=(told({**contract, key: value}), gate()))
        with pytest.raises(BundleError, match=f"model.int8.onnx says that its {key} is"):
            open_engine(bundle, precision="int8")
    with pytest.raises(BundleError, match="a contract in its metadata that is not JSON"):
        open_engine(make(int8=(told("{", raw=True), gate())), precision="int8")


def told(contract: object, raw: bool = False) -> bytes:
    """The model with this contract in its metadata."""
    graph = onnx.load_model_from_string(model())
    onnx.helper.set_model_props(graph, {"contract": contract if raw else json.dumps(contract)})
    return bytes(graph.SerializeToString())


@pytest.mark.parametrize("backend", ["trt", "rtx", "ort-cuda"])
def test_a_demanded_gpu_that_is_not_there_is_code_6(make, no_gpu, backend):
    with pytest.raises(GpuError, match=f"backend {backend} was demanded but no NVIDIA driver") as caught:
        open_engine(make(), backend, precision="auto")
    assert caught.value.exit_code == 6
    if backend != "ort-cuda":
        assert str(caught.value).endswith(f"/hands --backend {backend} --precision fp16")


def test_a_demanded_engine_that_nobody_built_is_code_3_and_ends_in_the_command(make, monkeypatch):
    monkeypatch.setattr(backends, "driver_problem", lambda: None)
    monkeypatch.setattr(backends, "cached_engine", lambda bundle, kind, precision: None)
    with pytest.raises(BundleError, match="no trt engine of it for this machine was built yet") as caught:
        open_engine(make(), "trt", precision="int8")
    assert str(caught.value).endswith("/hands --backend trt --precision int8")


def test_a_provider_that_falls_back_in_silence_is_noticed(make, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda data, options, **others: real(data, options, ["CPUExecutionProvider"])
    )
    with pytest.raises(GpuError, match="fell back to the CPU") as caught:
        OrtEngine(make(), provider="cuda")
    assert "pip install 'onnxruntime-gpu[cuda,cudnn]'" in str(caught.value)


def test_cuda_that_fails_on_loading_is_a_gpu_error_and_onnxruntime_may_not_go_on_by_itself(make, monkeypatch):
    import onnxruntime

    def session(data, options, providers, enable_fallback):
        assert not enable_fallback  # else it prints, takes the CPU and goes on
        raise RuntimeError("CUDA failure 2: out of memory")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(GpuError, match=r"out of memory.*use --backend ort"):
        OrtEngine(make(), provider="cuda")


def test_an_fp16_graph_that_the_gpu_cannot_run_is_left_out(make, monkeypatch):
    class Half(OrtEngine):
        def __init__(self, bundle, threads, precision, provider):
            if precision == "fp16":
                raise GpuError("no kernel for float16")
            super().__init__(bundle, threads, precision)

    monkeypatch.setattr(backends, "driver_problem", lambda: None)
    monkeypatch.setattr(backends, "OrtEngine", Half)
    engine = open_engine(make(fp16=(model(), gate("fp16"))), "ort-cuda", precision="auto")
    assert engine.precision == "fp32" and "no kernel for float16" in engine.why


def test_auto_takes_the_first_that_is_ready_and_says_why_not_the_others(make, monkeypatch):
    bundle = make()
    tried: list[str] = []

    def open_gpu(bundle, backend, threads, precision):
        tried.append(backend)
        if backend == "trt":
            raise GpuError("backend trt was demanded but TensorRT cannot be imported")
        return OrtEngine(bundle)

    monkeypatch.setattr(backends, "driver_problem", lambda: None)
    monkeypatch.setattr(backends, "all_cached", lambda: iter([Path("an.engine")]))
    monkeypatch.setattr(backends, "_open_gpu", open_gpu)
    engine = open_engine(bundle)
    assert tried == ["trt", "rtx"] and isinstance(engine, Falling)
    assert engine.why.endswith("not trt: TensorRT cannot be imported")


def test_a_gpu_that_fails_loses_no_window_and_says_so_once(make):
    bundle = make()
    skeleton = load_reference(bundle).skeleton
    wanted = OrtEngine(bundle).infer(skeleton)
    gpu = Slow(OrtEngine(bundle), fails_at=3)
    engine = Falling(gpu, bundle, threads=1)
    for call in range(5):
        for got, expected in zip(engine.infer(skeleton), wanted, strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-6)
        assert (engine.fell_back is None) == (call < 2)
    assert gpu.calls == 3 and gpu.closed
    assert engine.backend.endswith("/cpu") and engine.why == engine.fell_back
    assert engine.why.startswith("fake-1.0/gpu failed while running (cuStreamSynchronize failed")
    assert "going on with onnxruntime-" in engine.why


def test_a_demand_for_the_trained_models_own_numbers_holds_on_the_cpu_as_well(make):
    bundle = make(int8=(model(), gate()))
    skeleton = load_reference(bundle).skeleton
    engine = Falling(Slow(OrtEngine(bundle), fails_at=1), bundle, threads=1, precision="fp32")
    engine.infer(skeleton)
    assert engine.fell_back and engine.precision == "fp32" and engine._engine.why == "fp32, as asked"


def test_a_second_failure_is_an_error(make):
    bundle = make()
    skeleton = load_reference(bundle).skeleton
    engine = Falling(Slow(OrtEngine(bundle), fails_at=1), bundle, threads=1)
    engine.infer(skeleton)
    engine._engine = Slow(OrtEngine(bundle), fails_at=1)
    with pytest.raises(GpuError):
        engine.infer(skeleton)


def test_names_and_flags_that_make_no_sense_are_refused(make):
    bundle = make()
    with pytest.raises(UsageError, match="backend must be one of auto, trt, rtx, ort-cuda, ort, got 'cuda'"):
        open_engine(bundle, "cuda")
    with pytest.raises(UsageError, match="precision must be one of auto, fp32, fp16, int8, got 'bf16'"):
        open_engine(bundle, precision="bf16")
    with pytest.raises(UsageError, match="--backend ort takes none"):
        open_engine(bundle, "ort", engine=Path("x.engine"))
    with pytest.raises(UsageError, match="the file that --engine names"):
        open_engine(bundle, trust=True)
    with pytest.raises(BundleError, match="it has no fp16 graph, only fp32"):
        open_engine(bundle, "ort", precision="fp16")
