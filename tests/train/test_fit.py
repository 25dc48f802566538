import json

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from realtime.errors import BundleError, UsageError
from realtime.skeleton import CORE_16
from train import checkpoint
from train.backbone import GraphNet, adjacency
from train.fit import Config, Trainer, fit

QUIET = Console(quiet=True)


def tiny(out, **changes):
    settings = {
        "out": out, "synthetic": 1, "epochs": 2, "draws": 32, "batch": 16, "widths": (8, 16), "groups": 2,
        "evaluate_every": 1, "threads": 1, "warm_up": 1,
    }  # fmt: skip
    return Config(**{**settings, **changes})


def test_adjacencies_are_self_parent_and_children():
    own, inward, outward = adjacency(CORE_16)
    np.testing.assert_array_equal(own, np.eye(len(CORE_16)))
    elbow, shoulder = CORE_16.index("left_elbow"), CORE_16.index("left_shoulder")
    assert inward[elbow, shoulder] == 1 and inward[CORE_16.root].sum() == 0
    np.testing.assert_allclose(outward.sum(axis=1), [float(i in CORE_16.parents) for i in range(16)], atol=1)
    assert outward[shoulder, elbow] == 1


def test_the_network_gives_logits_and_a_unit_embedding_and_windows_do_not_mix():
    network = GraphNet(CORE_16, 9, 5, widths=(8, 16), groups=2).eval()
    x = torch.randn(3, 9, 64, 16)
    logits, embedding = network(x)
    assert logits.shape == (3, 5) and embedding.shape == (3, 16)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(network(x[1:2])[0], logits[1:2])


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    fit(tiny(tmp_path / "whole"), QUIET)
    whole = Trainer.epoch

    def interrupted(self, number):
        if number == 1:
            raise KeyboardInterrupt
        return whole(self, number)

    monkeypatch.setattr(Trainer, "epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny(tmp_path / "parts"), QUIET)
    monkeypatch.setattr(Trainer, "epoch", whole)
    fit(Config(out=tmp_path / "parts", resume=True), QUIET)
    expected, resumed = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    assert expected.keys() == resumed.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=0, atol=0, msg=name)
    rows = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]


def test_training_learns(tmp_path):
    fit(tiny(tmp_path / "run", epochs=4, draws=256, lr=0.05, strength=0.0), QUIET)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_a_run_is_not_overwritten_and_nothing_to_train_on_is_said(tmp_path):
    fit(tiny(tmp_path / "run", epochs=1), QUIET)
    with pytest.raises(UsageError, match="--resume"):
        fit(tiny(tmp_path / "run"), QUIET)
    with pytest.raises(UsageError, match="--data"):
        fit(tiny(tmp_path / "empty", synthetic=0), QUIET)
    with pytest.raises(UsageError, match="NAME:PATH"):
        fit(tiny(tmp_path / "other", data=("nowhere",)), QUIET)


def test_a_broken_checkpoint_is_refused_by_name(tmp_path):
    with pytest.raises(BundleError, match="no checkpoint"):
        checkpoint.load(tmp_path / "last.safetensors")
    (tmp_path / "last.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{not a header")
    with pytest.raises(BundleError, match="not a whole checkpoint"):
        checkpoint.load(tmp_path / "last.safetensors")
