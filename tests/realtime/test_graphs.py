"""The graphs of a bundle are listed with their gates, or refused by name."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from realtime.bundle import load_bundle, write_bundle
from realtime.errors import BundleError
from realtime.graphs import GATE_KEYS, Graph
from tests.realtime.hands import gate


@pytest.fixture
def folder(tmp_path, bundle_spec, bundle_files) -> Path:
    graphs = {
        "int8": {"file": "model.int8.onnx", "gate": gate()},
        "fp32": {"file": "model.onnx", "gate": None},
        "fp16": {"file": "model.fp16.onnx", "gate": gate("fp16", passed=False, agreement=0.5, accuracy=None)},
    }
    files = {**bundle_files, "model.int8.onnx": b"small", "model.fp16.onnx": b"half"}
    return write_bundle(tmp_path / "tiny", {**bundle_spec, "graphs": graphs}, files)


def refusal(folder: Path, change) -> str:
    """What a bundle.json edited by hand is refused with."""
    document = json.loads((folder / "bundle.json").read_text())
    change(document["graphs"])
    (folder / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_bundle_without_graphs_has_fp32(tmp_path, bundle_spec, bundle_files):
    folder = write_bundle(tmp_path / "old", bundle_spec, bundle_files)
    assert "graphs" not in json.loads((folder / "bundle.json").read_text())
    assert load_bundle(folder).graphs == {"fp32": Graph("model.onnx", None)}


def test_graphs_are_read_with_their_gates_fp32_first(folder):
    graphs = load_bundle(folder).graphs
    assert list(graphs) == ["fp32", "fp16", "int8"]
    assert graphs["int8"].gate == gate() and graphs["int8"].file == "model.int8.onnx"
    assert [graph.usable for graph in graphs.values()] == [True, False, True]
    assert graphs["fp16"].judged() == "failed: 50.00% of 1000 windows agree with fp32 (at least 99.00%)"


def test_a_cpu_may_have_a_file_of_its_own(tmp_path, bundle_spec, bundle_files):
    graphs = {"fp32": {"file": "model.onnx", "gate": None, "cpu": "model.cpu.onnx"}}
    files = {**bundle_files, "model.cpu.onnx": bundle_files["model.onnx"]}
    bundle = load_bundle(write_bundle(tmp_path / "both", {**bundle_spec, "graphs": graphs}, files))
    assert bundle.graphs == {"fp32": Graph("model.onnx", cpu="model.cpu.onnx")}


def test_a_failed_gate_that_was_overruled_is_usable():
    assert Graph("model.int8.onnx", gate(passed=False, allowed=True)).usable
    assert Graph("model.int8.onnx", gate(passed=False, allowed=True)).judged().startswith("overruled")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda g: g.pop("fp32"), "'graphs' must be an object that has at least 'fp32'"),
        (lambda g: g.update(int4={"file": "model.onnx", "gate": None}), "names 'int4'; precisions are fp32"),
        (lambda g: g["int8"].update(file="model.int4.onnx"), "graphs.int8.'file' must be one of the bundle's files"),
        (lambda g: g["int8"].update(file=7), "graphs.int8.'file'"),
        (lambda g: g["int8"].update(gate=None), "graphs.int8.gate. must be an object"),
        (lambda g: g["int8"].pop("gate"), "lacks the key graphs.int8.'gate'"),
        (lambda g: g["int8"].update(speed=1), "graphs.int8.'speed'"),
        (lambda g: g["fp32"].update(file="model.int8.onnx"), "graphs.fp32.'file' must be 'model.onnx'"),
        (lambda g: g["fp32"].update(gate=gate("fp32")), "graphs.fp32.'gate' must be null"),
        (lambda g: g["fp32"].update(cpu="model.gpu.onnx"), "graphs.fp32.'cpu' must be one of the bundle's files"),
        (lambda g: g["int8"].update(cpu="model.onnx"), "graphs.int8.'cpu'"),
        (lambda g: g["int8"]["gate"].update(extra=1), "graphs.int8.gate.'extra'"),
    ],
)
def test_a_bad_entry_is_refused_by_its_name(folder, change, named):
    assert named in refusal(folder, change)


BAD = {
    "precision": ["fp16", None],
    "windows": [-1, 1.5, "1000"],
    "source": ["", 3],
    "agreement": [1.1, "all", None],
    "needed": [-0.1, True],
    "passed": [1, None, "yes"],
    "allowed": [0, "no"],
    "worst_logits": [-1, None],
    "reference": [None, {"logits": 0.1}, {"logits": "small", "embedding": 0}],
    "accuracy": [0.9, {"clips": 4, "fp32": 0.9}, {"clips": 4, "fp32": 0.9, "this": 2}],
    "bytes": [1.5, -1],
    "fp32_bytes": [None],
    "latency_ms": [{}, {"1": 1.0}, 3],
    "fp32_latency_ms": [{"1": 1.0, "8": -1}],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values])
def test_a_bad_value_in_a_gate_is_refused_by_its_key(folder, key, value):
    assert f"graphs.int8.gate.{key}" in refusal(folder, lambda g: g["int8"]["gate"].update({key: value})).replace(
        "'", ""
    )


@pytest.mark.parametrize("key", GATE_KEYS)
def test_a_gate_that_lacks_a_key_is_refused(folder, key):
    assert f"graphs.int8.gate.'{key}'" in refusal(folder, lambda g: g["int8"]["gate"].pop(key))


def test_a_gate_has_the_keys_that_the_exporter_writes():
    parity = pytest.importorskip("export.parity", reason="the exporter's packages are not installed")
    assert {entry.name for entry in fields(parity.Gate)} == set(GATE_KEYS) == set(gate())
