"""ONNX Runtime's telemetry is off wherever the project loads it: it leaves neither its device id nor its database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PREPARE = "import sys; sys.path.insert(0, '.');"
OPEN = "from realtime.bundle import default_bundle, load_bundle; b = load_bundle(default_bundle());"


@pytest.mark.parametrize(
    "program",
    [
        OPEN + "from realtime.backends import open_engine; open_engine(b)",
        "import export.quantise, onnxruntime;"
        + OPEN
        + "onnxruntime.InferenceSession(b.read('model.onnx'), providers=['CPUExecutionProvider'])",
        "import scripts.bench_engine",
    ],
    ids=["the line", "the exporter", "a benchmark"],
)
def test_no_trace_of_telemetry_is_left(tmp_path: Path, program: str):
    if "export" in program or "scripts" in program:
        pytest.importorskip("onnxscript", reason="the exporter's packages are not installed")
    clean = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    here = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "XDG_DATA_HOME": str(tmp_path / "data")}
    subprocess.run([sys.executable, "-c", PREPARE + program], env=clean | here, check=True, timeout=120)
    left = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert not [name for name in left if "onnxruntime" in name or "deviceid" in name], left
