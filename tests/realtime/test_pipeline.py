"""One straight step per frame: what goes in comes out as poses, windows, scores and events, and ends when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from realtime.backends import open_engine
from realtime.bundle import Bundle, load_bundle
from realtime.decoder import ActionRule, Decoder
from realtime.interactions import Interactions
from realtime.pairs import PairWindows
from realtime.pipeline import STAGES, Pipeline, Step
from realtime.pose import PassThrough
from realtime.run import make_decoder, make_pipeline
from realtime.schema import SECOND_NS, Event, Frame, Scores, Window
from realtime.skeleton import CORE_16
from realtime.window import WindowBuffer
from tests.realtime.hands import CLASSES, ONE_HAND, T, frames, write_hands


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    pytest.importorskip("onnx", reason="the tiny model is made with the onnx package, which is not installed")
    return load_bundle(write_hands(tmp_path_factory.mktemp("pipeline") / "hands"))


@pytest.fixture
def pipeline(bundle: Bundle) -> Pipeline:
    return make_pipeline(PassThrough(), bundle, open_engine(bundle), persons=4)


class Recited:
    """An engine that gives the same probabilities to every window and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def score(self, windows: Sequence[Window]) -> list[Scores]:
        self.batches.append([window.track for window in windows])
        sure = np.float32([0.05, 0.05, 0.9])
        return [Scores(w.index, w.captured_ns, w.track, w.start_ns, sure, sure) for w in windows]


