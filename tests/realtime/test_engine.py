"""The engine scores people in one batch, proves itself on the reference, and lets nothing non-finite pass."""

from __future__ import annotations

import io

import numpy as np
import pytest

from realtime.backends import open_engine
from realtime.bundle import load_bundle, write_bundle
from realtime.engine import OrtEngine
from realtime.errors import BundleError, GpuError, UsageError
from realtime.features import features
from realtime.schema import Window
from realtime.scoring import softmax, verify

onnx = pytest.importorskip("onnx", reason="the tiny graphs are made with the onnx package, which is not installed")
C, T, V, K, D = 9, 16, 16, 3, 4


def weights(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(C * T, K)).astype(np.float32), rng.normal(size=(C * T, D)).astype(np.float32)


def graph(head: np.ndarray, width: np.ndarray, batch="N", names=("skeleton", "logits", "embedding"), gain=1.0) -> bytes:
    """skeleton (N, C, T, V) -> mean over V -> two linear heads; the embedding is brought to length 1."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("ReduceMean", [names[0]], ["mean"], axes=[3], keepdims=0),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["heads"]),
        helper.make_node("Mul", ["heads", "gain"], [names[1]]),
        helper.make_node("MatMul", ["flat", "width"], ["wide"]),
        helper.make_node("LpNormalization", ["wide"], [names[2]], axis=1, p=2),
    ]
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(names[0], kind, [batch, C, T, V])],
        [
            helper.make_tensor_value_info(names[1], kind, [batch, head.shape[1]]),
            helper.make_tensor_value_info(names[2], kind, [batch, D]),
        ],
        [onnx.numpy_helper.from_array(array, name) for array, name in ((head, "head"), (width, "width"))]
        + [onnx.numpy_helper.from_array(np.float32(gain), "gain")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def trained(skeleton: np.ndarray, head: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the graph must give, in NumPy."""
    flat = skeleton.mean(axis=3).reshape(len(skeleton), -1)
    wide = flat @ width
    return flat @ head, wide / np.linalg.norm(wide, axis=1, keepdims=True)


def walker(track: int = 1) -> Window:
    rng = np.random.default_rng(track)
    joints = rng.normal(size=(T, V, 3)).astype(np.float32)
    return Window(10 + track, 1_000 + track, track, 500 + track, joints, np.ones((T, V), np.float32), T)


@pytest.fixture
def make(tmp_path, bundle_spec):
    """Builds and loads a bundle around a model; the reference is always that of weights()."""

    def build(model: bytes | None = None, **spec):
        skeleton = features(
            np.stack([walker(9).joints, walker(8).joints]), np.ones((2, T, V)), ("joint", "bone", "motion")
        )
        logits, embedding = trained(skeleton, *weights())
        stream = io.BytesIO()
        np.savez(stream, skeleton=skeleton, logits=logits, embedding=embedding)
        files = {"model.onnx": model or graph(*weights()), "reference.npz": stream.getvalue(), "MODEL_CARD.md": b"#"}
        return load_bundle(write_bundle(tmp_path / "tiny", {**bundle_spec, **spec}, files, replace=True))

    return build


def refusal(action) -> str:
    with pytest.raises(BundleError) as caught:
        action()
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    return str(caught.value)


def test_scores_are_the_trained_models_and_carry_the_windows_times(make):
    engine, window = open_engine(make()), walker(3)
    (scores,) = engine.score([window])
    skeleton = features(window.joints[None], window.confidence[None], ("joint", "bone", "motion"))
    logits, embedding = trained(skeleton, *weights())
    np.testing.assert_allclose(scores.logits, logits[0], atol=1e-5)
    np.testing.assert_allclose(scores.embedding, embedding[0], atol=1e-5)
    np.testing.assert_allclose(scores.probabilities, softmax(logits[0], 2.0), atol=1e-6)
    assert (scores.index, scores.captured_ns, scores.track, scores.start_ns) == (13, 1_003, 3, 503)


