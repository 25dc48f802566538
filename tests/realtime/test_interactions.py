"""What two people do together: one event a pair and action, beside the events of single people."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from realtime.backends import open_engine
from realtime.bundle import Bundle, default_bundle, load_bundle, shipped_interactions, write_bundle
from realtime.bundles import load_bundles
from realtime.clock import Clock
from realtime.decoder import ActionRule, Decoder
from realtime.errors import BundleError
from realtime.features import NORMALISATION, PAIR_NORMALISATION, PAIR_STREAMS, channels
from realtime.feed import SourceInfo
from realtime.interactions import SILENT_NS, Interactions, check_pair_bundle, shares
from realtime.messages import Action, MessageError, Model, Source
from realtime.pairs import PairWindows
from realtime.pipeline import Pipeline, Step
from realtime.pose import PassThrough
from realtime.report import Outputs, Reporter
from realtime.run import make_pipeline
from realtime.schema import SECOND_NS, Event, Frame, Pose, Scores, Window
from realtime.settings import RecognitionFlags
from realtime.skeleton import CORE_16
from realtime.window import WindowBuffer
from realtime.wire import action_event, track_of
from tests.realtime.hands import figure, read_events

CLASSES = ("nothing", "hug", "kick")
RULES = [ActionRule(name, 0.6, 0.4, 0.2, 0.2) for name in CLASSES[1:]]
STREAMS = ("joint", "bone", "motion", *PAIR_STREAMS)


def pair_spec(**changes: object) -> dict:
    rule = {"on": 0.6, "off": 0.4, "min_on_s": 0.2, "min_off_s": 0.2}
    spec = {
        "name": "pairs", "layout": "CORE_16", "joints": list(CORE_16.joints), "streams": list(STREAMS),
        "channels": channels(STREAMS), "window": 64, "fps": 20.0, "stride": 5, "normalisation": PAIR_NORMALISATION,
        "actions": [{"id": name, "name": name, **rule} for name in CLASSES[1:]], "classes": list(CLASSES),
        "nothing": "nothing", "temperature": 1.0, "smoothing_s": 0.1, "onset_shift_s": 0.0, "offset_shift_s": 0.0,
        "text": None, "training": {}, "directed": ["kick"],
    }  # fmt: skip
    return {**spec, **changes}


def pair_bundle(folder: Path, **changes: object) -> Bundle:
    """A bundle whose model is none."""
    spec, packed = pair_spec(**changes), io.BytesIO()
    shape = (2, spec["channels"], spec["window"], 16)
    np.savez(
        packed, skeleton=np.zeros(shape, np.float32), logits=np.zeros((2, 3), np.float32),
        embedding=np.ones((2, 1), np.float32),
    )  # fmt: skip
    files = {"model.onnx": b"a model", "reference.npz": packed.getvalue(), "MODEL_CARD.md": b"# Pairs\n"}
    return load_bundle(write_bundle(folder, spec, files))


class Recited:
    """An engine that says for each pair, by its actor, what it was told to say."""

    backend, precision = "recited", "fp32"

    def __init__(self, by_actor: dict[int, Sequence[float]], otherwise: Sequence[float] = (1, 0, 0)) -> None:
        self.by_actor, self.otherwise = by_actor, otherwise
        self.seen: list[tuple[int, int | None]] = []

    def score(self, windows: Sequence[Window]) -> list[Scores]:
        self.seen += [(window.track, window.partner) for window in windows]
        told = [np.float32(self.by_actor.get(window.track, self.otherwise)) for window in windows]
        return [
            Scores(w.index, w.captured_ns, w.track, w.start_ns, said, said, None, w.partner)
            for w, said in zip(windows, told, strict=True)
        ]


class Still(Recited):
    """The engine of single people, who do nothing."""

    def __init__(self) -> None:
        super().__init__({})


def pipeline(bundle: Bundle, engine: Recited) -> Pipeline:
    windows = WindowBuffer(CORE_16, 64, 20.0, 5)
    together = Interactions(bundle, PairWindows(windows), engine, Decoder(CLASSES, "nothing", RULES, 0.1))
    return Pipeline(PassThrough(), windows, Still(), Decoder(CLASSES, "nothing", RULES, 0.1), together)


def frames(*spots: Sequence[float | None], fps: float = 20.0) -> list[Frame]:
    """Figures by where they stand (x in metres, frame by frame; None: not there), tracks 1, 2, ..."""
    sure = np.ones(16, np.float32)
    given = []
    for index, row in enumerate(zip(*spots, strict=True)):
        now = round(index * SECOND_NS / fps)
        poses = tuple(
            Pose(index, now, track, CORE_16, figure() + np.float32([x, 0, 0]), sure)
            for track, x in enumerate(row, start=1)
            if x is not None
        )
        given.append(Frame(index, now, poses=poses))
    return given


def events(taken: Sequence[Step]) -> list[Event]:
    return [event for step in taken for event in step.events]


def story(told: Sequence[Event]) -> list[tuple]:
    return [(e.phase, e.action, e.track, e.partner, e.end_reason) for e in told if e.phase != "update"]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return pair_bundle(tmp_path / "pairs")


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return load_bundle(shipped_interactions())


# what either order speaks for


def test_what_both_do_is_the_first_orders_and_what_one_does_is_each_ones_own():
    said = np.float32([[[0.1, 0.8, 0.1], [0.3, 0.4, 0.3]]])
    got = shares(said, CLASSES, "nothing", ("kick",))
    np.testing.assert_allclose(got[0, 0], [0.3, 0.6, 0.1], atol=1e-6)
    np.testing.assert_allclose(got[0, 1], [0.7, 0.0, 0.3], atol=1e-6)


def test_shares_stay_probabilities_whatever_the_two_orders_say():
    rng = np.random.default_rng(0)
    said = rng.dirichlet((0.3, 0.3, 0.3), (200, 2)).astype(np.float32)
    got = shares(said, CLASSES, "nothing", ("kick",))
    assert (got >= 0).all() and np.abs(got.sum(axis=2) - 1).max() < 1e-5
    np.testing.assert_array_equal(shares(said, CLASSES, "nothing", ())[:, 1], np.tile([1, 0, 0], (200, 1)))


# the line


def test_a_hug_is_one_event_of_the_pair(bundle):
    engine = Recited({1: (0.05, 0.9, 0.05), 2: (0.05, 0.9, 0.05)})
    line = pipeline(bundle, engine)
    told = events([line.step(frame) for frame in frames([0.0] * 80, [1.0] * 80)])
    assert story(told) == [("start", "hug", 1, 2, None)]
    ended = line.close(4 * SECOND_NS, "shutdown")
    assert story(ended) == [("end", "hug", 1, 2, "shutdown")]
    assert ended[0].id == told[0].id and set(engine.seen) == {(1, 2), (2, 1)}


def test_a_kick_is_the_kickers_event(bundle):
    line = pipeline(bundle, Recited({2: (0.05, 0.0, 0.95)}))
    told = events([line.step(frame) for frame in frames([0.0] * 80, [1.0] * 80)])
    assert story(told) == [("start", "kick", 2, 1, None)]
    assert [(event.track, event.partner) for event in line.open_events] == [(2, 1)]


def test_pairs_that_share_a_person_have_events_of_their_own(bundle):
    line = pipeline(bundle, Recited({}, otherwise=(0.05, 0.9, 0.05)))
    told = events([line.step(frame) for frame in frames([0.0] * 60, [1.0] * 60, [-1.0] * 60)])
    assert {(e.track, e.partner) for e in told if e.phase == "start"} == {(1, 2), (1, 3), (2, 3)}
    assert len({event.id for event in told}) == 3


def test_when_either_is_lost_the_event_ends_as_track_lost(bundle):
    for gone in (0, 1):
        line = pipeline(bundle, Recited({}, otherwise=(0.05, 0.9, 0.05)))
        spots: list[list[float | None]] = [[0.0] * 100, [1.0] * 100]
        spots[gone][60:] = [None] * 40
        told = story(events([line.step(frame) for frame in frames(*spots)]))
        assert told == [("start", "hug", 1, 2, None), ("end", "hug", 1, 2, "track_lost")]


def test_people_who_part_are_no_pair_any_more_and_the_event_times_out(bundle):
    line = pipeline(bundle, Recited({}, otherwise=(0.05, 0.9, 0.05)))
    apart = [1.0] * 60 + [min(1.0 + 0.1 * step, 6.0) for step in range(140)]
    told = events([line.step(frame) for frame in frames([0.0] * 200, apart)])
    assert story(told)[-1] == ("end", "hug", 1, 2, "timeout")
    last = [event for event in told if event.phase != "end"][-1]
    assert told[-1].decided_ns - last.decided_ns >= SILENT_NS - SECOND_NS


def test_a_break_in_the_frames_ends_the_pairs_events_too(bundle):
    line = pipeline(bundle, Recited({}, otherwise=(0.05, 0.9, 0.05)))
    for frame in frames([0.0] * 60, [1.0] * 60):
        line.step(frame)
    ended, tracks = line.reset(3 * SECOND_NS, "source_lost")
    assert story(ended) == [("end", "hug", 1, 2, "source_lost")] and sorted(tracks) == [1, 2]


def test_the_first_models_answers_are_the_same_with_and_without_pairs(bundle):
    class Counting(Still):
        def score(self, windows: Sequence[Window]) -> list[Scores]:
            assert all(window.joints.ndim == 3 and window.partner is None for window in windows)
            return super().score(windows)

    windows = WindowBuffer(CORE_16, 64, 20.0, 5)
    alone = Pipeline(PassThrough(), windows, Counting(), Decoder(CLASSES, "nothing", RULES, 0.1))
    both = pipeline(bundle, Recited({}))
    for frame in frames([0.0] * 60, [1.0] * 60):
        one, two = alone.step(frame), both.step(frame)
        assert one.pairs == () and len(two.pairs) % 2 == 0
        for first, second in zip(one.windows, two.windows, strict=True):
            np.testing.assert_array_equal(first.joints, second.joints)


# messages


def test_the_message_names_the_partner_and_the_model_of_pairs(bundle, tmp_path):
    engine, file = Recited({1: (0, 1, 0), 2: (0, 1, 0)}), tmp_path / "events.jsonl"
    line = pipeline(bundle, engine)
    reporter = Reporter(
        Outputs(events=file), load_bundle(default_bundle()), "ort", SourceInfo("two", "poses", layout="CORE_16"),
        together=(bundle, engine),
    )  # fmt: skip
    for frame in frames([0.0] * 60, [1.0] * 60):
        reporter.step(line.step(frame))
    reporter.events(line.close(3 * SECOND_NS, "shutdown"))
    reporter.close()
    told = read_events(file)
    assert [event.phase for event in told if event.phase != "update"] == ["start", "end"]
    assert all((event.track.id, event.track.partner) == (1, 2) for event in told)
    assert all(event.model.name == event.action.label_set == "pairs" for event in told)
    assert told[0].time.window.frames == 64 and told[0].model.backend == "recited"


def test_a_message_of_a_pair_with_another_partner_is_refused():
    event = Event("id", "start", 1, "hug", 0.9, 0.9, 0.9, 0.6, 0.4, 0.5, 0, 0, partner=2)
    pose = frames([0.0])[0].poses[0]
    common = {
        "session": "s", "seq": 0, "source": Source(id="two", kind="poses"), "clock": Clock.now(),
        "action": Action(id="hug", name="hugging", label_set="pairs"),
        "model": Model(name="m", sha256="0" * 64, backend="b", window=64, stride=5, precision="fp32"),
    }  # fmt: skip
    assert action_event(event, **common).track.partner == 2
    assert action_event(event, track=track_of(pose, 1.0, 2), **common).track.partner == 2
    with pytest.raises(MessageError, match="track 1"):
        action_event(event, track=track_of(pose, 1.0), **common)


# bundles


def test_a_bundle_of_pairs_must_say_so_and_have_a_pairs_streams(tmp_path):
    assert pair_bundle(tmp_path / "good").of_pairs
    for name, changes, said in (
        ("single", {"normalisation": NORMALISATION}, "streams"),
        ("streams", {"streams": ["joint"], "channels": 3}, "streams"),
        ("directed", {"directed": ["no_class"]}, "directed"),
        ("nothing", {"directed": ["nothing"]}, "directed"),
        ("unknown", {"normalisation": "canonical-crowd/1"}, "normalisation"),
    ):
        with pytest.raises(BundleError, match=said):
            pair_bundle(tmp_path / name, **changes)


def test_bundles_of_one_and_of_two_are_not_taken_for_each_other(bundle):
    one = load_bundle(default_bundle())
    assert not one.of_pairs and one.directed == ()
    check_pair_bundle(bundle, one)
    with pytest.raises(BundleError, match="for one person"):
        check_pair_bundle(one, one)
    with pytest.raises(BundleError, match="--interactions"):
        load_bundles(RecognitionFlags(bundle=bundle.path))
    with pytest.raises(BundleError, match="window of 32"):
        check_pair_bundle(replace(bundle, window=32), one)


def test_the_shipped_bundle_has_a_short_name(shipped):
    _, pairs = load_bundles(RecognitionFlags(interactions=Path("ships")))
    assert pairs is not None and pairs.path == shipped.path and pairs.of_pairs
    assert load_bundles(RecognitionFlags())[1] is None


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_shipped_model_runs_and_two_people_who_stand_still_do_nothing(shipped, precision):
    if precision not in shipped.graphs:
        pytest.skip(f"the shipped bundle of pairs has no {precision} graph")
    main = load_bundle(default_bundle())
    engine, single = open_engine(shipped, "ort", precision=precision), open_engine(main, "ort")
    line = make_pipeline(PassThrough(), main, single, 4, (shipped, engine))
    taken = [line.step(frame) for frame in frames([0.0] * 120, [1.2] * 120)]
    assert sum(len(step.pairs) for step in taken) > 10
    assert not [event for event in events(taken) if event.partner is not None]
