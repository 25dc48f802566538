import json
import sys

import numpy as np
import pytest
from scipy.stats import binomtest

from tests.train.runs_by_hand import CLASSES, write_run
from train import compare
from train.groups import baselines, contrast, group, moved, settings_apart
from train.runs import load_run, same_clips

LABELS = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
CE = {0: [0, 0, 1, 1, 1, 1, 0, 1, 2, 0], 1: [0, 0, 0, 1, 1, 0, 0, 1, 2, 0]}  # 6 right each
PCLE = {0: [0, 0, 0, 0, 1, 1, 0, 0, 2, 2], 1: [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]}


@pytest.fixture
def folders(tmp_path):
    made = [write_run(tmp_path / f"ce_{seed}", answers, LABELS, seed=seed) for seed, answers in CE.items()]
    return made + [
        write_run(tmp_path / f"pcle_{seed}", answers, LABELS, seed=seed, method="pcle",
                  best={"epoch": 1, "accuracy": 0.9 + seed / 10, "chosen_by": "validation"})
        for seed, answers in PCLE.items()
    ]  # fmt: skip


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, words)])
    return compare.main()


def read(*folders):
    return group(same_clips([load_run(folder) for folder in folders]))


def right(answers):
    return np.array(answers) == LABELS


def test_seeds_are_grouped_and_averaged(folders, tmp_path, monkeypatch):
    assert call(monkeypatch, *folders, "--json", tmp_path / "out.json") == 0
    first, second = json.loads((tmp_path / "out.json").read_text())["groups"]
    assert [first["method"], second["method"]] == ["ce", "pcle"]
    assert first["seeds"] == second["seeds"] == [0, 1] and first["clips"] == 10
    each = [right(answers).mean() for answers in PCLE.values()]
    assert second["accuracy"]["each"] == pytest.approx(each)
    assert second["accuracy"]["mean"] == pytest.approx(np.mean(each))
    assert second["accuracy"]["std"] == pytest.approx(np.std(each, ddof=1))
    # seed 0: recalls 1, 1/2 and 1; seed 1: all right
    assert second["mean_class_accuracy"] == pytest.approx((2.5 / 3 + 1) / 2)
    assert second["best"] == {
        "mean": pytest.approx(0.95),
        "std": pytest.approx(0.1 / 2**0.5),
        "chosen_by": "validation",
    }
    assert first["best"] is None and first["against"] is None


def test_mcnemar_adds_the_discordant_clips_of_equal_seeds(folders, tmp_path, monkeypatch):
    assert call(monkeypatch, *folders, "--baseline", "ce", "--json", tmp_path / "out.json") == 0
    against = json.loads((tmp_path / "out.json").read_text())["groups"][1]["against"]
    pairs = [(right(CE[seed]), right(PCLE[seed])) for seed in (0, 1)]
    lost = [int((one & ~two).sum()) for one, two in pairs]
    won = [int((two & ~one).sum()) for one, two in pairs]
    assert (lost, won) == ([1, 0], [3, 4])  # by hand
    assert (against["only_baseline"], against["only_this"]) == (1, 7)
    assert against["p"] == pytest.approx(binomtest(1, 8, 0.5).pvalue) == pytest.approx(18 / 256)
    assert [pair["p"] for pair in against["each"]] == pytest.approx([10 / 16, 2 / 16])
    assert against["difference"]["mean"] == pytest.approx((7 - 1) / 20)


def test_runs_in_another_order_of_clips_are_matched_by_name(folders, tmp_path):
    order = np.random.default_rng(3).permutation(10)
    other = write_run(
        tmp_path / "other", np.array(PCLE[0])[order], np.array(LABELS)[order],
        [f"clip {number}" for number in order], method="pcle",
    )  # fmt: skip
    plain = read(folders[0], folders[2])
    shuffled = read(folders[0], other)
    assert contrast(plain[1], plain[:1]).counts == contrast(shuffled[1], shuffled[:1]).counts == ((1, 3),)


def test_the_classes_that_moved_most_are_named(folders):
    first, second = read(*folders)
    gained, lost = moved(contrast(second, [first]), CLASSES)
    # recalls of seeds 0 and 1: ce 2/4 3/4 | 3/4 2/4 | 1/2 1/2, pcle 1 1 | 2/4 1 | 1 1
    assert gained == [("throw", 0.5), ("sit down", 0.375), ("stand up", 0.125)] and lost == []
    gained, lost = moved(contrast(first, [second]), CLASSES)
    assert gained == [] and lost[0] == ("throw", -0.5)


