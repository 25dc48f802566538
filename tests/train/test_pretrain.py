"""Pre-training as a program: its folder, resuming, refusals, and the backbone that train.fit starts from."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from realtime.errors import BundleError, UsageError
from tests.train import tiny_runs
from tests.train.test_distributed import free_port
from tests.train.test_fit import rows_of, same_weights
from tests.train.tiny_knowledge import knowledge_of, settings
from tests.train.tiny_runs import prepared_set
from tests.train.tiny_texts import tiny_encoder
from train import checkpoint, compose, outcome, pretrained
from train.distributed import Ranks
from train.fit import fit
from train.knowing import PreparedKnowledge
from train.learner import Learner, rate, under
from train.pretrain import Config, Pretrainer, main, pretrain

QUIET = Console(quiet=True)
ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_encoder_and_no_figures(monkeypatch):
    monkeypatch.setattr(compose, "open_encoder", tiny_encoder)
    monkeypatch.setattr(outcome, "draw_figures", lambda folder: None)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A prepared set and what is said of its clips, in words and pictures."""
    folder = tmp_path_factory.mktemp("sets")
    prepared = prepared_set(folder / "nw_ucla")
    return prepared, knowledge_of(prepared, folder / "knowledge", ("language", "vision"))


@pytest.fixture(scope="module")
def run(sets, tmp_path_factory):
    """A finished run of two epochs."""
    out = tmp_path_factory.mktemp("runs") / "c2vl"
    pretrain(settings(out, *sets), QUIET)
    return out


def stop_at(epoch, monkeypatch):
    """Ends the training where an epoch begins; returns what undoes it."""
    whole = Learner.epoch

    def interrupted(self, number):
        if number == epoch:
            raise KeyboardInterrupt
        yield from whole(self, number)

    monkeypatch.setattr(Learner, "epoch", interrupted)
    return lambda: monkeypatch.setattr(Learner, "epoch", whole)


def test_a_run_leaves_its_folder(run, sets):
    assert {"config.json", "environment.json", "metrics.jsonl", "last.safetensors", "result.json"} <= {
        one.name for one in run.iterdir()
    }
    assert list(run.glob("events.out.*")) and not list(run.glob("*.partial"))
    rows = rows_of(run)
    assert [row["alpha"] for row in rows] == pytest.approx([0.9, 0.1])
    for row in rows:
        assert row["loss"] == pytest.approx(row["loss/language"] + row["loss/vision"], rel=1e-4)
        assert 0 < row["temperature"] < 1 and 0 <= row["found"] <= 1
    result = checkpoint.read_json(run / "result.json")
    assert result["method"] == "c2vl" and result["knowledge"] == {"language": 16, "vision": 17}
    assert result["clips"] == 40 and result["clips_without_knowledge"] == 0 and result["stream"] == "joint"


def test_pre_training_learns_to_find_what_is_said(tmp_path, sets):
    config = settings(tmp_path / "run", *sets, epochs=8, repeat=8, lr=0.1, alpha_last=0.5, use=("language",))
    pretrain(config, QUIET)
    rows = rows_of(tmp_path / "run")
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"] and rows[-1]["found"] > 2 * rows[0]["found"]


