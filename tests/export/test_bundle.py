import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from export.bundle import Config, Mean, Shifted, load_runs, main, make_bundle
from export.graph import to_onnx
from realtime.backends import open_engine
from realtime.bundle import load_bundle, load_reference
from realtime.errors import BundleError, UsageError
from realtime.skeleton import CORE_16
from train.fit import fit
from train.graphnet import GraphNet
from train.model import Recogniser
from train.settings import Config as FitConfig
from train.vocabulary import CLASSES


def network(seed=0, classes=5):
    torch.manual_seed(seed)
    made = Recogniser(GraphNet(CORE_16, 9, 1, widths=(16, 16, 24), groups=4), classes)
    with torch.no_grad():  # batch norms that do something
        made.train()(torch.randn(32, 9, 64, 16))
    return made.eval()


def answers(graph, x):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(["logits", "embedding"], {"skeleton": x})


@pytest.fixture(scope="module")
def graph():
    return to_onnx(network(), (9, 64, 16))


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_the_graph_gives_the_networks_answers_at_any_batch(graph, batch):
    x = np.random.default_rng(batch).normal(size=(batch, 9, 64, 16)).astype(np.float32)
    with torch.inference_mode():
        expected = network()(torch.from_numpy(x))
    for ours, theirs in zip(answers(graph, x), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)


def test_other_weights_are_noticed(graph):
    x = np.random.default_rng(0).normal(size=(3, 9, 64, 16)).astype(np.float32)
    with torch.inference_mode():
        other = network(seed=1)(torch.from_numpy(x))[0].numpy()
    assert np.abs(answers(graph, x)[0] - other).max() > 1e-2


def test_the_graph_is_one_file_with_a_free_batch_only(graph):
    model = onnx.load_from_string(graph)
    (given,) = model.graph.input
    dims = given.type.tensor_type.shape.dim
    assert dims[0].dim_param and [d.dim_value for d in dims[1:]] == [9, 64, 16]
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)


def test_a_mean_of_networks_averages_logits():
    a, b = network(0), network(1)
    x = torch.randn(2, 9, 64, 16)
    with torch.inference_mode():
        logits, embedding = Mean([a, b]).eval()(x)
        torch.testing.assert_close(logits, (a(x)[0] + b(x)[0]) / 2)
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))


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


def test_one_logit_can_be_lowered():
    x = torch.randn(2, 9, 64, 16)
    with torch.inference_mode():
        plain, shifted = network()(x)[0], Shifted(network(), 2, 5, 1.5).eval()(x)[0]
    torch.testing.assert_close(plain - shifted, torch.tensor([0.0, 0.0, 1.5, 0.0, 0.0]).expand(2, 5))


def test_no_runs_and_no_card_are_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bundle", "--out", str(tmp_path / "bundle")])
    assert main() == 2
    assert "no run was named" in capsys.readouterr().err
    with pytest.raises(UsageError, match="card"):
        make_bundle(Config(runs=(tmp_path,), out=tmp_path / "bundle", card=tmp_path / "card.md"))
