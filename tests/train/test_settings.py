import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from realtime.errors import BundleError, GpuError, UsageError
from tests.train.tiny_runs import settings
from train import checkpoint
from train.batches import load_pool
from train.device import pick_device
from train.fit import Config, _settings, fit, main

QUIET = Console(quiet=True)
ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def tiny(out, **changes):
    return settings(out, **changes)


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


UCLA_SUBJECTS = (1, 6, 10)


@pytest.fixture
def ucla(tmp_path):
    """NAME:PATH of a folder in NW-UCLA's form with subjects 1, 6 and 10, one clip each."""
    folder = tmp_path / "ucla"
    folder.mkdir()
    skeletons = np.random.default_rng(0).normal(size=(12, 20, 3)).tolist()
    for subject in UCLA_SUBJECTS:
        name = f"a12_s{subject:02d}_e04_v02"
        (folder / f"{name}.json").write_text(json.dumps({"file_name": name, "skeletons": skeletons, "label": 10}))
    return f"nw_ucla:{folder}"


def command(monkeypatch, *flags):
    """The exit code of `python -m train.fit` with these flags."""
    monkeypatch.setattr("sys.argv", ["fit", *map(str, flags)])
    return main()


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        ("nw_ulca:6", "names a set that --data does not"),
        ("utkinect:6", "names a set that --data does not"),
        ("nw_ucla", "NAME:S1,S2"),
        ("nw_ucla:", "NAME:S1,S2"),
        ("nw_ucla:6,", "NAME:S1,S2"),
        ("nw_ucla:7", "nothing of subject 7; it has 1 6 10"),
        ("nw_ucla:6;10", "nothing of subject 6;10"),
    ],
)
def test_a_slip_in_held_out_subjects_trains_on_nobody(ucla, tmp_path, monkeypatch, capsys, held_out, said):
    assert command(monkeypatch, "--out", tmp_path / "run", "--data", ucla, "--held-out", held_out) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_held_out_subjects_are_compared_as_numbers_and_add_up(ucla, tmp_path):
    config = tiny(tmp_path, synthetic=0, data=(ucla,), held_out=("nw_ucla:06", "nw_ucla: 10"))
    pool, (kept,) = load_pool(config.data, config.held_out, config.fps, QUIET)
    assert len(pool.units) == 1 and [item.subject for item in kept.items] == [6, 10]


def test_a_set_is_read_once(ucla, tmp_path):
    with pytest.raises(UsageError, match="2 times"):
        fit(tiny(tmp_path / "run", data=(ucla, ucla)), QUIET)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"draws": 10, "batch": 64}, "--draws 10 fills no batch of 64"),
        ({"batch": 0}, "--batch must be at least 1"),
        ({"epochs": 0}, "--epochs must be at least 1"),
        ({"evaluate_every": 0}, "--evaluate-every must be at least 1"),
        ({"fps": 0.0}, "--fps must be above 0"),
        ({"widths": (10,)}, "--widths must be multiples"),
        ({"widths": ()}, "--widths must be multiples"),
        ({"streams": ("foo",)}, "--streams"),
        ({"share": ("foo:1",)}, "names no data set"),
        ({"share": ("utkinect:bar",)}, "NAME:WEIGHT"),
        ({"share": ("utkinect",)}, "NAME:WEIGHT"),
        ({"share": ("utkinect:-1",)}, "number from 0 on"),
        ({"share": ("utkinect:nan",)}, "number from 0 on"),
        ({"share": ("synthetic:0",)}, "weight of 0"),
        ({"precision": "fp16"}, "--precision must be one of"),
        ({"device": "tpu"}, "--device must be one of"),
        ({"dropout": 1.5}, r"--dropout must be a share in \[0, 1\)"),
        ({"attention_dropout": 1.0}, "--attention-dropout must be a share"),
        ({"smoothing": float("nan")}, "--smoothing must be a share"),
        ({"validation": 0.5}, "are for --prepared"),
        ({"hardest": 0}, "--hardest must be at least 1"),
        ({"margin": -0.1}, "--margin must be a number from 0 on"),
        ({"lr": float("inf")}, "--lr must be a number from 0 on"),
    ],
)
def test_settings_that_cannot_train_are_refused_by_name(tmp_path, changes, said):
    with pytest.raises(UsageError, match=said):
        fit(tiny(tmp_path / "run", **changes), QUIET)


@pytest.mark.parametrize("flags", [("--draws", 10), ("--streams", "foo"), ("--share", "foo:bar"), ("--precision", "x")])
def test_wrong_flags_end_with_one_line_and_code_2(tmp_path, monkeypatch, capsys, flags):
    try:
        code = command(monkeypatch, "--out", tmp_path / "run", *flags)
    except SystemExit as end:  # what the parser itself refuses
        code = end.code
    assert code == 2 and "Traceback" not in capsys.readouterr().err


def test_a_run_folder_that_cannot_be_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be a folder"):
        fit(tiny(tmp_path / "file"), QUIET)


def test_a_gpu_that_is_demanded_and_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(GpuError, match="--device cpu"):
        fit(tiny(tmp_path / "run", device="cuda"), QUIET)
    assert pick_device("auto").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (pick_device("auto").type, pick_device("cpu").type, pick_device("cuda").type) == ("cuda", "cpu", "cuda")


def test_a_run_says_its_device_and_an_older_one_goes_on_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    fit(tiny(tmp_path / "run", epochs=1), QUIET)
    tensors, content = checkpoint.load(tmp_path / "run" / "last.safetensors")
    assert content["config"].pop("device") == "cpu"
    checkpoint.save(tmp_path / "run" / "last", tensors, content)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert _settings(Config(out=tmp_path / "run", resume=True)).device == "cpu"
    assert _settings(Config(out=tmp_path / "run", resume=True, device="cuda")).device == "cuda"


def test_a_path_is_tried_before_the_work(tmp_path):
    checkpoint.check_writable(None)
    checkpoint.check_writable(tmp_path / "new.json")
    assert not list(tmp_path.iterdir())
    for path in (tmp_path / "no" / "out.json", tmp_path):
        with pytest.raises(UsageError, match="cannot be written"):
            checkpoint.check_writable(path)
        with pytest.raises(UsageError, match="cannot be written"):
            checkpoint.write_json(path, {})
