import numpy as np
import pytest

from export.bundle import Config, load_runs, main, make_bundle
from realtime.backends import open_engine
from realtime.bundle import load_bundle, load_reference
from realtime.errors import BundleError, UsageError
from train.fit import fit
from train.settings import Config as FitConfig
from train.vocabulary import CLASSES


def test_a_run_becomes_a_bundle_that_the_runtime_proves(tmp_path):
    for seed in (0, 1):
        fit(
            FitConfig(out=tmp_path / f"run{seed}", synthetic=1, epochs=1, draws=32, batch=16, widths=(8, 8), groups=2,
                      seed=seed, threads=1), quiet()
        )  # fmt: skip
    folder = make_bundle(Config(runs=(tmp_path / "run0", tmp_path / "run1"), out=tmp_path / "bundle", name="pair"))
    bundle = load_bundle(folder)
    assert bundle.classes == CLASSES and bundle.training["networks"] == 2
    reference = load_reference(bundle)
    logits, _ = open_engine(bundle).infer(reference.skeleton)
    np.testing.assert_allclose(logits, reference.logits, atol=1e-4)
    with pytest.raises(UsageError, match="exists"):
        make_bundle(Config(runs=(tmp_path / "run0",), out=tmp_path / "bundle"))


def test_runs_of_different_input_are_not_averaged(tmp_path):
    for name, streams in (("a", ("joint",)), ("b", ("joint", "bone"))):
        fit(
            FitConfig(out=tmp_path / name, synthetic=1, epochs=1, draws=16, batch=16, widths=(8, 8), groups=2,
                      streams=streams, threads=1), quiet()
        )  # fmt: skip
    with pytest.raises(BundleError, match="channels"):
        load_runs((tmp_path / "a", tmp_path / "b"))


def quiet():
    from rich.console import Console

    return Console(quiet=True)


def test_no_runs_and_no_card_are_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bundle", "--out", str(tmp_path / "bundle")])
    assert main() == 2
    assert "no run was named" in capsys.readouterr().err
    with pytest.raises(UsageError, match="card"):
        make_bundle(Config(runs=(tmp_path,), out=tmp_path / "bundle", card=tmp_path / "card.md"))
