"""The runner checks an engine before and after TensorRT has it, runs any number of people, and fails in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from realtime.bundle import Bundle, load_bundle, write_bundle
from realtime.cache import cache_folder
from realtime.errors import BundleError, GpuError, LineError
from realtime.scoring import tolerances, verify
from realtime.sidecar import Source, rebuild_command, write_engine
from realtime.trt import TrtEngine, cached_engine, library
from tests.realtime import fake_cuda, fake_trt
from tests.realtime.conftest import packed
from tests.realtime.engines import KEY, NAME, PLAN, put, sidecar
from tests.realtime.fake_cuda import FakeCuda
from tests.realtime.fake_trt import FakeTrt, answers
from tests.realtime.hands import gate
from tests.realtime.test_cuda import here_is_a_driver

C, T, V, K = 9, 16, 16, 3
ONE = (-1, C, T, V)
TENSORS = {"skeleton": ONE, "logits": (-1, K), "embedding": (-1, 4)}
RTX = {"precision": "fp32", "compute_capability": "8.0+", "tensorrt": "1.7.1.116", "gpu": None}
RTX_PLAN = PLAN[:24] + bytes([1, 7, 1, 116]) + PLAN[28:]


@pytest.fixture
def bundle(tmp_path, bundle_spec, bundle_files, monkeypatch) -> Bundle:
    """Carries fp32 and fp16; its reference is what the fake engine gives."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    skeleton = np.random.default_rng(0).normal(size=(6, C, T, V)).astype(np.float32)
    logits, embedding = answers(skeleton, K)
    graphs = {
        "fp32": {"file": "model.onnx", "gate": None},
        "fp16": {"file": "model.fp16.onnx", "gate": gate("fp16")},
    }
    files = {
        "model.fp16.onnx": b"half a model",
        "reference.npz": packed(skeleton=skeleton, logits=logits, embedding=embedding),
    }
    return load_bundle(write_bundle(tmp_path / "tiny", {**bundle_spec, "graphs": graphs}, {**bundle_files, **files}))


@pytest.fixture
def gpu(monkeypatch) -> FakeCuda:
    return fake_cuda.install(monkeypatch)


@pytest.fixture
def trt(monkeypatch, bundle, gpu) -> FakeTrt:
    return fake_trt.install(monkeypatch, bundle)


def people(count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, C, T, V)).astype(np.float32)


def refusal(action: Callable[[], object], kind: type[LineError]) -> str:
    with pytest.raises(kind) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- without a driver, for real


