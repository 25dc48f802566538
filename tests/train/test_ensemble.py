import json
import sys

import numpy as np
import pytest

from realtime.errors import UsageError
from tests.train.runs_by_hand import CLASSES, write_run
from train import compare, ensemble
from train.runs import load_run, load_scores

LABELS = [0, 1, 2, 0]
JOINT = [[3, 0, 0], [1, 0, 0], [0, 0, 2], [0, 1, 0]]  # right: clips 0 and 2
BONE = [[0, 1, 0], [0, 4, 0], [1, 0, 0], [0, 1, 0]]  # right: clip 1


@pytest.fixture
def folders(tmp_path):
    return [
        write_run(tmp_path / "joint", JOINT, LABELS, stream="joint"),
        write_run(tmp_path / "bone", BONE, LABELS, stream="bone", feature=np.ones((4, 2), np.float32)),
    ]


def call(monkeypatch, *words, module=ensemble):
    monkeypatch.setattr(sys, "argv", ["ensemble", *map(str, words)])
    return module.main()


def test_logits_are_added_up_by_weight(folders, tmp_path, monkeypatch, capsys):
    out = tmp_path / "sum.npz"
    assert call(monkeypatch, *folders, "--weights", 0.5, 0.25, "--out", out) == 0
    found = load_scores(out)
    np.testing.assert_allclose(found.logits, [[1.5, 0.25, 0], [0.5, 1, 0], [0.25, 0, 1], [0, 0.75, 0]])
    assert found.right.tolist() == [True, True, True, False]
    assert found.names.tolist() == [f"clip {n}" for n in range(4)] and found.classes.tolist() == list(CLASSES)
    assert found.feature is None
    said = capsys.readouterr().err
    assert all(figure in said for figure in ("50.00%", "25.00%", "75.00%"))


def test_weights_are_the_published_ones_of_the_streams(tmp_path):
    streams = ("bone_motion", "joint", "bone", "joint_motion")
    runs = [load_run(write_run(tmp_path / stream, [0, 1], [0, 1], stream=stream)) for stream in streams]
    assert ensemble.default_weights(runs) == (0.4, 0.6, 0.6, 0.4)
    fused = load_run(write_run(tmp_path / "fused", [0, 1], [0, 1], stream="joint+bone"))
    with pytest.raises(UsageError, match=r"stream 'joint\+bone', which has no published weight; add --weights"):
        ensemble.default_weights([*runs, fused])


def test_clips_are_matched_by_name(folders, tmp_path):
    order = [2, 0, 3, 1]
    shuffled = write_run(tmp_path / "shuffled", np.array(BONE)[order], np.array(LABELS)[order],
                         [f"clip {n}" for n in order], stream="bone")  # fmt: skip
    plain = ensemble.add_up([load_run(folder) for folder in folders], (1, 1))
    other = ensemble.add_up([load_run(folders[0]), load_run(shuffled)], (1, 1))
    np.testing.assert_array_equal(plain.logits, other.logits)
    np.testing.assert_array_equal(plain.labels, other.labels)


def test_a_run_alone_of_weight_one_is_itself_whatever_the_others_say(folders):
    runs = [load_run(folder) for folder in folders]
    np.testing.assert_array_equal(ensemble.add_up(runs, (1, 0)).logits, runs[0].scores.logits)
    np.testing.assert_array_equal(ensemble.add_up(runs, (0, 1)).logits, runs[1].scores.logits)


def test_an_ensembles_folder_reads_like_a_runs(folders, tmp_path, monkeypatch):
    out = tmp_path / "both"
    assert call(monkeypatch, *folders, "--out", out) == 0
    run = load_run(out)
    assert run.result["test"]["accuracy"] == 0.75 and run.result["weights"] == [0.6, 0.6]
    assert (run.result["stream"], run.result["method"], run.result["seed"]) == ("joint & bone", "ce", 0)
    report = tmp_path / "compare.json"
    assert call(monkeypatch, folders[0], out, "--json", report, module=compare) == 0
    against = json.loads(report.read_text())["groups"][1]["against"]
    assert (against["only_baseline"], against["only_this"]) == (0, 1)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ((1, 1, 1), "one for each of the 2 runs, got 3"),
        ((0, 0), "not all 0"),
        ((1, -1), "from 0 on"),
        ((1, float("nan")), "from 0 on"),
    ],
)
def test_weights_that_make_no_sum_are_refused(folders, weights, said):
    with pytest.raises(UsageError, match=said):
        ensemble.add_up([load_run(folder) for folder in folders], weights)


def test_other_clips_are_refused(folders, tmp_path, monkeypatch, capsys):
    other = write_run(tmp_path / "other", JOINT, LABELS, ["a", "b", "c", "d"], stream="joint_motion")
    assert call(monkeypatch, *folders, other) == 2
    assert "other test clips (8 in one only, such as a)" in capsys.readouterr().err


def test_one_run_is_no_ensemble(folders, monkeypatch, capsys):
    assert call(monkeypatch, folders[0]) == 2
    assert "two runs or more" in capsys.readouterr().err


def test_a_trained_runs_folder_is_not_written_over(folders, monkeypatch, capsys):
    (folders[0] / "config.json").write_text("{}")
    before = (folders[0] / "scores.npz").read_bytes()
    assert call(monkeypatch, *folders, "--out", folders[0]) == 2
    assert (folders[0] / "scores.npz").read_bytes() == before
    assert "choose another --out" in capsys.readouterr().err


def test_runs_of_several_seeds_and_methods_are_named_together(tmp_path):
    made = [(0, "ce", None), (1, "pcle", "ViT-B-32")]
    runs = [
        load_run(write_run(tmp_path / method, [0, 1], [0, 1], seed=seed, method=method, encoder=encoder))
        for seed, method, encoder in made
    ]
    found = ensemble.result_of(runs, (1, 1), ensemble.add_up(runs, (1, 1)))
    assert (found["seed"], found["method"], found["encoder"]) == ("0 & 1", "ce & pcle", "ViT-B-32")
    assert (found["backbone"], found["stream"]) == ("ctrgcn", "joint & joint")