def test_people_in_one_batch_score_as_they_do_alone(make):
    engine = open_engine(make())
    windows = [walker(track) for track in range(5)]
    for together, window in zip(engine.score(windows), windows, strict=True):
        (alone,) = engine.score([window])
        assert together.track == alone.track
        np.testing.assert_allclose(together.logits, alone.logits, atol=1e-5)


def test_nobody_scores_nothing(make):
    assert open_engine(make()).score([]) == []


def test_the_backend_names_itself(make):
    assert open_engine(make()).backend.startswith("onnxruntime-") and open_engine(make()).backend.endswith("/cpu")


def test_probabilities_sum_to_one_and_temperature_flattens_them():
    logits = np.array([[1e4, -1e4, 0], [1, 2, 3]], np.float32)
    np.testing.assert_allclose(softmax(logits).sum(axis=1), 1, atol=1e-6)
    assert softmax(logits, 4.0)[1].max() < softmax(logits)[1].max()


def test_the_proof_holds_for_the_trained_weights_and_fails_for_others(make):
    assert verify(OrtEngine(make()), make()) < 1e-5
    other = make(graph(*weights(seed=1)))
    assert "logits differs from reference.npz" in refusal(lambda: open_engine(other))


def test_a_small_change_of_the_weights_fails_the_proof(make):
    head, width = weights()
    head[0, 0] += 1.0
    assert "reference.npz" in refusal(lambda: open_engine(make(graph(head, width))))


def test_a_truncated_model_and_a_model_of_garbage_are_refused(make):
    whole = graph(*weights())
    for model in (whole[: len(whole) // 2], whole[:100], b"not a model at all", b"\x00" * 1000):
        assert "model.onnx" in refusal(lambda model=model: open_engine(make(model)))


def test_a_graph_that_is_not_as_promised_is_refused_by_name(make):
    head, width = weights()
    assert "inputs skeleton, has poses" in refusal(
        lambda: OrtEngine(make(graph(head, width, names=("poses", "logits", "embedding"))))
    )
    assert "outputs logits, embedding, has scores" in refusal(
        lambda: OrtEngine(make(graph(head, width, names=("skeleton", "scores", "embedding"))))
    )
    assert "logits (N, 3)" in refusal(lambda: OrtEngine(make(graph(head[:, :2], width))))
    assert "skeleton (N, 9, 16, 16)" in refusal(lambda: OrtEngine(make(graph(head, width, batch=2))))


def test_the_bytes_that_run_are_the_bytes_that_were_hashed(make):
    bundle = make()
    (bundle.path / "model.onnx").write_bytes(graph(*weights(seed=1)))
    assert "sha256" in refusal(lambda: open_engine(bundle))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_non_finite_window_is_refused_by_its_track(make, value):
    engine, window = open_engine(make()), walker(4)
    window.joints[3, 2, 1] = value
    with pytest.raises(ValueError, match="track 4"):
        engine.score([walker(1), window])


def test_a_non_finite_input_is_refused(make):
    with pytest.raises(ValueError, match="not finite"):
        open_engine(make()).infer(np.full((1, C, T, V), np.nan, np.float32))


@pytest.mark.parametrize("shape", [(1, C, T, V - 1), (C, T, V)])
def test_an_input_of_another_shape_is_refused(make, shape):
    with pytest.raises(ValueError, match="the model needs float32"):
        open_engine(make()).infer(np.zeros(shape, np.float32))


def test_a_model_that_gives_infinities_is_refused(make):
    engine = OrtEngine(make(graph(*weights(), gain=np.inf)))
    assert "logits that are not finite" in refusal(lambda: engine.score([walker()]))


def test_backends_that_are_not_there_are_refused_with_what_is(make):
    bundle = make()
    with pytest.raises(GpuError, match="has no CUDA provider: pip uninstall onnxruntime, then pip install") as caught:
        OrtEngine(bundle, provider="cuda")
    assert caught.value.exit_code == 6
    with pytest.raises(UsageError, match="ort-cuda, ort, got 'cuda'"):
        open_engine(bundle, "cuda")
    with pytest.raises(UsageError, match="at least 1, got 0"):
        open_engine(bundle, threads=0)