class Closing(PassThrough):
    """Counts how often it was closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


def recited(engine: Recited, pose: PassThrough | None = None) -> Pipeline:
    rules = [ActionRule(name, 0.6, 0.4, 0.2, 0.2) for name in CLASSES[1:]]
    windows = WindowBuffer(CORE_16, T, 20.0, 4)
    return Pipeline(pose or PassThrough(), windows, engine, Decoder(CLASSES, "nothing", rules, 0.2))


def steps(pipeline: Pipeline, given: Sequence[Frame]) -> list[Step]:
    return [pipeline.step(frame) for frame in given]


def events(taken: Sequence[Step]) -> list[Event]:
    return [event for step in taken for event in step.events]


def together(*given: Sequence[Frame]) -> list[Frame]:
    """Several people in the same frames."""
    return [replace(row[0], poses=sum((frame.poses or () for frame in row), ())) for row in zip(*given, strict=True)]


def test_a_raised_hand_becomes_one_start_and_one_end(pipeline):
    told = events(steps(pipeline, frames()))
    assert [(event.phase, event.action) for event in told if event.phase != "update"] == [
        ("start", "right_up"),
        ("end", "right_up"),
    ]
    start, end = told[0], told[-1]
    assert start.id == end.id and end.end_reason == "score"
    assert 1.9 < start.onset_ns / SECOND_NS < start.decided_ns / SECOND_NS < 3.2
    assert 3.6 < end.offset_ns / SECOND_NS < end.decided_ns / SECOND_NS < 5.0


def test_a_hand_that_is_not_raised_is_nothing(pipeline):
    assert events(steps(pipeline, frames([(None, 5.0)]))) == []
    assert pipeline.open_events == ()


@pytest.mark.parametrize("fps", [10, 15, 30, 60])
def test_the_frame_rate_does_not_change_what_is_told(bundle, fps):
    pipeline = make_pipeline(PassThrough(), bundle, open_engine(bundle), persons=1)
    script = [(None, 2.0), ("left", 2.0), (None, 1.5), ("right", 2.0), (None, 2.0)]
    told = events(steps(pipeline, frames(script, fps)))
    story = [(event.phase, event.action) for event in told if event.phase != "update"]
    assert story == [(phase, f"{side}_up") for side in ("left", "right") for phase in ("start", "end")]
    onsets = [event.onset_ns / SECOND_NS for event in told if event.phase == "start"]
    np.testing.assert_allclose(onsets, [2.6, 6.1], atol=0.2)


def test_each_person_has_events_of_their_own(pipeline):
    given = together(frames(), frames([(None, 2.0), ("left", 2.0), (None, 2.0)], track=2), frames([(None, 6.0)], 30, 3))
    told = events(steps(pipeline, given))
    assert {(event.track, event.action) for event in told} == {(1, "right_up"), (2, "left_up")}
    assert [event.phase for event in told if event.track == 2].count("end") == 1


def test_people_go_through_the_model_in_one_batch():
    engine = Recited()
    steps(recited(engine), together(frames(), frames(track=2)))
    assert set(map(tuple, engine.batches)) == {(1, 2)}


def test_no_window_means_no_call_of_the_model():
    engine = Recited()
    taken = steps(recited(engine), frames()[:10])
    assert engine.batches == [] and all(step.scores == [] for step in taken)


def test_events_carry_the_time_of_the_frame_that_decided(pipeline):
    for step in steps(pipeline, frames()):
        assert all(event.decided_ns == step.frame.captured_ns for event in step.events)
        assert all(window.captured_ns == step.frame.captured_ns for window in step.windows)
        assert len(step.scores) == len(step.windows)
        assert len(step.stage_ns) == len(STAGES) and min(step.stage_ns) >= 0


def test_a_person_who_leaves_is_lost_and_the_event_ends_once(pipeline):
    given = frames()[:105]  # the hand is up
    steps(pipeline, given)
    assert [event.action for event in pipeline.open_events] == ["right_up"]
    empty = [Frame(200 + i, given[-1].captured_ns + i * SECOND_NS // 10, poses=()) for i in range(1, 12)]
    taken = steps(pipeline, empty)
    assert [(event.phase, event.end_reason) for event in events(taken)] == [("end", "track_lost")]
    assert [step.lost for step in taken if step.lost] == [[1]]
    assert pipeline.close(taken[-1].frame.captured_ns, "source_lost") == []


def test_a_person_who_comes_back_begins_anew(pipeline):
    early, late = frames()[:105], frames(ONE_HAND)
    gap = early[-1].captured_ns + SECOND_NS
    again = [
        Frame(f.index, f.captured_ns + gap, poses=tuple(replace(p, captured_ns=f.captured_ns + gap) for p in f.poses))
        for f in late
    ]
    told = events(steps(pipeline, [*early, *again]))
    assert [event.phase for event in told if event.phase != "update"] == ["start", "end", "start", "end"]
    assert len({event.id for event in told}) == 2


def test_closing_ends_what_is_open_once_and_frees_the_pose_stage():
    pose = Closing()
    pipeline = recited(Recited(), pose)
    taken = steps(pipeline, frames())
    assert events(taken)[0].phase == "start"
    ends = pipeline.close(taken[-1].frame.captured_ns, "shutdown")
    assert [(event.phase, event.end_reason) for event in ends] == [("end", "shutdown")]
    assert pipeline.close(taken[-1].frame.captured_ns, "shutdown") == []
    assert pose.closed == 2 and pipeline.open_events == ()


def test_joints_that_are_no_positions_are_counted_and_nothing_non_finite_passes(pipeline):
    given = frames()
    for frame in given[::3]:
        frame.poses[0].joints[5] = np.nan  # type: ignore[index]
    taken = steps(pipeline, given)
    assert pipeline.refused == len(given[::3])
    assert all(np.isfinite(window.joints).all() for step in taken for window in step.windows)
    assert [event.action for event in events(taken) if event.phase == "start"] == ["right_up"]


def test_the_decoder_has_the_rules_of_the_bundle(bundle: Bundle, tmp_path: Path):
    decoder = make_decoder(bundle)
    assert decoder.classes == bundle.classes == CLASSES
    low = np.float32([0.45, 0.0, 0.55])  # below on
    scores = [Scores(i, i * SECOND_NS // 5, 1, 0, low, low) for i in range(20)]
    assert decoder.decide(scores) == []


def test_an_action_is_switched_off_where_it_is_decided_also_one_of_two_people(bundle):
    of_two = Decoder(("nothing", "hug"), "nothing", [ActionRule("hug", 0.6, 0.4, 0.2, 0.2)], 0.2)
    windows = WindowBuffer(CORE_16, T, 20.0, 4)
    together = Interactions(bundle, PairWindows(windows), Recited(), of_two)
    pipeline = Pipeline(PassThrough(), windows, Recited(), make_decoder(bundle), together)
    alone = bundle.actions[0].id
    assert pipeline.disable("hug", 0) == pipeline.disable(alone, 0) == []
    assert pipeline.disabled == {"hug", alone}
    pipeline.enable("hug")
    assert pipeline.disabled == {alone} and not of_two.disabled
    with pytest.raises(ValueError, match="no action 'juggle'"):
        pipeline.disable("juggle", 0)