@pytest.mark.parametrize("teacher", ["previous", "ema", "self"])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch, sets, teacher):
    changes = {"epochs": 3, "teacher": teacher, "ema": 0.8}
    pretrain(settings(tmp_path / "whole", *sets, **changes), QUIET)
    undo = stop_at(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        pretrain(settings(tmp_path / "parts", *sets, **changes), QUIET)
    undo()
    pretrain(Config(out=tmp_path / "parts", resume=True), QUIET)
    same_weights(tmp_path / "whole", tmp_path / "parts")
    for one, other in zip(rows_of(tmp_path / "whole"), rows_of(tmp_path / "parts"), strict=True):
        timed = ("seconds", "clips_per_s")
        assert {k: v for k, v in one.items() if k not in timed} == {k: v for k, v in other.items() if k not in timed}


def test_a_teacher_that_is_an_average_moves_with_the_steps_of_a_run(tmp_path, sets):
    config = settings(tmp_path / "run", *sets, teacher="ema", ema=0.5)
    pretrain(config, QUIET)
    tensors = load_file(config.out / "last.safetensors")
    first = Pretrainer(config, PreparedKnowledge(config, CPU, QUIET), CPU, Ranks()).network.encoders
    name = "project.weight"
    taught, learned, start = (
        tensors[f"network.teacher.{name}"],
        tensors[f"network.encoders.{name}"],
        first.project.weight,
    )
    assert 0 < (taught - learned).norm() < (start - learned).norm()


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path, sets):
    config = settings(tmp_path / "parts", *sets, epochs=3)
    words = []
    for name, value in vars(config).items():
        if value != getattr(Config, name, None):
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    command = [sys.executable, "-m", "tests.train.tiny_knowledge", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "KILL_AFTER": "4"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pretrain(Config(out=config.out, resume=True), QUIET)
    pretrain(settings(tmp_path / "whole", *sets, epochs=3), QUIET)
    same_weights(tmp_path / "whole", config.out)


@pytest.mark.slow
def test_torchrun_pre_trains_with_one_writer(tmp_path, sets):
    config = settings(tmp_path / "run", *sets)
    words = ["--prepared", str(sets[0]), "--knowledge", str(sets[1]), "--out", str(config.out), "--epochs", "2",
             "--batch", "16", "--backbone", "graphnet", "--widths", "8", "16", "--groups", "2", "--window", "16",
             "--dim", "16", "--device", "cpu", "--threads", "1", "--precision", "fp32"]  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
    done = subprocess.run(
        [*command, str(free_port()), "-m", "train.pretrain", *words], cwd=ROOT, capture_output=True, text=True,
        timeout=900, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [row["epoch"] for row in rows_of(config.out)] == [1, 2]
    assert json.loads((config.out / "environment.json").read_text())["world"] == 2
    assert len(list(config.out.glob("events.out.*"))) == 1 and not list(config.out.glob("*.partial"))


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(tmp_path, monkeypatch, capsys, sets):
    config = settings(tmp_path / "run", *sets, epochs=3)
    stop_at(1, monkeypatch)
    monkeypatch.setattr("train.pretrain.run_command", lambda kind, program, examples, run: run(config, Console()))
    assert main() == 130
    assert "python -m train.pretrain --out" in capsys.readouterr().out.replace("\n", " ")
    assert checkpoint.load(config.out / "last.safetensors")[1]["epochs_done"] == 1


def test_the_rate_falls_by_tenths_at_the_published_epochs(tmp_path):
    config = Config(out=tmp_path, warm_up=5)
    found = [rate(config, step, 1500, Pretrainer.falls) for step in range(1500)]
    assert found[0] == 1 / 50 and set(found[49:1300]) == {1}
    assert found[1300:] == pytest.approx([0.1] * 100 + [0.01] * 100)


def test_a_clip_comes_with_what_is_said_of_it_also_in_another_order_and_clips_of_which_nothing_is_stay_out(
    tmp_path, sets
):
    prepared, _ = sets
    folder = knowledge_of(prepared, tmp_path / "few", nothing_of=(0, 1, 2, 30))  # clips 2 of 3 are for testing
    batches = PreparedKnowledge(settings(tmp_path, prepared, folder), CPU, QUIET)
    assert len(batches.train) == 37 and batches.known.unknown == 3 and batches.steps == 2
    for (_, knowledge), (_, picked) in zip(batches.epoch(1, Ranks()), batches.picked(1), strict=True):
        assert not {0, 1, 30} & set(picked.tolist())
        assert torch.equal(knowledge["language"].argmax(dim=1), torch.from_numpy(batches.labels[picked]))
    whole, *halves = (list(batches.epoch(1, ranks)) for ranks in (Ranks(), Ranks(0, 2), Ranks(1, 2)))
    for (x, said), (x0, said0), (x1, said1) in zip(whole, *halves, strict=True):
        assert torch.equal(x, torch.cat([x0, x1]))
        assert torch.equal(said["language"], torch.cat([said0["language"], said1["language"]]))


def test_without_augmentation_a_clip_looks_as_it_is_tested(tmp_path, sets):
    batches = PreparedKnowledge(settings(tmp_path, *sets, augment=False), CPU, QUIET)
    (x, _), (_, picked) = next(batches.epoch(0, Ranks())), next(batches.picked(0))
    assert torch.equal(x, next(batches.inputs(picked)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"knowledge": None}, "one of the two, and --knowledge"),
        ({"beta": 1.5}, r"--beta must be a share in \[0, 1\], got 1.5"),
        ({"batch": 1}, "--batch must be at least 2"),
        ({"use": ("sound",)}, "--use takes language and vision, got sound"),
        ({"intra_temperature": -1.0}, "--intra-temperature must be a number from 0 on"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, sets, changes, said):
    with pytest.raises(UsageError, match=said):
        pretrain(replace(settings(tmp_path / "run", *sets), **changes), QUIET)


def test_knowledge_that_is_not_there_or_of_other_clips_is_refused(tmp_path, sets):
    prepared, _ = sets
    words = knowledge_of(prepared, tmp_path / "words")
    with pytest.raises(UsageError, match="has no vision; leave it out of --use"):
        pretrain(settings(tmp_path / "run", prepared, words, use=("vision",)), QUIET)
    other = knowledge_of(prepared_set(tmp_path / "larger", 4), tmp_path / "other")
    pretrain(settings(tmp_path / "by name", prepared, other, epochs=1), QUIET)  # a larger set that has these names
    smaller = knowledge_of(prepared, tmp_path / "smaller")
    with pytest.raises(UsageError, match="says nothing of"):
        pretrain(settings(tmp_path / "lost", tmp_path / "larger", smaller), QUIET)


def test_a_run_does_not_go_on_with_other_knowledge(tmp_path, sets):
    words = knowledge_of(sets[0], tmp_path / "words")
    pretrain(settings(tmp_path / "run", sets[0], words, epochs=1), QUIET)
    assert checkpoint.load(tmp_path / "run" / "last.safetensors")[1]["model"]["encoder"] == {"language": "tiny"}
    knowledge_of(sets[0], words, nothing_of=(4,))
    with pytest.raises(UsageError, match=r"is not what .* was begun with"):
        pretrain(Config(out=tmp_path / "run", resume=True), QUIET)


@pytest.mark.parametrize("method", ["ce", "gap", "pcke", "pcle"])
def test_every_method_starts_from_exactly_the_pre_trained_backbone(tmp_path, monkeypatch, run, sets, method):
    config = tiny_runs.settings(tmp_path / method, method=method, prepared=sets[0], window=16, streams=("joint",),
                                init=run, epochs=1)  # fmt: skip
    begun = {}
    whole = Learner.epoch

    def epoch(self, number):
        begun.update({k: v.clone() for k, v in self.network.recogniser.backbone.state_dict().items()})
        yield from whole(self, number)

    monkeypatch.setattr(Learner, "epoch", epoch)
    fit(config, QUIET)
    kept = under(load_file(run / "last.safetensors"), "network.encoders.backbone.")
    assert begun.keys() == kept.keys() and begun
    for name, tensor in begun.items():
        assert torch.equal(tensor, kept[name]), name
    result = checkpoint.read_json(tmp_path / method / "result.json")
    assert result["init"] == str(run)


def test_a_run_of_fit_can_be_started_from_and_a_resumed_one_does_not_start_again(tmp_path, monkeypatch, run, sets):
    changes = {"prepared": sets[0], "window": 16, "streams": ("joint",)}
    first = tiny_runs.settings(tmp_path / "first", init=run, epochs=2, **changes)
    fit(first, QUIET)
    second = tiny_runs.settings(tmp_path / "second", init=tmp_path / "first", epochs=1, **changes)
    fit(second, QUIET)
    monkeypatch.setattr(pretrained, "start_from", lambda *_: pytest.fail("a resumed run starts from its checkpoint"))
    fit(type(first)(out=tmp_path / "first", resume=True), QUIET)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"streams": ("bone",)}, "streams joint, not bone"),
        ({"streams": ("joint", "bone")}, "streams joint, not joint bone; channels 3, not 6"),
        ({"backbone": "stgcn-edge"}, "backbone graphnet, not stgcn-edge"),
        ({"widths": (8, 8)}, "widths 8 16, not 8 8"),
    ],
)
def test_a_backbone_of_another_kind_is_refused(tmp_path, run, sets, changes, said):
    config = tiny_runs.settings(tmp_path / "run", prepared=sets[0], window=16,
                                **{"streams": ("joint",), "init": run, **changes})  # fmt: skip
    with pytest.raises(UsageError, match=f"was trained with {said}"):
        fit(config, QUIET)


