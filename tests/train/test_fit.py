import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from realtime.errors import BundleError, LineError, UsageError
from tests.train.tiny_runs import CLASSES, flags, prepared_set, settings
from tests.train.tiny_texts import tiny_encoder
from train import checkpoint, compose, outcome
from train.batches import PreparedBatches, _set_aside
from train.distributed import Ranks
from train.fit import Config, _settings, fit, main
from train.learner import rate
from train.trainer import Trainer, averaging

QUIET = Console(quiet=True)
ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_encoder_and_no_figures(monkeypatch):
    """Figures take longer than these runs; tests of outcome.py look at them."""
    monkeypatch.setattr(compose, "open_encoder", tiny_encoder)
    monkeypatch.setattr(outcome, "draw_figures", lambda folder: None)


@pytest.fixture(scope="module")
def ucla_set(tmp_path_factory):
    return prepared_set(tmp_path_factory.mktemp("sets") / "nw_ucla")


def tiny(out, **changes):
    return settings(out, **changes)


def published(out, folder, **changes):
    """A run of PCLE on the prepared set."""
    return tiny(out, **{"method": "pcle", "prepared": folder, "window": 16, **changes})


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same_weights(one, other):
    expected, found = (load_file(folder / "last.safetensors") for folder in (one, other))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, msg=name)


def stop_at(epoch, monkeypatch, error=KeyboardInterrupt):
    """Ends the training with an error where an epoch begins; returns what undoes it."""
    whole = Trainer.epoch

    def interrupted(self, number):
        if number == epoch:
            raise error
        yield from whole(self, number)

    monkeypatch.setattr(Trainer, "epoch", interrupted)
    return lambda: monkeypatch.setattr(Trainer, "epoch", whole)


