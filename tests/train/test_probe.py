"""Probes of a backbone: what a representation that separates the classes gives, what chance gives, what they leave."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn import functional

from realtime.errors import BundleError, LineError, UsageError
from tests.train import tiny_runs
from tests.train.tiny_knowledge import knowledge_of, settings
from tests.train.tiny_runs import CLASSES, prepared_set
from train import checkpoint, compose, outcome, probe
from train.data.prepared import sha256
from train.fit import fit
from train.pretrain import pretrain
from train.probing import Config, check, name_of, recipe_of
from train.runs import load_run
from train.tuning import Recipe, classifier, nearest, subset, tune

QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """They take longer than these probes; one test looks at them."""
    monkeypatch.setattr(probe, "draw_figures", lambda folder: None)


class Reach(nn.Module):
    """How far each joint moves along x, by a weight of 1: it separates the classes of the tiny set."""

    width = 20

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):  # (N, C, T, V, M) -> (N, 1, F, 1, 1)
        reach = x[:, 0, :, :, 0].amax(dim=1) - x[:, 0, :, :, 0].amin(dim=1)
        return (self.weight * reach)[:, None, :, None, None]


def reaching(folder, prepared, stream="joint", **model):
    """A run folder whose backbone is `Reach`."""
    folder.mkdir(parents=True)
    said = {"method": "c2vl", "layout": "KINECT_V1_20", "backbone": "reach", "channels": 3, "bodies": 1,
            "widths": [1], "groups": 1, "streams": [stream], "window": 16, "data": "nw_ucla",
            "split": "xview"}  # fmt: skip
    content = {"model": said | model, "epochs_done": 1, "config": {"prepared": str(prepared), "seed": 0}}
    checkpoint.save(folder / "last", {"network.encoders.backbone.weight": torch.ones(())}, content)
    return folder


@pytest.fixture
def reach(monkeypatch):
    monkeypatch.setattr(compose, "backbone", lambda model: Reach())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepared_set(tmp_path_factory.mktemp("sets") / "nw_ucla", 4)


@pytest.fixture(scope="module")
def pretrained_run(prepared, tmp_path_factory):
    """A real run of two epochs."""
    folder = tmp_path_factory.mktemp("runs")
    words = knowledge_of(prepared, folder / "knowledge")
    pretrain(settings(folder / "c2vl", prepared, words), QUIET)
    return folder / "c2vl"


def shuffled(folder):
    """A prepared set whose labels say nothing of its clips."""
    prepared_set(folder, 4)
    with np.load(folder / "index.npz") as file:
        index = {name: file[name] for name in file.files}
    index["label"] = np.random.default_rng(3).permutation(index["label"])
    np.savez(folder / "index.npz", **index)
    content = json.loads((folder / "prepared.json").read_text())
    content["sha256"]["index.npz"] = sha256(folder / "index.npz")
    (folder / "prepared.json").write_text(json.dumps(content))
    return folder


def looked_at(run, protocol, name=None, **changes):
    """result.json of a probe."""
    config = Config((run,), protocol, **{"threads": 1, "device": "cpu", **changes})
    written = probe.probe(config, QUIET)
    wanted = run / "probe" / (name or protocol)
    assert wanted in written
    return checkpoint.read_json(wanted / "result.json")


@pytest.mark.parametrize("protocol", ["linear", "knn"])
def test_a_representation_that_separates_the_classes_answers_everything_rightly(tmp_path, prepared, reach, protocol):
    result = looked_at(reaching(tmp_path / "run", prepared), protocol)
    assert result["test"] == {"clips": 40, "accuracy": 1.0, "mean_class_accuracy": 1.0}
    assert result["labels_known"] == 80 and result["data"] == "nw_ucla" and result["split"] == "xview"


@pytest.mark.parametrize("protocol", ["linear", "knn"])
def test_labels_that_say_nothing_are_answered_by_chance(tmp_path, reach, protocol):
    result = looked_at(reaching(tmp_path / "run", shuffled(tmp_path / "set")), protocol)
    assert result["test"]["accuracy"] < 0.3, "ten classes"


def test_every_protocol_runs_on_a_pre_trained_run_and_leaves_what_other_programs_read(
    tmp_path, prepared, pretrained_run
):
    for protocol, name, changes in (
        ("linear", "linear-cmd", {"recipe": "cmd"}),
        ("finetune", "finetune", {}),
        ("finetune", "finetune-aimclr", {"recipe": "aimclr"}),
        ("semi", "semi-0.1", {"shares": (0.1, 0.5), "draws": 2}),
        ("semi", "semi-0.5-classifier", {"shares": (0.5,), "draws": 2, "tuned": "classifier"}),
        ("knn", "knn-scratch", {"scratch": True}),
        ("transfer", "transfer-nw_ucla", {"prepared": prepared}),
    ):
        result = looked_at(pretrained_run, protocol, name, epochs=1, **changes)
        run = load_run(pretrained_run / "probe" / name)  # result and scores agree
        assert len(run.scores.names) == 40 and run.scores.feature.shape == (40, 16)
        assert result["pretrained_epochs"] == 2 and result["pretrained_on"] == "nw_ucla xview"
        assert result["method"] == ("scratch" if "scratch" in name else "c2vl")
    shares = checkpoint.read_json(pretrained_run / "probe" / "semi-0.5" / "result.json")
    assert shares["labels_known"] == 40
    draws = shares["draws"]
    assert len(draws["accuracies"]) == 2 and draws["mean"] == pytest.approx(sum(draws["accuracies"]) / 2)


@pytest.mark.parametrize("protocol", ["linear", "finetune", "semi"])
def test_a_probe_gives_the_same_answer_again_and_a_frozen_backbone_stays_as_it_was(pretrained_run, protocol):
    changes = {"epochs": 2, "shares": (0.2,), "draws": 1}
    name = "semi-0.2" if protocol == "semi" else protocol
    looked_at(pretrained_run, protocol, name, **changes)
    first = load_run(pretrained_run / "probe" / name).scores
    looked_at(pretrained_run, protocol, name, **changes)
    second = load_run(pretrained_run / "probe" / name).scores
    assert np.array_equal(first.logits, second.logits)
    looked_at(pretrained_run, "knn")
    unit = load_run(pretrained_run / "probe" / "knn").scores.feature
    assert np.allclose(unit, second.feature, atol=1e-5) is (protocol == "linear")


def test_tuning_with_still_norms_keeps_their_statistics_and_with_an_encoder_share_moves_the_backbone_less(
    prepared, pretrained_run
):
    config = Config((pretrained_run,), "finetune", device="cpu")
    one = probe.Probe(config, pretrained_run, torch.device("cpu"), QUIET)
    moved = {}
    for still, share in ((True, 1.0), (False, 1.0), (True, 0.01), (True, 0.0)):
        network = classifier(one.backbone(), len(CLASSES), 0)
        before = {name: tensor.clone() for name, tensor in network.backbone.state_dict().items()}
        tune(network, one.clips, one.clips.train[:16], Recipe(0.1, 1, 8, (), encoder=share, still=still), 0)
        now = network.backbone.state_dict()
        statistics = [name for name in before if "running" in name]
        assert all(torch.equal(before[name], now[name]) for name in statistics) is still and statistics
        moved[still, share] = sum(
            float((now[name] - before[name]).abs().sum()) for name in before if name.endswith("weight")
        )
    assert moved[True, 1.0] > 5 * moved[True, 0.01] > 0 and moved[True, 0.0] == 0


def test_the_rate_falls_to_a_tenth_after_its_shares_of_the_epochs(prepared, pretrained_run, monkeypatch):
    rates, whole = [], torch.optim.SGD.step

    def step(self, *args, **kwargs):
        rates.append([group["lr"] for group in self.param_groups])
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    one = probe.Probe(Config((pretrained_run,), "finetune"), pretrained_run, torch.device("cpu"), QUIET)
    network = classifier(one.backbone(), len(CLASSES), 0)
    tune(network, one.clips, one.clips.train[:4], Recipe(0.1, 5, 8, (0.6, 0.8), encoder=0.2), 0)
    expected = [[0.1, 0.02]] * 3 + [[0.01, 0.002], [0.001, 0.0002]]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_the_nearest_neighbour_is_by_angle_and_a_class_without_clips_is_never_it():
    generator = torch.Generator().manual_seed(0)
    known, asked = (torch.randn(n, 5, generator=generator) for n in (30, 300))
    labels = torch.arange(30) % 3
    found = nearest(known * torch.rand(30, 1, generator=generator), labels, asked, 4)
    angles = functional.normalize(asked, dim=1) @ functional.normalize(known, dim=1).T
    assert torch.equal(found.argmax(dim=1), labels[angles.argmax(dim=1)])
    assert (found[:, 3] == -1).all() and found.shape == (300, 4)


def test_labels_are_drawn_from_all_clips_and_differ_by_draw():
    train = np.arange(100, 300)
    draws = [subset(train, 0.05, 0, draw) for draw in range(5)]
    assert all(len(set(draw.tolist())) == 10 and set(draw.tolist()) <= set(train.tolist()) for draw in draws)
    assert len({tuple(draw) for draw in draws}) == 5
    assert np.array_equal(draws[0], subset(train, 0.05, 0, 0)) and len(subset(train, 0.001, 0, 0)) == 1
    assert np.array_equal(subset(train, 1.0, 0, 3), train)


def test_streams_are_scored_each_and_together_with_the_published_weights(tmp_path, prepared, reach):
    runs = [reaching(tmp_path / stream, prepared, stream) for stream in ("joint", "bone", "joint_motion")]
    written = probe.probe(Config(tuple(runs), "knn", device="cpu"), QUIET)
    assert [one.name for one in written] == ["knn", "knn", "knn", "knn-3-streams"]
    together = load_run(written[-1])
    parts = [load_run(one).scores.logits for one in written[:3]]
    expected = 0.6 * parts[0] + 0.6 * parts[1] + 0.4 * parts[2]
    np.testing.assert_allclose(together.scores.logits, expected, rtol=1e-6)
    assert together.result["weights"] == [0.6, 0.6, 0.4]
    assert together.result["stream"] == "joint & bone & joint_motion"
    out = probe.probe(Config(tuple(runs[:2]), "semi", shares=(0.5,), draws=2, epochs=1, weights=(1.0, 0.0),
                             out=tmp_path / "out", device="cpu"), QUIET)  # fmt: skip
    assert out[-1] == tmp_path / "out" / "semi-0.5-2-streams"
    first, both = (checkpoint.read_json(one / "result.json")["draws"] for one in (out[0], out[-1]))
    assert both == first


def test_pictures_are_drawn(tmp_path, prepared, reach, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(compose, "backbone", lambda model: Reach())
    run = reaching(tmp_path / "run", prepared)
    probe.probe(Config((run,), "knn", device="cpu"), QUIET)
    assert {"confusion.png", "tsne.png", "per_class.json", "result.json", "scores.npz"} == {
        one.name for one in (run / "probe" / "knn").iterdir()
    }


def test_the_best_of_a_linear_probe_is_said_to_be_chosen_by_the_test_clips(tmp_path, prepared, reach):
    result = looked_at(reaching(tmp_path / "run", prepared), "linear", epochs=11)
    assert result["best"]["chosen_by"] == "test" and result["best"]["epoch"] in (5, 10)
    assert result["epochs"] == 11 and result["recipe"]["falls"] == [0.8]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"runs": ()}, "name run folders"),
        ({"protocol": "transfer"}, "name it with --prepared"),
        ({"shares": (1.5,)}, r"--shares must be in \(0, 1\], got 1.5"),
        ({"draws": 0}, "--draws must be at least 1"),
        ({"recipe": "mine"}, "linear has no recipe 'mine'; it has aimclr, cmd"),
        ({"protocol": "finetune", "recipe": "cmd"}, "finetune has no recipe 'cmd'; it has ours, aimclr"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, said):
    with pytest.raises(UsageError, match=said):
        check(replace(Config((Path("run"),), "linear"), **changes))


def test_recipes_are_the_published_ones_and_flags_go_over_them():
    config = Config((Path("run"),), "linear")
    assert recipe_of(config) == Recipe(3.0, 100, 128, (0.8,))
    assert recipe_of(replace(config, epochs=10, lr=1.0)) == Recipe(1.0, 10, 128, (0.8,))
    assert recipe_of(replace(config, protocol="semi")) == Recipe(
        0.01, 80, 64, (0.625, 0.875), encoder=1.0, augment=True
    )
    alone = recipe_of(replace(config, protocol="semi", tuned="classifier"))
    assert alone == Recipe(0.1, 80, 64, (0.625, 0.875), augment=True)
    assert recipe_of(replace(config, protocol="knn")) is None
    assert name_of(replace(config, protocol="transfer", scratch=True), "sbu", None) == "transfer-sbu-scratch"


def test_a_set_of_other_skeletons_and_a_loss_that_explodes_are_refused(tmp_path, prepared, reach):
    run = reaching(tmp_path / "run", prepared, bodies=2)
    with pytest.raises(UsageError, match="1 bodies in KINECT_V1_20, the run was trained on 2 in"):
        looked_at(run, "knn")
    with pytest.raises(LineError, match="choose a lower --lr"):
        looked_at(reaching(tmp_path / "other", prepared_set(tmp_path / "set", broken=0)), "linear")
    with pytest.raises(BundleError, match="no checkpoint"):
        looked_at(tmp_path / "nowhere", "knn")


def test_the_command_line_prints_a_table(tmp_path, prepared, reach, monkeypatch, capsys):
    run = reaching(tmp_path / "run", prepared)
    monkeypatch.setattr("sys.argv", ["probe", str(run), "--protocol", "knn", "--device", "cpu"])
    assert probe.main() == 0
    assert "100.00%" in capsys.readouterr().err


def test_a_run_of_fit_is_looked_at_too_but_not_one_on_live_windows_without_a_set(tmp_path, prepared, monkeypatch):
    monkeypatch.setattr(outcome, "draw_figures", lambda folder: None)
    fit(tiny_runs.settings(tmp_path / "run", prepared=prepared, window=16, epochs=1), QUIET)
    result = looked_at(tmp_path / "run", "knn")
    assert result["method"] == "ce" and result["stream"] == "joint+bone" and result["pretrained_epochs"] == 1
    fit(tiny_runs.settings(tmp_path / "live", epochs=1), QUIET)
    with pytest.raises(UsageError, match="not trained on a prepared set; name one with --prepared"):
        looked_at(tmp_path / "live", "knn")