@pytest.mark.skipif(here_is_a_driver(), reason="this machine has an NVIDIA driver")
@pytest.mark.parametrize("kind", ["tensorrt", "tensorrt_rtx"])
def test_without_a_driver_no_library_is_imported(kind):
    script = (
        "import sys, realtime.trt\n"
        "from realtime.errors import GpuError\n"
        "try:\n"
        f"    realtime.trt.library({kind!r})\n"
        "except GpuError as error:\n"
        "    print(error)\n"
        "print(sorted({name.split('.')[0] for name in sys.modules if 'tensorrt' in name}))\n"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    first, second = said.stdout.splitlines()
    assert "no NVIDIA driver is installed" in first and first.endswith("use --backend ort")
    assert second == "[]"


@pytest.mark.skipif(here_is_a_driver(), reason="this machine has an NVIDIA driver")
def test_without_a_driver_an_engine_is_not_even_looked_for(bundle, tmp_path):
    text = refusal(lambda: TrtEngine(bundle, tmp_path / "no.engine"), GpuError)
    assert "no NVIDIA driver is installed" in text


@pytest.mark.skipif(here_is_a_driver(), reason="this machine has an NVIDIA driver")
def test_the_builder_of_tensorrt_rtx_needs_no_driver():
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    assert library("tensorrt_rtx", building=True).__version__
    assert "no NVIDIA driver" in refusal(lambda: library("tensorrt", building=True), GpuError)


# --- the library


@pytest.mark.parametrize("version", ["8.6.1", "10.0.1", "10.2.0", "9.3.0.post12.dev1"])
def test_a_tensorrt_that_is_too_old_is_refused(monkeypatch, bundle, gpu, version):
    fake_trt.install(monkeypatch, bundle, version=version)
    text = refusal(lambda: library("tensorrt"), GpuError)
    assert f"needs TensorRT 10.3 or later, this is {version}" in text


@pytest.mark.parametrize("version", ["10.3.0", "10.16.2.10", "11.4.0.106"])
def test_every_tensorrt_from_10_3_on_is_taken(monkeypatch, bundle, gpu, version):
    fake = fake_trt.install(monkeypatch, bundle, version=version)
    assert library("tensorrt") is fake


@pytest.mark.parametrize(("kind", "wheel"), [("tensorrt", "python3-libnvinfer"), ("tensorrt_rtx", "tensorrt-rtx-cu13")])
def test_a_library_that_is_not_installed_is_named_with_how_to_get_it(monkeypatch, gpu, kind, wheel):
    monkeypatch.setitem(sys.modules, kind, None)
    text = refusal(lambda: library(kind), GpuError)
    assert "cannot be imported" in text and text.endswith(wheel)


# --- running


@pytest.mark.parametrize("count", [1, 3, 4, 5, 11])
def test_any_number_of_people_scores_as_one_batch_would(bundle, trt, count):
    engine = TrtEngine(bundle, put(bundle))
    logits, embedding = engine.infer(people(count))
    wanted = answers(people(count), K)
    np.testing.assert_array_equal(logits, wanted[0])
    np.testing.assert_array_equal(embedding, wanted[1])
    assert trt.calls.count("execute_async_v3") == -(-count // 4)


def test_memory_is_taken_once_and_given_back(bundle, trt, gpu):
    engine = TrtEngine(bundle, put(bundle))
    allocated = len(gpu.memory)
    first, _ = engine.infer(people(2))
    kept = first.copy()
    engine.infer(people(7))
    np.testing.assert_array_equal(first, kept)  # results are copies
    assert len(gpu.memory) == allocated == 7  # three tensors twice and a stream
    engine.close()
    engine.close()
    assert gpu.memory == {} and gpu.retained == 0
    assert "is closed" in refusal(lambda: engine.infer(people(1)), GpuError)


def test_it_names_itself_and_what_it_runs(bundle, trt):
    engine = TrtEngine(bundle, put(bundle))
    assert (engine.backend, engine.precision, engine.file) == ("tensorrt-10.3.0/Orin", "fp16", NAME)


def test_it_is_proven_on_the_reference_and_other_weights_are_not(bundle, trt):
    engine = TrtEngine(bundle, put(bundle))
    assert verify(engine, bundle, tolerances(engine.graph)) == 0
    trt.gain = 1.1
    assert "logits differs from reference.npz" in refusal(lambda: verify(engine, bundle), BundleError)


@pytest.mark.parametrize("shape", [(1, C, T, V - 1), (C, T, V)])
def test_an_input_of_another_shape_never_reaches_the_gpu(bundle, trt, shape):
    with pytest.raises(ValueError, match="the model needs float32"):
        TrtEngine(bundle, put(bundle)).infer(np.zeros(shape, np.float32))
    assert "execute_async_v3" not in trt.calls


def test_answers_that_are_not_finite_are_refused_with_the_command(bundle, trt):
    engine = TrtEngine(bundle, put(bundle))
    trt.gain = np.inf
    text = refusal(lambda: engine.infer(people(1)), BundleError)
    assert "gave values of logits that are not finite" in text
    assert text.endswith(f"{rebuild_command(bundle.path, 'tensorrt', 'fp16')} --replace")


# --- what fails while running


@pytest.mark.parametrize("call", ["set_input_shape", "execute_async_v3"])
def test_a_call_that_fails_while_running_is_a_gpu_error_that_quotes_tensorrt(bundle, trt, gpu, call):
    engine = TrtEngine(bundle, put(bundle))
    trt.fail[call] = "[E] the kernel\n  went away"
    text = refusal(lambda: engine.infer(people(1)), GpuError)
    assert "(TensorRT 10.3.0 on Orin: [E] the kernel went away)" in text and "warning" not in text
    del trt.fail[call]
    assert "it failed before" in refusal(lambda: engine.infer(people(1)), GpuError)
    engine.close()
    assert gpu.memory == {}


@pytest.mark.parametrize(
    "call", ["cuCtxSetCurrent", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize"]
)
def test_an_error_of_the_driver_that_sticks_is_named_and_closing_ends(bundle, trt, gpu, call):
    engine = TrtEngine(bundle, put(bundle))
    gpu.fail[call] = 700
    text = refusal(lambda: engine.infer(people(5)), GpuError)
    assert f"{call} failed: CUDA_ERROR_ILLEGAL_ADDRESS, in words" in text and "it says nothing of why" in text
    for name in ("cuMemFree_v2", "cuMemFreeHost", "cuStreamDestroy_v2", "cuDevicePrimaryCtxRelease_v2"):
        gpu.fail[name] = 700
    engine.close()


def test_an_exception_of_the_bindings_is_a_gpu_error(bundle, trt, monkeypatch):
    engine = TrtEngine(bundle, put(bundle))

    def broken(self: object, stream: int) -> bool:
        raise RuntimeError("bindings")

    monkeypatch.setattr(fake_trt.FakeExecution, "execute_async_v3", broken)
    assert "bindings" in refusal(lambda: engine.infer(people(1)), GpuError)


# --- what is refused when it is loaded


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        ("Runtime", GpuError, "TensorRT 10.3.0 does not start (because)"),
        ("deserialize_cuda_engine", BundleError, "TensorRT 10.3.0 cannot load it (because)"),
        ("create_execution_context", GpuError, "the GPU has no room for it (because)"),
        ("set_tensor_address", GpuError, "it took no memory for skeleton"),
    ],
)
def test_what_fails_on_loading_is_told_and_everything_is_given_back(bundle, trt, gpu, call, kind, said):
    path = put(bundle)
    trt.fail[call] = "because"
    assert said in refusal(lambda: TrtEngine(bundle, path), kind)
    assert gpu.memory == {} and gpu.retained == 0


@pytest.mark.parametrize(
    "error", [TypeError("pybind11::init(): factory function returned nullptr"), RuntimeError("no")]
)
def test_bindings_that_raise_where_others_return_none_are_a_gpu_error(bundle, trt, gpu, monkeypatch, error):
    path = put(bundle)

    def broken(logger: object) -> object:
        raise error

    monkeypatch.setattr(trt, "Runtime", broken)
    assert str(error) in refusal(lambda: TrtEngine(bundle, path), GpuError)
    assert gpu.memory == {} and gpu.retained == 0


def test_a_gpu_without_room_for_the_tensors_says_how_much_was_asked(bundle, trt, gpu):
    path = put(bundle)
    gpu.fail["cuMemAlloc_v2"] = 2
    text = refusal(lambda: TrtEngine(bundle, path), GpuError)
    assert f"{4 * 4 * C * T * V} bytes on Orin" in text and "CUDA_ERROR_OUT_OF_MEMORY" in text
    assert gpu.memory == {} and gpu.retained == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "pcle1:0"}, "it calls itself 'pcle1:0' where its sidecar's contract is 'pcle1:"),
        ({"tensors": {"skeleton": ONE, "logits": (-1, K)}}, "must have the tensors skeleton, logits, embedding"),
        ({"tensors": {**TENSORS, "logits": (-1, 5)}}, "logits must be (N, 3), is (N, 5)"),
        ({"tensors": {**TENSORS, "embedding": (-1, 2, 2)}}, "embedding must be (N, D), is (N, 2, 2)"),
        ({"tensors": {**TENSORS, "embedding": (-1, -1)}}, "embedding must be (N, D), is (N, -1)"),
        ({"least": (2, C, T, V)}, "skeleton must go from (1, 9, 16, 16) up, goes from (2, 9, 16, 16)"),
        ({"most": (8, C, 2 * T, V)}, "to (8, 9, 32, 16)"),
        ({"type": "DataType.HALF"}, "skeleton must be float32, is DataType.HALF"),
    ],
)
def test_an_engine_that_is_not_what_its_sidecar_says_is_refused(bundle, trt, gpu, change, said):
    path = put(bundle)
    for name, value in change.items():
        setattr(trt, name, value)
    text = refusal(lambda: TrtEngine(bundle, path), BundleError)
    assert said in text, text
    assert text.endswith(f"{rebuild_command(bundle.path, 'tensorrt', 'fp16')} --replace")
    assert gpu.memory == {} and gpu.retained == 0