def test_the_table_says_what_was_measured(folders, tmp_path, monkeypatch, capsys):
    file = tmp_path / "rows.md"
    assert call(monkeypatch, *folders, "--markdown", file) == 0
    lines = file.read_text().splitlines()
    assert lines[0].startswith("10 test clips; backbone ctrgcn")
    rows = [line for line in lines if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1  # a table: as many columns in each row
    ce, pcle = ([cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:])
    assert ce[:3] == ["ce", "0 1", "60.00 ± 0.00"] and ce[-1] == ""
    assert pcle[:3] == ["pcle", "0 1", "90.00 ± 14.14"] and pcle[5] == "95.00 ± 7.07 on validation"
    assert pcle[-3:] == ["+30.00 ± 14.14 ce", "1 : 7", "0.07"]
    assert "pcle: gained most: throw +50.0, sit down +37.5, stand up +12.5; lost most: none" in file.read_text()
    assert "McNemar" in capsys.readouterr().err


def test_one_seed_has_no_deviation(folders):
    row = compare.report(read(folders[0])[0], None)
    assert compare.cells(row, ["method"])[2] == "60.00" and row["accuracy"]["std"] is None
    low, high = row["accuracy"]["wilson"]
    assert low < 0.6 < high


def test_other_streams_labels_and_backbones_are_other_groups(folders, tmp_path):
    more = [
        write_run(tmp_path / f"more {number}", CE[0], LABELS, **changed)
        for number, changed in enumerate([{"stream": "bone"}, {"label": "x"}, {"backbone": "stgcn"}, {"epochs": 3}])
    ]
    assert [len(found.runs) for found in read(*folders, *more)] == [2, 2, 1, 1, 1, 1]


def test_a_group_meets_the_baseline_of_its_own_stream(folders, tmp_path):
    bone = [write_run(tmp_path / f"bone {m}", CE[0], LABELS, stream="bone", method=m) for m in ("ce", "pcle")]
    groups = read(*folders, *bone)
    found = baselines(groups, "ce")
    against = [contrast(one, found) for one in groups]
    assert [one and one.baseline.key["stream"] for one in against] == [None, "joint", None, "bone"]


def test_a_label_may_be_the_baseline(folders, tmp_path):
    short = write_run(tmp_path / "short", CE[0], LABELS, method="pcle", label="no ranking")
    groups = read(*folders, short)
    assert [found.key["label"] for found in baselines(groups, "no ranking")] == ["no ranking"]
    assert [found.key["label"] for found in baselines(groups, "pcle")] == [""]


def test_two_runs_of_one_seed_are_refused(folders, tmp_path, monkeypatch, capsys):
    twin = write_run(tmp_path / "twin", CE[1], LABELS, seed=1)
    assert call(monkeypatch, *folders, twin) == 2
    assert "ce_1" in (said := capsys.readouterr().err) and "twin" in said and "--label" in said


def test_seeds_trained_otherwise_are_named(folders, tmp_path, monkeypatch, capsys):
    made = [
        write_run(
            tmp_path / f"n{seed}", CE[seed], LABELS, seed=seed, config={"lr": 0.1 + seed, "seed": seed, "out": "x"}
        )
        for seed in CE
    ]
    assert settings_apart(read(*made)[0]) == ["lr"]
    assert call(monkeypatch, *made) == 0
    assert "differ in lr" in capsys.readouterr().err


def test_no_shared_seed_is_said_and_not_compared(folders, tmp_path, monkeypatch, capsys):
    alone = write_run(tmp_path / "alone", PCLE[0], LABELS, method="gap", seed=7)
    assert call(monkeypatch, *folders, alone, "--json", tmp_path / "out.json") == 0
    assert "alone share no seed with the baseline" in capsys.readouterr().err
    assert json.loads((tmp_path / "out.json").read_text())["groups"][-1]["against"] is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"names": [f"clip {n}" for n in range(1, 11)]}, "other test clips (2 in one only, such as clip 0)"),
        ({"classes": ("a", "b", "c")}, "other classes"),
        ({"labels": [1, *LABELS[1:]]}, "label clip 0 otherwise"),
    ],
)
def test_other_clips_are_refused(folders, tmp_path, monkeypatch, capsys, change, said):
    other = write_run(tmp_path / "other", **({"answers": CE[0], "labels": LABELS} | change), method="gap")
    assert call(monkeypatch, *folders, other) == 2
    assert said in capsys.readouterr().err


def test_what_is_no_finished_run_is_refused(folders, tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, tmp_path / "nowhere") == 3
    assert "no run at" in capsys.readouterr().err
    (folders[0] / "result.json").unlink()
    assert call(monkeypatch, *folders) == 3
    assert f"holds no result yet; finish the run with: python -m train.fit --out {folders[0]} --resume" in (
        capsys.readouterr().err.replace("\n", "")
    )
    (folders[1] / "scores.npz").write_bytes((folders[1] / "scores.npz").read_bytes()[:300])
    assert call(monkeypatch, folders[1]) == 3
    assert "is not a whole scores.npz" in capsys.readouterr().err
    (folders[2] / "result.json").write_text(json.dumps({"method": "ce", "seed": 0, "held_out": {}}))
    assert call(monkeypatch, folders[2]) == 3
    assert "live windows" in capsys.readouterr().err


def test_scores_of_another_model_than_the_result_are_refused(tmp_path, monkeypatch, capsys):
    odd = write_run(tmp_path / "odd", CE[0], LABELS, test={"accuracy": 0.9})
    assert call(monkeypatch, odd) == 3
    assert "scores.npz gives 0.6000, result.json 0.9000" in capsys.readouterr().err


def test_an_unknown_baseline_is_refused(folders, monkeypatch, capsys):
    assert call(monkeypatch, *folders, "--baseline", "gcn") == 2
    assert "takes one of: ce, pcle" in capsys.readouterr().err