def test_a_checkpoint_that_lacks_a_weight_or_a_backbone_is_refused(tmp_path, run, sets):
    tensors, content = checkpoint.load(run / "last.safetensors")
    names = sorted(name for name in tensors if name.startswith("network.encoders.backbone."))
    assert names[-1].endswith("weight")
    for folder, left, said in (
        ("one", names[-1:], "does not hold the backbone it says"),
        ("all", names, "no backbone"),
    ):
        (tmp_path / folder).mkdir()
        checkpoint.save(tmp_path / folder / "last", {k: v for k, v in tensors.items() if k not in left}, content)
        with pytest.raises(BundleError, match=said):
            fit(tiny_runs.settings(tmp_path / f"of {folder}", prepared=sets[0], window=16, streams=("joint",),
                                   init=tmp_path / folder), QUIET)  # fmt: skip


def test_live_windows_are_of_another_layout_and_a_folder_without_a_run_is_refused(tmp_path, run):
    with pytest.raises(UsageError, match="layout KINECT_V1_20, not CORE_16"):
        fit(tiny_runs.settings(tmp_path / "live", init=run, streams=("joint",)), QUIET)
    with pytest.raises(BundleError, match=r"no checkpoint at .*train.pretrain"):
        fit(tiny_runs.settings(tmp_path / "none", init=tmp_path / "nowhere"), QUIET)