@pytest.mark.parametrize("kind", ["live ce", "live pcle", "prepared pcle", "prepared gap", "prepared pcke"])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch, ucla_set, kind):
    where, method = kind.split()
    changes = {"method": method, "epochs": 3, "refresh_text": 3 if method == "pcle" else 1, "tune_text": 1}
    if where == "prepared":
        changes |= {"prepared": ucla_set, "window": 16, "validation": 0.3}
    fit(tiny(tmp_path / "whole", **changes), QUIET)
    undo = stop_at(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny(tmp_path / "parts", **changes), QUIET)
    undo()
    fit(Config(out=tmp_path / "parts", resume=True), QUIET)
    same_weights(tmp_path / "whole", tmp_path / "parts")
    whole, parts = rows_of(tmp_path / "whole"), rows_of(tmp_path / "parts")
    assert [row["epoch"] for row in parts] == [1, 2, 3]
    for one, other in zip(whole, parts, strict=True):
        timed = ("seconds", "clips_per_s")
        assert {k: v for k, v in one.items() if k not in timed} == {k: v for k, v in other.items() if k not in timed}


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 4, 6])  # of two an epoch: with no checkpoint yet, and amid the later epochs
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path, ucla_set, steps):
    config = published(tmp_path / "parts", ucla_set, epochs=4, validation=0.2, refresh_text=3)
    command = [sys.executable, "-m", "tests.train.tiny_runs", *flags(config)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "KILL_AFTER": str(steps)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    if steps == 1:
        with pytest.raises(BundleError, match="no checkpoint"):
            fit(Config(out=config.out, resume=True), QUIET)
        fit(config, QUIET)
    else:
        assert [row["epoch"] for row in rows_of(config.out)] == list(range(1, (steps + 1) // 2))
        fit(Config(out=config.out, resume=True), QUIET)
    fit(published(tmp_path / "whole", ucla_set, epochs=4, validation=0.2, refresh_text=3), QUIET)
    same_weights(tmp_path / "whole", config.out)
    assert [row["epoch"] for row in rows_of(config.out)] == [1, 2, 3, 4]
    assert not list(config.out.glob("*.partial"))


@pytest.mark.parametrize("dies_in", ["last", "best"])
def test_a_run_that_died_while_it_saved_keeps_a_row_for_each_epoch(tmp_path, monkeypatch, ucla_set, dies_in):
    config = published(tmp_path / "run", ucla_set, method="ce", epochs=3, best_on="test")
    whole, saved = Trainer.save, []

    def save(self, name):
        saved.append(name)
        if name == dies_in and saved.count(name) == (2 if name == "last" else 1):
            raise OSError("no space left on device")
        whole(self, name)

    monkeypatch.setattr(Trainer, "save", save)
    with pytest.raises(OSError, match="no space"):
        fit(config, QUIET)
    monkeypatch.setattr(Trainer, "save", whole)
    resume = (config.out / "last.safetensors").exists()
    fit(Config(out=config.out, resume=True) if resume else config, QUIET)
    assert [row["epoch"] for row in rows_of(config.out)] == [1, 2, 3]
    best = max(row["best"] for row in rows_of(config.out) if "best" in row)
    assert checkpoint.read_json(config.out / "best.json")["accuracy"] == best


def test_training_learns(tmp_path):
    fit(tiny(tmp_path / "run", epochs=4, draws=256, lr=0.05, strength=0.0), QUIET)
    rows = rows_of(tmp_path / "run")
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.parametrize("method", ["ce", "gap", "pcke", "pcle"])
def test_each_method_learns_the_prepared_set(tmp_path, ucla_set, method):
    changes = {"epochs": 8, "repeat": 6, "lr": 0.1, "dropout": 0.0, "interaction_lr": 0.05}
    fit(published(tmp_path / "run", ucla_set, method=method, **changes), QUIET)
    result = checkpoint.read_json(tmp_path / "run" / "result.json")
    assert result["test"]["accuracy"] > 0.5, "ten classes"
    rows = rows_of(tmp_path / "run")
    assert rows[-1]["loss"] < rows[0]["loss"] and rows[-1]["train_accuracy"] > 0.5


def test_the_best_weights_are_chosen_by_validation_and_the_test_clips_are_not_looked_at(
    tmp_path, monkeypatch, ucla_set
):
    seen, whole = [], PreparedBatches.inputs
    monkeypatch.setattr(PreparedBatches, "inputs", lambda self, n: seen.append((self, n)) or whole(self, n))
    config = published(tmp_path / "run", ucla_set, epochs=3, validation=0.3)
    fit(config, QUIET)
    batches = seen[0][0]
    assert len(batches.validation) == 12 and len(batches.train) == 28 and len(batches.test) == 20
    assert not {*batches.validation} & {*batches.train, *batches.test} and not {*batches.train} & {*batches.test}
    assert [n is batches.validation for _, n in seen] == [True, True, True, False]
    assert seen[-1][1] is batches.test
    rows = rows_of(config.out)
    assert all("accuracy/validation" in row and "accuracy/test" not in row for row in rows)
    best = checkpoint.read_json(config.out / "best.json")
    scores = [row["accuracy/validation"] for row in rows]
    assert best == {"epoch": scores.index(max(scores)) + 1, "accuracy": max(scores), "chosen_by": "validation"}
    assert checkpoint.read_json(config.out / "result.json")["best"] == best
    _, content = checkpoint.load(config.out / "best.safetensors")
    assert content["epochs_done"] == best["epoch"]


def test_weights_chosen_by_the_test_clips_are_said_to_be_and_none_are_chosen_by_nothing(tmp_path, ucla_set):
    fit(published(tmp_path / "test", ucla_set, method="ce", best_on="test"), QUIET)
    assert checkpoint.read_json(tmp_path / "test" / "best.json")["chosen_by"] == "test"
    assert "accuracy/test" in rows_of(tmp_path / "test")[0]
    for name, changes in (("none", {"best_on": "none", "validation": 0.2}), ("no clips", {})):
        fit(published(tmp_path / name, ucla_set, method="ce", **changes), QUIET)
        assert not (tmp_path / name / "best.json").exists()
        assert not [key for row in rows_of(tmp_path / name) for key in row if key.startswith("accuracy/")]


def test_the_views_of_one_performance_are_set_aside_together():
    names = np.array([f"a{a:02d}_s{s:02d}_e00_v{v:02d}" for a in range(5) for s in range(4) for v in (1, 2)])
    kept = _set_aside(names, 0.25)
    assert kept.sum() == 10
    assert {name[:-4] for name in names[kept]}.isdisjoint({name[:-4] for name in names[~kept]})
    ntu = np.array([f"S001C{c:03d}P{p:03d}R001A007" for p in range(10) for c in (1, 2, 3)])
    assert (_set_aside(ntu, 0.3).reshape(10, 3).sum(axis=1) % 3 == 0).all()
    assert not _set_aside(names, 0.0).any()


def test_a_resumed_run_refuses_other_settings(tmp_path, ucla_set):
    config = published(tmp_path / "run", ucla_set, method="ce")
    fit(config, QUIET)
    for changes, said in (({"lr": 0.3}, "--lr cannot change"), ({"method": "pcle"}, "--method cannot change")):
        with pytest.raises(UsageError, match=said):
            _settings(Config(out=config.out, resume=True, **changes))
    assert _settings(Config(out=config.out, resume=True, batch=16, threads=2)).threads == 2


def test_batches_of_two_ranks_are_the_halves_of_one(ucla_set, tmp_path):
    batches = PreparedBatches(published(tmp_path, ucla_set, repeat=2), CPU, QUIET)
    whole, *halves = (list(batches.epoch(1, ranks)) for ranks in (Ranks(), Ranks(0, 2), Ranks(1, 2)))
    assert len(whole) == batches.steps == 5
    for (x, target), (x0, t0), (x1, t1) in zip(whole, *halves, strict=True):
        assert torch.equal(x, torch.cat([x0, x1])) and torch.equal(target, torch.cat([t0, t1]))
    assert not torch.equal(whole[0][0], next(iter(batches.epoch(2, Ranks())))[0])


def test_an_epoch_shows_each_clip_as_often_as_it_is_repeated(ucla_set, tmp_path):
    batches = PreparedBatches(published(tmp_path, ucla_set, repeat=2), CPU, QUIET)
    counts = sum(target.sum(dim=0) for _, target in batches.epoch(0, Ranks()))
    assert counts.tolist() == [8.0] * len(CLASSES)
    few = PreparedBatches(published(tmp_path, ucla_set, batch=100), CPU, QUIET)
    assert [len(x) for x, _ in few.epoch(0, Ranks())] == [100]


@pytest.mark.parametrize(
    ("changes", "broken", "said"),
    [
        ({}, 0, "at epoch 1, batch [12] of 2"),
        ({"lr": 1e38, "interaction_lr": 1e38, "warm_up": 0}, None, "at epoch 1, batch [12] of 2"),
        ({"lr": 1e38, "interaction_lr": 1e38, "warm_up": 0, "method": "ce"}, None, "at epoch 1, batch [12] of 2"),
    ],
)
def test_numbers_that_explode_end_the_run_with_epoch_and_batch(tmp_path, changes, broken, said):
    folder = prepared_set(tmp_path / "set", broken=broken)
    with pytest.raises(LineError, match=said) as raised:
        fit(published(tmp_path / "run", folder, **changes), QUIET)
    assert raised.value.exit_code == 1 and "lower --lr" in str(raised.value)
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(tmp_path, monkeypatch, capsys, ucla_set):
    config = published(tmp_path / "run", ucla_set, epochs=3)
    stop_at(1, monkeypatch)
    monkeypatch.setattr("sys.argv", ["fit", *map(str, flags(config))])
    assert main() == 130
    assert "--resume" in capsys.readouterr().err
    assert checkpoint.load(config.out / "last.safetensors")[1]["epochs_done"] == 1


def test_the_rate_warms_up_then_falls_along_a_cosine_or_by_tenths(tmp_path):
    config = tiny(tmp_path, epochs=10, warm_up=2)
    found = [rate(config, step, 100) for step in range(100)]
    np.testing.assert_allclose(found[:20], np.arange(1, 21) / 20)
    np.testing.assert_allclose(found[20:], 0.5 * (1 + np.cos(np.pi * np.arange(80) / 80)))
    steps = [rate(tiny(tmp_path, epochs=110, warm_up=5, schedule="step"), step, 1100) for step in range(1100)]
    assert steps[0] == 1 / 50 and set(steps[49:900]) == {1}
    assert steps[900:] == pytest.approx([0.1] * 100 + [0.01] * 100)


def test_groups_keep_their_own_rates(tmp_path, ucla_set):
    config = published(tmp_path, ucla_set, lr=0.1, interaction_lr=0.02, context_lr=0.004, tune_text=1)
    trainer = Trainer(config, PreparedBatches(config, CPU, QUIET), CPU, Ranks())
    peaks = {}
    for group in trainer.optimiser.param_groups:
        for parameter in group["params"]:
            peaks[parameter] = (group["peak"], group["weight_decay"])
    for name, parameter in trainer.method.named_parameters():
        if not parameter.requires_grad:
            assert parameter not in peaks and name.startswith("texts.encoder.")
            continue
        peak = 0.004 if name.startswith("texts.") else 0.02
        peak = 0.1 if name.startswith(("recogniser.backbone.", "recogniser.head.")) else peak
        decay = 0.0 if parameter.ndim < 2 or name.startswith("texts.") else config.weight_decay
        assert peaks[parameter] == (peak, decay), name
    next(trainer.epoch(1))  # after the warm-up: half-way down the cosine
    shares = {group["lr"] / group["peak"] for group in trainer.optimiser.param_groups}
    assert len(shares) == 1 or max(shares) - min(shares) < 1e-12


def test_the_average_forgets_its_first_steps_and_takes_whole_numbers_as_they_are():
    average, mean, count = averaging(600), torch.zeros(1), torch.zeros(1, dtype=torch.long)
    for n in range(1, 600):
        average([mean, count], [torch.ones(1), torch.tensor([n])], n)
    assert count.item() == 599 and mean.item() == pytest.approx(1, abs=0.02)
    short = torch.zeros(1)
    averaging(3)([short], [torch.ones(1)], 1)
    assert short.item() == 1  # a run of a few steps has nothing to average


def test_without_averaging_the_weights_themselves_are_kept(tmp_path, ucla_set):
    fit(published(tmp_path / "run", ucla_set, average=False), QUIET)
    tensors = load_file(tmp_path / "run" / "last.safetensors")
    names = [name[8:] for name in tensors if name.startswith("network.")]
    assert names
    for name in names:
        assert torch.equal(tensors[f"network.{name}"], tensors[f"average.{name}"]), name
