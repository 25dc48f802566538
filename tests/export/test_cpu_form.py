"""A bundle of ST-GCN has a second fp32 graph with fewer multiplications, which the CPU runs and nothing else."""

import io
import json

import numpy as np
import onnx
import pytest
from rich.console import Console

from export import bundle as bundles
from export.bundle import Config, make_bundle
from export.precision import to_fp16
from realtime.backends import open_engine
from realtime.bundle import load_bundle, load_reference
from realtime.engine import OrtEngine
from realtime.errors import ParityError
from tests.export.runs_by_hand import live_run


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cpu_form")
    run = live_run(folder / "run", method="ce", backbone="stgcn-edge")
    return load_bundle(make_bundle(Config(runs=(run,), out=folder / "bundle")))


def kinds(graph: bytes) -> set[str]:
    return {node.op_type for node in onnx.load_from_string(graph).graph.node}


def test_the_cpu_runs_the_form_without_convolutions(bundle):
    assert "Conv" in kinds(bundle.read("model.onnx")) and "Conv" not in kinds(bundle.read("model.cpu.onnx"))
    assert OrtEngine(bundle).file == "model.cpu.onnx"
    reference = load_reference(bundle)
    logits, embedding = open_engine(bundle, "ort").infer(reference.skeleton)
    np.testing.assert_allclose(logits, reference.logits, atol=1e-4)
    np.testing.assert_allclose(embedding, reference.embedding, atol=1e-4)


def test_a_form_that_rounds_too_much_is_left_out_and_the_bundle_is_written(tmp_path, monkeypatch):
    run = live_run(tmp_path / "run", method="ce", backbone="stgcn-edge")
    proven = bundles.prove

    def strict(network, graph, shape):
        if "Conv" not in kinds(graph):
            raise ParityError("it differs")
        return proven(network, graph, shape)

    monkeypatch.setattr(bundles, "prove", strict)
    console = Console(record=True, quiet=False, file=io.StringIO(), width=200)
    made = load_bundle(make_bundle(Config(runs=(run,), out=tmp_path / "bundle"), console))
    assert made.graphs["fp32"].cpu is None and "model.cpu.onnx" not in made.files
    assert "left out, and CPUs run the plain one: it differs" in console.export_text()


def test_other_precisions_come_of_the_plain_form(bundle):
    assert bundle.graphs["fp32"].file == "model.onnx"
    assert "Conv" in kinds(to_fp16(bundle.read(bundle.graphs["fp32"].file)))
    assert json.loads((bundle.path / "bundle.json").read_text())["graphs"]["fp32"]["cpu"] == "model.cpu.onnx"