def test_nothing_foreign_is_deserialised_without_trust(bundle, trt, tmp_path):
    path = put(bundle, folder=tmp_path / "elsewhere")
    assert "--trust" in refusal(lambda: TrtEngine(bundle, path), BundleError)
    assert "Runtime" not in trt.calls
    TrtEngine(bundle, path, trust=True).close()
    assert "deserialize_cuda_engine" in trt.calls


@pytest.mark.parametrize(
    ("other", "said"), [({"kind": "tensorrt_rtx"}, "not rtx"), ({"precision": "int8"}, "not int8")]
)
def test_an_engine_of_another_kind_or_precision_than_asked_is_refused(monkeypatch, bundle, trt, other, said):
    fake_trt.install(monkeypatch, bundle, "tensorrt_rtx", "1.7.1.116")
    path = put(bundle)
    assert said in refusal(lambda: TrtEngine(bundle, path, **other), BundleError)


def test_the_host_code_of_an_engine_is_never_allowed(bundle, trt, monkeypatch):
    made = SimpleNamespace(deserialize_cuda_engine=lambda plan: fake_trt.FakeEngine(trt))
    monkeypatch.setattr(trt, "Runtime", lambda logger: made)
    TrtEngine(bundle, put(bundle))
    assert not hasattr(made, "engine_host_code_allowed")


# --- the graph and its gate


def converted(bundle: Bundle, given: dict[str, Any] | None) -> Any:
    """An int8 engine of a bundle that has no int8 graph."""
    made = sidecar(bundle, precision="int8")
    made = replace(made, source=Source(bundle.files["model.onnx"][0], bundle.name, "0.1.0", given))
    return write_engine(cache_folder() / KEY, NAME, PLAN, made)


