"""Trained runs become a bundle, every graph of it proven or gated before anything is written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from rich.console import Console

from export import bundle as bundles
from export import gates
from export.bundle import Config, bundle_spec, check_unseen, held_out_of, load_runs, main, make_bundle
from export.runs import Loaded
from realtime.backends import open_engine
from realtime.bundle import load_bundle, load_reference
from realtime.errors import BundleError, ParityError, UsageError
from realtime.sidecar import contract_of
from tests.export.runs_by_hand import gathered, live_run
from train.fit import fit
from train.settings import Config as FitConfig
from train.vocabulary import CLASSES


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return live_run(tmp_path_factory.mktemp("runs") / "mine")


@pytest.fixture(autouse=True)
def same_windows(monkeypatch):
    monkeypatch.setattr(bundles, "gather", lambda *_: gathered())


def turned_round(graph: bytes) -> bytes:
    """A graph whose classifier prefers what it should least."""
    model = onnx.load_from_string(graph)
    (maker,) = (node for node in model.graph.node if "logits" in node.output)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name in maker.input)
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    return model.SerializeToString()


def quiet():
    return Console(quiet=True)


def test_a_run_becomes_a_bundle_that_the_runtime_proves(tmp_path):
    for seed in (0, 1):
        fit(
            FitConfig(out=tmp_path / f"run{seed}", synthetic=1, epochs=1, draws=32, batch=16, widths=(8, 8), groups=2,
                      seed=seed, threads=1), quiet()
        )  # fmt: skip
    folder = make_bundle(Config(runs=(tmp_path / "run0", tmp_path / "run1"), out=tmp_path / "bundle", name="pair"))
    bundle = load_bundle(folder)
    assert bundle.classes == CLASSES and bundle.training["networks"] == 2 and list(bundle.graphs) == ["fp32"]
    reference = load_reference(bundle)
    logits, _ = open_engine(bundle).infer(reference.skeleton)
    np.testing.assert_allclose(logits, reference.logits, atol=1e-4)
    with pytest.raises(UsageError, match="exists"):
        make_bundle(Config(runs=(tmp_path / "run0",), out=tmp_path / "bundle"))


@pytest.mark.parametrize("head", ["skeleton", "text", "both", "fused"])
def test_the_reference_has_the_unfolded_networks_own_answers(run, tmp_path, head):
    bundle = load_bundle(make_bundle(Config(runs=(run,), out=tmp_path / "bundle", head=head, nothing_shift=0.5)))
    reference = load_reference(bundle)
    trained = load_runs((run,), head).trained
    with torch.inference_mode():
        logits, embedding = (part.numpy() for part in trained(torch.from_numpy(reference.skeleton)))
    logits[:, bundle.classes.index("nothing")] -= 0.5
    np.testing.assert_allclose(reference.logits, logits, atol=1e-5)
    np.testing.assert_allclose(reference.embedding, embedding, atol=1e-5)
    assert bundle.training["head"] == head


def test_a_bundle_carries_every_graph_with_its_gate_and_its_contract(run, tmp_path):
    config = Config(runs=(run,), out=tmp_path / "bundle", precision=("int8", "fp16"), allow_drop=True)
    bundle = load_bundle(make_bundle(config))
    assert list(bundle.graphs) == ["fp32", "fp16", "int8"]
    for precision, graph in bundle.graphs.items():
        found = {entry.key: entry.value for entry in onnx.load_from_string(bundle.read(graph.file)).metadata_props}
        assert json.loads(found["contract"]) == json.loads(json.dumps(contract_of(bundle)))
        open_engine(bundle, "ort", precision=precision).close()
        if precision != "fp32":
            assert graph.gate["windows"] >= 1000 and graph.gate["source"].startswith("generated people")
            assert graph.gate["bytes"] < graph.gate["fp32_bytes"] or precision == "int8"


def test_a_wrong_weight_in_the_graph_is_caught_and_nothing_written(run, tmp_path, monkeypatch, capsys):
    whole = bundles.to_onnx
    monkeypatch.setattr(bundles, "to_onnx", lambda *args: turned_round(whole(*args)))
    monkeypatch.setattr("sys.argv", ["bundle", str(run), "--out", str(tmp_path / "bundle")])
    assert main() == 7
    assert "differ from the network's" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_graph_that_fails_its_gate_is_refused_overruled_or_left_out(run, tmp_path, monkeypatch):
    monkeypatch.setattr(gates, "to_fp16", turned_round)
    wanted = {"runs": (run,), "out": tmp_path / "bundle", "precision": ("fp16",)}
    with pytest.raises(ParityError, match=r"fp16 gives fp32's answer in .*--allow-drop"):
        make_bundle(Config(**wanted))
    assert not list(tmp_path.iterdir())
    left = load_bundle(make_bundle(Config(**wanted), optional=True))
    assert list(left.graphs) == ["fp32"]
    overruled = load_bundle(make_bundle(Config(**wanted, allow_drop=True, replace=True)))
    gate = overruled.graphs["fp16"].gate
    assert gate["allowed"] and not gate["passed"] and gate["agreement"] < 0.5


def test_an_interrupted_export_leaves_nothing_behind(run, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(bundles, "open_engine", interrupted)  # the last thing before the bundle is written
    monkeypatch.setattr("sys.argv", ["bundle", str(run), "--out", str(tmp_path / "bundle")])
    assert main() == 130
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"data": ("utkinect:/nowhere",)}, "/nowhere is not a folder"),
        ({"data": ("utkinect:{folder}",)}, "add --held-out utkinect:"),
        ({"data": ("utkinect:{folder}",), "held_out": ("nw_ucla:1",)}, "names a set that --data does not"),
        ({"out": "{folder}", "replace": True}, "holds no bundle.json and will not be replaced"),
        ({"out": "{folder}/file/bundle"}, "is no folder that you may write to"),
    ],
)
def test_what_would_fail_in_the_end_is_said_at_once(run, tmp_path, monkeypatch, flags, says):
    (tmp_path / "file").write_text("x")
    filled = {
        key: tuple(entry.format(folder=tmp_path) for entry in value) if isinstance(value, tuple) else value
        for key, value in flags.items()
    }
    filled["out"] = Path(str(filled.get("out", "{folder}/bundle")).format(folder=tmp_path))
    monkeypatch.setattr(bundles, "to_onnx", None)  # long work is not begun
    with pytest.raises(UsageError, match=re.escape(says)):
        make_bundle(Config(runs=(run,), **filled))


def test_the_runs_own_held_out_subjects_judge_its_graphs():
    data = ["utkinect:/data/utkinect", "nw_ucla:/data/nw_ucla"]
    one = {"data": data, "held_out": ["utkinect:6", "nw_ucla:9,10"]}
    assert held_out_of(("utkinect:/data/utkinect",), [one]) == ["utkinect:6"]
    assert held_out_of((), [one]) == []
    other = {"data": data, "held_out": ["utkinect:5", "nw_ucla:10,3"]}
    assert held_out_of(data, [one, other]) == ["nw_ucla:10"]  # whoever trained one of the two judges neither
    assert held_out_of(data, [one, {"data": ["nw_ucla:/d"], "held_out": []}]) == ["utkinect:6"]


def test_a_mean_of_runs_says_whom_any_of_them_saw():
    model = {"layout": "CORE_16", "streams": ["joint"], "classes": ["nothing", "wave"], "backbone": "graphnet",
             "channels": 3, "window": 64, "fps": 20.0, "method": "ce", "encoder": None}  # fmt: skip
    run = {"method": "ce", "epochs": 1, "draws": 1, "batch": 1, "widths": [8], "seed": 0}
    runs = [{**run, "data": ["msrc12:/d", "utkinect:/e"], "held_out": ["msrc12:09,10", "utkinect:6"]},
            {**run, "data": ["msrc12:/d", "nw_ucla:/f"], "held_out": ["msrc12:10"]}]  # fmt: skip
    spec = bundle_spec(Config(runs=(), out=Path("out")), Loaded(None, None, None, (), model, runs, None))
    assert spec["training"]["data"] == ["msrc12", "utkinect", "nw_ucla"]
    assert spec["training"]["held_out"] == ["msrc12:10", "utkinect:6"]


def test_nobody_judges_a_network_who_trained_it():
    config = {"data": ["utkinect:/data/utkinect"], "held_out": ["utkinect:6,07"]}
    data = ("utkinect:/elsewhere", "nw_ucla:/data")
    check_unseen(data, ("utkinect:06", "utkinect:7", "nw_ucla:1"), [config])
    with pytest.raises(UsageError, match=r"utkinect:5: the network was trained on them.* name some of utkinect:6,7"):
        check_unseen(data, ("utkinect:5,6", "nw_ucla:1"), [config])
    with pytest.raises(UsageError, match="leave utkinect out"):
        check_unseen(data, ("utkinect:6",), [config, {**config, "held_out": []}])


def test_runs_of_different_input_are_not_averaged(tmp_path):
    for name, streams in (("a", ("joint",)), ("b", ("joint", "bone"))):
        fit(
            FitConfig(out=tmp_path / name, synthetic=1, epochs=1, draws=16, batch=16, widths=(8, 8), groups=2,
                      streams=streams, threads=1), quiet()
        )  # fmt: skip
    with pytest.raises(BundleError, match="channels"):
        load_runs((tmp_path / "a", tmp_path / "b"))


def test_a_run_without_texts_has_no_text_head(tmp_path):
    run = live_run(tmp_path / "plain", method="ce")
    with pytest.raises(BundleError, match="--head fused needs a run"):
        load_runs((run,), "fused")


def test_no_runs_and_no_card_are_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bundle", "--out", str(tmp_path / "bundle")])
    assert main() == 2
    assert "no run was named" in capsys.readouterr().err
    with pytest.raises(UsageError, match="card"):
        make_bundle(Config(runs=(tmp_path,), out=tmp_path / "bundle", card=tmp_path / "card.md"))
