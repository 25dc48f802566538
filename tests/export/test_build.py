"""Engines are built for real: TensorRT-RTX parses and builds with neither GPU nor driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import build
from export.build import Phases, build_plan, target_of
from realtime.cuda import driver_problem
from realtime.errors import BundleError, GpuError, UsageError
from realtime.sidecar import plan_version

NAME = "pcle1:0123456789abcdef"


def small(op: str = "Conv", half: bool = False) -> bytes:
    """One layer on windows (N, 3, 8, 5), mean over time and joints, as "logits" and "embedding"."""
    rng = np.random.default_rng(0)
    kind = np.float16 if half else np.float32
    weights = [numpy_helper.from_array(rng.normal(size=(4, 3, 1, 1)).astype(kind), "weight")]
    nodes = [
        helper.make_node(op, ["skeleton", "weight"], ["map"], name="layer"),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
        helper.make_node("Relu", ["logits"], ["embedding"]),
    ]
    out = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("logits", "embedding")]
    given = helper.make_tensor_value_info("skeleton", TensorProto.FLOAT, ["N", 3, 8, 5])
    graph = helper.make_graph(nodes, "small", [given], out, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


@pytest.fixture
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install -e '.[trt,rtx]'")


def test_a_plan_bears_its_version_and_the_contracts_name(rtx):
    plan = build_plan(small(), NAME, "rtx", max_batch=4)
    assert plan_version(plan, "tensorrt_rtx") == tuple(int(part) for part in rtx.__version__.split("."))
    assert NAME.encode() in plan
    assert b"pcle1:another" not in plan


def test_how_far_the_build_is_comes_out(rtx):
    told: list[float] = []
    build_plan(small(), NAME, "rtx", step=told.append)
    assert told and told == sorted(told) and 0 < told[-1] <= 1


def test_it_builds_for_what_is_asked_and_else_for_its_own_choice(rtx):
    assert target_of("rtx").version == rtx.__version__
    assert target_of("rtx", ("8.6", "8.9")).capability == "8.6+8.9"
    if driver_problem():
        assert target_of("rtx")[1:] == ("8.0+", None)
    assert len(build_plan(small(), NAME, "rtx", capabilities=("8.6",))) > 1000


def test_a_compute_capability_that_the_library_does_not_know_is_refused_with_those_it_knows(rtx):
    with pytest.raises(UsageError, match=r"7\.5, 8\.0, 8\.6, 8\.9, 12\.0.*got '6\.1'"):
        build_plan(small(), NAME, "rtx", capabilities=("6.1",))


@pytest.mark.parametrize("batches", [{"max_batch": 0}, {"opt_batch": 9}, {"max_batch": 4096}])
def test_a_profile_that_cannot_be_is_refused(batches):
    with pytest.raises(UsageError, match="1 <= opt batch <= max batch"):
        build_plan(small(), NAME, "rtx", **batches)


@pytest.mark.parametrize(
    ("graph", "quoted"),
    [
        (b"no graph at all", "Failed to parse the ONNX model"),
        (small("NoSuchLayer"), "NoSuchLayer"),
        (small(half=True), "Half"),  # strongly typed: a half weight on a float input is no matter of taste
    ],
)
def test_what_the_parser_refuses_is_refused_in_its_own_words(rtx, graph: bytes, quoted: str):
    with pytest.raises(BundleError, match=r"TensorRT-RTX [\d.]+ refuses this graph .*export it again with") as refused:
        build_plan(graph, NAME, "rtx")
    assert quoted in str(refused.value) and "\n" not in str(refused.value)


def test_what_the_builder_refuses_is_refused_in_its_own_words(rtx):
    model = onnx.load_from_string(small())
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((4, 5, 8), np.float32), "weight"))
    model.graph.node[0].CopyFrom(helper.make_node("MatMul", ["skeleton", "weight"], ["map"], name="product"))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((5, 4), np.float32), "weight"))
    with pytest.raises(BundleError, match=r"cannot build .*FP32 GEMM is not supported.*--precision fp16"):
        build_plan(model.SerializeToString(), NAME, "rtx", capabilities=("7.5",))


def test_tensorrt_without_a_driver_is_said_before_anything_is_imported():
    if driver_problem() is None:
        pytest.skip("this machine has a driver")
    with pytest.raises(GpuError, match="trt was demanded but no NVIDIA driver"):
        build_plan(small(), NAME, "trt")
    assert "tensorrt" not in sys.modules


def test_polygraphy_is_told_which_library_and_the_environment_stays(rtx, monkeypatch):
    monkeypatch.delenv("POLYGRAPHY_USE_TENSORRT_RTX", raising=False)
    build._polygraphy("rtx")
    assert "POLYGRAPHY_USE_TENSORRT_RTX" not in os.environ
    with pytest.raises(UsageError, match=r"has built with TensorRT-RTX already.*a process of its own"):
        build._polygraphy("trt")


def test_polygraphy_that_is_not_installed_is_named(rtx):
    code = (
        "import sys\nsys.modules['polygraphy'] = None\nfrom export.build import build_plan\n"
        "try:\n    build_plan(b'', 'x', 'rtx')\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("UsageError building an engine needs Polygraphy") and "pip install" in done.stdout


def test_ctrl_c_stops_a_build_between_two_of_its_steps(rtx):
    sent = []

    def interrupt(_: float) -> None:
        if not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build_plan(small(), NAME, "rtx", step=interrupt)
    assert sent and signal.getsignal(signal.SIGINT) is before


def test_the_share_of_nested_phases_never_goes_back():
    phases = Phases()
    shares = []
    phases.start("whole", 4)
    phases.step("whole", 0)
    shares.append(phases.share)
    phases.start("inner", 2)
    phases.step("inner", 0)
    shares.append(phases.share)
    phases.start("inner", 10)  # again, and longer
    phases.step("inner", 0)
    shares.append(phases.share)
    phases.finish("inner")
    phases.finish("never begun")
    phases.step("whole", 3)
    shares.append(phases.share)
    assert shares == [0.25, 0.375, 0.375, 1.0]


def test_a_cache_that_cannot_be_written_stops_no_build_for_another_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept = build._timing_cache("10.3.0", "8.7")
    assert kept == tmp_path / "cache" / "pcle-live" / "timing" / "trt10.3.0.sm87.cache" and kept.parent.is_dir()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert build._timing_cache("10.3.0", "8.7") is None
