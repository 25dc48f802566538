"""What a finished run leaves: results that other programs read, and scores that its own weights give again."""

import json

import numpy as np
import pytest
import torch
from rich.console import Console

from realtime.errors import BundleError
from tests.train.tiny_runs import CLASSES, prepared_set, settings
from tests.train.tiny_texts import tiny_encoder
from train import checkpoint, compose
from train.batches import PreparedBatches
from train.fit import fit
from train.outcome import hardware, scored
from train.runs import load_run
from train.scoring import accuracy

QUIET = Console(quiet=True)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with one finished run a method, on the small prepared set."""
    folder = tmp_path_factory.mktemp("runs")
    prepared_set(folder / "set")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "open_encoder", tiny_encoder)
        for method in ("ce", "gap", "pcle"):
            fit(config_of(folder, method), QUIET)
    return folder


def config_of(folder, method):
    return settings(folder / method, method=method, prepared=folder / "set", window=16, label="small", repeat=3)


@pytest.mark.parametrize("method", ["ce", "gap", "pcle"])
def test_a_run_is_read_as_what_it_was(runs, method):
    run = load_run(runs / method)
    said, scores = run.result, run.scores
    wanted = {
        "method": method, "backbone": "graphnet", "encoder": None if method == "ce" else "tiny", "data": "nw_ucla",
        "protocol": "published", "split": "xview", "stream": "joint+bone", "seed": 0, "epochs": 2, "label": "small",
    }  # fmt: skip
    assert {key: said[key] for key in wanted} == wanted
    assert said["clips_per_s"] > 0 and said["parameters"] > 0 and said["hardware"] == hardware(CPU)
    assert said["test"] == scored(scores.labels, scores.logits) and said["test"]["clips"] == 20
    assert scores.classes.tolist() == list(CLASSES)
    assert scores.names.tolist() == [f"clip_{number:03d}" for number in range(60) if number % 3 == 2]
    assert scores.labels.tolist() == [number // 6 for number in range(60) if number % 3 == 2]
    assert (scores.text is None) == (method == "ce")
    names = {path.name for path in (runs / method).iterdir()}
    assert {"config.json", "environment.json", "confusion.png", "tsne.png", "per_class.json"} <= names
    assert not [name for name in names if name.endswith(".partial")]


@pytest.mark.parametrize("method", ["ce", "gap", "pcle"])
@torch.no_grad()
def test_the_kept_weights_give_the_same_scores_again(runs, method):
    scores = load_run(runs / method).scores
    trained = compose.load_network(runs / method / "last.safetensors")
    batches = PreparedBatches(config_of(runs, method), CPU, QUIET)
    x = torch.cat(list(batches.inputs(batches.test)))
    logits, feature = trained.network(x)
    np.testing.assert_allclose(scores.logits, logits.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scores.feature, feature.numpy(), rtol=1e-4, atol=1e-5)
    model = trained.content["model"]
    assert model["classes"] == list(CLASSES) and model["window"] == 16
    modes = load_run(runs / method).result["modes"]
    assert (
        set(modes) == {"ce": {"skeleton"}, "gap": {"skeleton", "text"}, "pcle": {"skeleton", "text", "fused"}}[method]
    )
    assert modes["skeleton"] == accuracy(scores.confusion)
    if method == "ce":
        assert trained.text is None
        return
    np.testing.assert_array_equal(scores.text, trained.text.numpy())
    assert modes["text"] == scored(scores.labels, (feature @ trained.text.T).numpy())["accuracy"]


def test_the_class_text_is_that_of_the_averaged_contexts(runs):
    tensors, _ = checkpoint.load(runs / "pcle" / "last.safetensors")
    encoder, texts = tiny_encoder(), compose.class_texts(config_of(runs, "pcle"), "nw_ucla", CLASSES)
    slots = encoder.slots([text.name for text in texts], 2)
    with torch.no_grad():
        expected = encoder(slots, tensors["average.texts.context"][0, 0])
    expected = torch.nn.functional.normalize(expected, dim=1)
    torch.testing.assert_close(tensors["class_text"], expected)
    assert not any("encoder" in name for name in tensors)  # the frozen tower is not kept


def test_a_live_run_says_its_held_out_accuracy_and_is_not_taken_for_a_published_one(tmp_path):
    folder = tmp_path / "ucla"
    folder.mkdir()
    skeletons = np.random.default_rng(0).normal(size=(30, 20, 3)).tolist()
    for subject in (1, 6):
        name = f"a12_s{subject:02d}_e04_v02"
        (folder / f"{name}.json").write_text(json.dumps({"file_name": name, "skeletons": skeletons, "label": 10}))
    config = settings(tmp_path / "run", epochs=1, data=(f"nw_ucla:{folder}",), held_out=("nw_ucla:6",))
    fit(config, QUIET)
    result = checkpoint.read_json(tmp_path / "run" / "result.json")
    assert result["protocol"] == "live" and result["split"] == "held_out" and "test" not in result
    assert list(result["held_out"]) in ([], ["accuracy/nw_ucla"])
    assert all(0 <= value <= 1 for value in result["held_out"].values())
    with pytest.raises(BundleError, match="live windows"):
        load_run(tmp_path / "run")


def test_the_environment_is_told(runs):
    found = checkpoint.read_json(runs / "pcle" / "environment.json")
    assert found["torch"] == torch.__version__ and found["world"] == 1 and found["bf16"] is False
    assert found["threads"] == 1 and found["hardware"]


def test_accuracy_is_over_clips_and_over_classes():
    logits = np.eye(3)[[0, 0, 0, 1, 1, 2]]
    assert scored(np.array([0, 0, 0, 0, 1, 2]), logits) == {
        "clips": 6, "accuracy": pytest.approx(5 / 6), "mean_class_accuracy": pytest.approx((0.75 + 1 + 1) / 3),
    }  # fmt: skip
