"""What the line does with a site's thresholds: they lie over the bundle they were measured with, and over no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realtime.backends import open_engine
from realtime.bundle import Bundle, default_bundle, load_bundle
from realtime.calibration import load_calibration
from realtime.errors import BundleError, UsageError
from realtime.pose import PassThrough
from realtime.rejection import KINDS, Rejecting, Rejection, measure, prototypes_of, rejected
from realtime.run import make_pipeline
from realtime.schema import Scores, Window
from realtime.scoring import softmax
from realtime.thresholds import Thresholds, site_bundle, site_engine
from tests.realtime.hands import ended, frames, read_events, start, write_hands, write_recording

FILE = "thresholds.json"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    pytest.importorskip("onnx", reason="the tiny model is made with the onnx package, which is not installed")
    return load_bundle(write_hands(tmp_path_factory.mktemp("thresholds") / "hands"))


def document(of: Bundle, **changes: Any) -> dict[str, Any]:
    """What calib.thresholds writes."""
    return {
        "schema": "calib-thresholds/1",
        "bundle": of.name,
        "model_sha256": of.files["model.onnx"][0],
        "temperature": 0.8,
        "actions": {action.id: {"on": 0.9, "off": 0.5, "far_per_h": 1.5} for action in of.actions},
        "rejection": None,
        "measured": {"hours": 0.5},
        **changes,
    }


@pytest.fixture
def given(bundle: Bundle, tmp_path: Path) -> Callable[..., Thresholds]:
    """Thresholds as the line reads them from a file with these changes."""

    def read(**changes: Any) -> Thresholds:
        (tmp_path / FILE).write_text(json.dumps(document(bundle, **changes)))
        found = load_calibration(tmp_path).thresholds
        assert found is not None
        return found

    return read


def test_thresholds_lie_over_the_bundle(bundle: Bundle, given: Callable[..., Thresholds]) -> None:
    here = given().applied(bundle)
    assert here.temperature == 0.8
    assert {(action.on, action.off) for action in here.actions} == {(0.9, 0.5)}
    kept = [(action.id, action.name, action.min_on_s, action.min_off_s) for action in here.actions]
    assert kept == [(action.id, action.name, action.min_on_s, action.min_off_s) for action in bundle.actions]
    assert replace(here, temperature=bundle.temperature, actions=bundle.actions) == bundle


def test_without_thresholds_nothing_is_touched(bundle: Bundle) -> None:
    engine = object()
    assert site_bundle(bundle, None) is bundle
    assert site_engine(engine, bundle, None) is engine  # type: ignore[arg-type, comparison-overlap]


def test_without_a_rejection_the_engine_stays_bare(bundle: Bundle, given: Callable[..., Thresholds]) -> None:
    engine = object()
    assert site_engine(engine, bundle, given()) is engine  # type: ignore[arg-type, comparison-overlap]


def test_another_model_is_refused_by_name(bundle: Bundle, given: Callable[..., Thresholds]) -> None:
    with pytest.raises(UsageError, match=r"measured with the bundle shelf .*abababababab.* not with hands"):
        given(bundle="shelf", model_sha256="ab" * 32).applied(bundle)


def test_actions_that_do_not_fit_are_refused_by_name(bundle: Bundle, given: Callable[..., Thresholds]) -> None:
    one = {"on": 0.9, "off": 0.5, "far_per_h": None}
    with pytest.raises(UsageError, match=r"lacks actions \['right_up'\]"):
        given(actions={"left_up": one}).applied(bundle)
    with pytest.raises(UsageError, match=r"has unknown actions \['cartwheel'\]"):
        given(actions={"left_up": one, "right_up": one, "cartwheel": one}).applied(bundle)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_sha256": "short"}, "64 hexadecimal digits"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"actions": {}}, "one entry an action"),
        ({"actions": {"left_up": {"on": 0.5, "off": 0.6, "far_per_h": None}}}, "at most on"),
        ({"actions": {"left_up": {"on": 0.5, "off": 0.0, "far_per_h": None}}}, "above 0"),
        ({"actions": {"left_up": {"on": 1.5, "off": 0.6, "far_per_h": None}}}, "number in"),
        ({"actions": {"left_up": {"on": 0.7, "off": 0.6, "far_per_h": -1}}}, "far_per_h"),
        ({"actions": {"left_up": {"on": 0.7, "off": 0.6}}}, "lacks the key"),
        ({"rejection": {"kind": "guess", "level": 0}}, "one of softmax"),
        ({"rejection": {"kind": "energy", "level": None}}, "level"),
        ({"measured": 3}, "an object"),
        ({"surprise": 3}, "surprise"),
    ],
)
def test_a_broken_file_is_one_line(given: Callable[..., Thresholds], changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        given(**changes)
    assert FILE in str(caught.value)
    assert "\n" not in str(caught.value)


def test_events_carry_what_was_measured(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps(document(bundle)))
    source = write_recording(tmp_path / "hand.mcap", frames())
    plain, told = tmp_path / "plain.jsonl", tmp_path / "told.jsonl"
    always = ("--source", source, "--fast", "--pub", "none", "--bundle", bundle.path, "--quiet")
    for events, flags in ((plain, ()), (told, ("--calib", tmp_path / FILE))):
        assert ended(start(*always, "--events", events, *flags))[0] == 0
    before, after = read_events(plain), read_events(told)
    assert before
    assert all(not one.score.calibrated and one.score.far_per_h is None for one in before)
    assert after
    assert all(one.score.calibrated and one.score.far_per_h == 1.5 and one.score.on == 0.9 for one in after)


def answers(*logits: list[float]) -> list[Scores]:
    return [
        Scores(k, k, 1, 0, np.float32(row), softmax(np.float32(row)), np.float32([1, 0]))
        for k, row in enumerate(logits)
    ]


def test_what_looks_like_no_known_action_becomes_nothing() -> None:
    sure, faint = answers([0, 6, 0], [0, 0.5, 0])
    kept, turned = rejected([sure, faint], Rejection("energy", 3.0), nothing=0)
    assert kept is sure
    assert turned.probabilities.tolist() == [1, 0, 0]
    assert turned.logits is faint.logits
    assert turned.captured_ns == faint.captured_ns


def test_measures_are_what_their_names_say() -> None:
    logits = np.array([[1.0, 3.0, 2.0], [5.0, 0.0, -1.0]])
    embedding = np.array([[1.0, 0.0], [0.6, 0.8]])
    share = softmax(logits)

    def of(kind: str) -> list[float]:
        return measure(kind, logits, embedding, 0, np.array([[0.0, 1.0], [1.0, 0.0]])).tolist()

    assert of("softmax") == pytest.approx(share[:, 1:].max(axis=1), rel=1e-5)
    assert of("logit") == pytest.approx([3.0, 0.0])
    assert of("margin") == pytest.approx([1.0, -5.0])
    assert of("energy") == pytest.approx(np.log(np.exp(logits[:, 1:]).sum(axis=1)))
    assert of("odds") == pytest.approx(np.log(share[:, 1:].sum(axis=1) / share[:, 0]), rel=1e-4)
    assert of("prototype") == pytest.approx([1.0, 0.8])
    with pytest.raises(ValueError, match="a measure is one of"):
        measure("guess", logits, embedding, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_measure_runs_on_the_shipped_bundle(kind: str) -> None:
    shipped = load_bundle(default_bundle())
    engine = open_engine(shipped, "ort", precision="fp32")
    windows = [
        Window(
            0, 10**9, 1, 0, np.random.default_rng(0).normal(size=(64, 16, 3)).astype(np.float32), np.ones((64, 16)), 64
        )
    ]
    before = engine.score(windows)[0]
    for level, changed in ((-1e6, False), (1e6, True)):
        after = Rejecting(engine, shipped, Rejection(kind, level)).score(windows)[0]
        wanted = np.eye(len(shipped.classes))[0] if changed else before.probabilities
        assert np.array_equal(after.probabilities, wanted)
    assert Rejecting(engine, shipped, Rejection(kind, 0.0)).score([]) == []
    engine.close()


def test_a_bundle_without_texts_has_no_prototypes(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no class texts"):
        prototypes_of(bundle)


def test_rejected_windows_start_nothing(bundle: Bundle, given: Callable[..., Thresholds]) -> None:
    def starts(rejection: dict[str, Any] | None) -> int:
        thresholds, engine = given(rejection=rejection), open_engine(bundle)
        here = thresholds.applied(bundle)
        line = make_pipeline(PassThrough(), here, thresholds.rejecting(engine, here), 1)
        return sum(event.phase == "start" for frame in frames() for event in line.step(frame).events)

    assert starts(None) == 1
    assert starts({"kind": "energy", "level": -100.0}) == 1
    assert starts({"kind": "energy", "level": 100.0}) == 0