def test_a_graph_that_was_converted_for_the_build_brings_its_own_gate(bundle, trt):
    engine = TrtEngine(bundle, converted(bundle, gate("int8")))
    assert engine.precision == "int8" and engine.graph.reference == {"logits": 0.1, "embedding": 0.01}


@pytest.mark.parametrize("given", [None, {"passed": True}])
def test_an_engine_of_a_graph_that_nobody_judged_is_refused(bundle, trt, given):
    text = refusal(lambda: TrtEngine(bundle, converted(bundle, given)), BundleError)
    assert "no gate for the one it was built from" in text and text.endswith("--backend trt --precision int8 --replace")


def test_an_engine_whose_gate_failed_needs_to_have_been_overruled(bundle, trt):
    failed = gate("int8", passed=False, agreement=0.9, needed=0.99, windows=1000)
    text = refusal(lambda: TrtEngine(bundle, converted(bundle, failed)), BundleError)
    assert "failed: 90.00% of 1000 windows agree" in text and text.endswith("--allow-drop")
    TrtEngine(bundle, converted(bundle, {**failed, "allowed": True})).close()


# --- TensorRT-RTX


@pytest.fixture
def rtx(monkeypatch, bundle, gpu) -> FakeTrt:
    """TensorRT-RTX, whose runtime answers get_engine_validity."""
    fake = fake_trt.install(monkeypatch, bundle, "tensorrt_rtx", "1.7.1.116")
    known = {name: SimpleNamespace(name=name) for name in ("VALID", "SUBOPTIMAL", "INVALID")}
    bits = {"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "OLD_CUDA_DRIVER": 4, "MALFORMED_ENGINE": 32}
    monkeypatch.setattr(fake, "EngineValidity", SimpleNamespace(**known), raising=False)
    monkeypatch.setattr(fake, "EngineInvalidityDiagnostics", SimpleNamespace(__members__=bits), raising=False)
    monkeypatch.setattr(fake, "verdict", (known["VALID"], 0), raising=False)
    plain = fake.Runtime

    def runtime(logger: Any) -> Any:
        made = plain(logger)
        made.get_engine_validity = lambda plan: logger.log(fake.ILogger.ERROR, "in words") or fake.verdict
        return made

    monkeypatch.setattr(fake, "Runtime", runtime)
    return fake


def put_rtx(bundle: Bundle) -> Any:
    """An engine for compute capability 8.0 and later, built without a GPU and so never verified."""
    made = sidecar(bundle, RTX_PLAN, **RTX)
    made = replace(
        made, kind="tensorrt_rtx", verified=None, source=replace(made.source, onnx_sha256=bundle.files["model.onnx"][0])
    )
    return write_engine(cache_folder() / KEY, "model.fp32.sm80+.rtx1.7.1.116.engine", RTX_PLAN, made)


def test_an_engine_built_without_a_gpu_is_found_and_runs_on_one(bundle, rtx):
    assert cached_engine(bundle, "tensorrt_rtx", "fp32") is None
    path = put_rtx(bundle)
    assert cached_engine(bundle, "tensorrt_rtx", "fp32") == path
    engine = TrtEngine(bundle, path)
    assert engine.backend == "tensorrt-rtx-1.7.1.116/Orin" and engine.warnings == ()
    assert verify(engine, bundle, tolerances(engine.graph)) == 0


def test_an_engine_that_is_not_the_best_is_run_with_a_warning(bundle, rtx):
    path = put_rtx(bundle)
    rtx.verdict = (rtx.EngineValidity.SUBOPTIMAL, 0)
    assert TrtEngine(bundle, path).warnings == ("TensorRT-RTX 1.7.1.116 calls it SUBOPTIMAL",)


@pytest.mark.parametrize(
    ("bits", "kind", "said"),
    [
        (1, BundleError, "INVALID VERSION_MISMATCH on Orin (in words); build it here: python -m export.trt"),
        (32, BundleError, "INVALID MALFORMED_ENGINE on Orin (in words); build it here: python -m export.trt"),
        (6, GpuError, "INVALID UNSUPPORTED_CC OLD_CUDA_DRIVER on Orin (in words); use --backend ort"),
        (0, GpuError, "INVALID on Orin (in words); use --backend ort"),  # as TensorRT-RTX 1.7 says of an old driver
    ],
)
def test_an_engine_that_the_library_calls_invalid_is_never_deserialised(bundle, rtx, bits, kind, said):
    path = put_rtx(bundle)
    rtx.verdict = (rtx.EngineValidity.INVALID, bits)
    assert said in refusal(lambda: TrtEngine(bundle, path), kind)
    assert "deserialize_cuda_engine" not in rtx.calls
