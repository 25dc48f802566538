"""What the line tells: the same events on the bus and in the file, whole lines only, and every output to its end."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from realtime.backends import open_engine
from realtime.bundle import Bundle, load_bundle
from realtime.clock import Clock
from realtime.errors import AddressError, LineError, UsageError
from realtime.feed import SourceInfo
from realtime.messages import ActionEvent, AnyMessage, Heartbeat, PoseMessage, ScoresMessage, Status
from realtime.meter import Meter, Reading
from realtime.outlet import Outlet, OutletSpec
from realtime.pipeline import Pipeline, Step
from realtime.pose import PassThrough
from realtime.recording import read_recording
from realtime.report import Outputs, Reporter
from realtime.run import make_pipeline
from realtime.schema import SECOND_NS, Frame
from realtime.subscriber import Subscriber
from tests.realtime.hands import check_story, frames, read_events, write_hands

INFO = SourceInfo("figure", "poses", layout="CORE_16")
TWICE = [(None, 1.5), ("right", 1.5), ("left", 1.5), (None, 1.5)]
READING = Reading(30.0, (12.0, 40.0), {"pose": (20.0, 25.0), "bus": (0.1, 0.2)})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    pytest.importorskip("onnx", reason="the tiny model is made with the onnx package, which is not installed")
    return load_bundle(write_hands(tmp_path_factory.mktemp("report") / "hands"))


@pytest.fixture
def pipeline(bundle: Bundle) -> Pipeline:
    return make_pipeline(PassThrough(), bundle, open_engine(bundle), persons=4)


@pytest.fixture
def report(bundle: Bundle) -> Iterator[Callable[..., Reporter]]:
    """Makes reporters, and closes those that a test left open."""
    made: list[Reporter] = []

    def make(info: SourceInfo = INFO, **outputs: object) -> Reporter:
        made.append(Reporter(Outputs(**outputs), bundle, "onnxruntime/cpu", info))
        return made[-1]

    yield make
    for one in made:
        one.close()


@contextmanager
def heard(reporter: Reporter, into: list[AnyMessage]) -> Iterator[None]:
    """Collects what a subscriber receives of this reporter within the block."""
    assert reporter.address is not None
    with Subscriber(reporter.address) as subscriber:
        reporter.wait_for_subscriber(5)
        yield
        while (received := subscriber.receive(0.3)) is not None:
            into.append(received.message)
        assert subscriber.lost == subscriber.refused == 0


@contextmanager
def room(size: int) -> Iterator[None]:
    """A disk that is full when a file has this many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def moved(frame: Frame, by_ns: int) -> Frame:
    at = frame.captured_ns + by_ns
    return replace(frame, captured_ns=at, poses=tuple(replace(pose, captured_ns=at) for pose in frame.poses or ()))


def play(pipeline: Pipeline, reporter: Reporter, given: list[Frame]) -> list[ActionEvent]:
    told = [event for frame in given for event in reporter.step(pipeline.step(frame))]
    return told + reporter.events(pipeline.close(given[-1].captured_ns, "source_lost"))


def test_the_bus_and_the_file_tell_the_same(report, pipeline, tmp_path):
    reporter = report(publish="tcp://127.0.0.1:*", events=tmp_path / "events.jsonl")
    messages: list[AnyMessage] = []
    with heard(reporter, messages):
        told = play(pipeline, reporter, frames(TWICE))
    assert messages == told == read_events(tmp_path / "events.jsonl")
    assert [event.action.id for event in told if event.phase == "start"] == ["right_up", "left_up"]
    assert [event.seq for event in told] == list(range(len(told)))
    assert len({event.session for event in told}) == 1


def test_an_event_says_where_it_comes_from(report, pipeline, bundle):
    told = play(pipeline, report(), frames(TWICE))
    start = told[0]
    assert (start.source.id, start.source.kind) == ("figure", "poses")
    assert (start.model.name, start.model.sha256) == ("hands", bundle.files["model.onnx"][0])
    assert (start.action.name, start.action.label_set) == ("right hand up", "hands")
    assert start.track.id == 1 and 1.5 < start.track.age_s < 3 and start.track.visible_joints == 16
    assert start.time.window is not None and start.time.window.frames == bundle.window
    assert start.latency_ms.model is not None and start.latency_ms.capture_to_publish is None  # a file has no age


def test_latency_from_capture_is_told_of_live_sources(report, pipeline):
    told = play(pipeline, report(replace(INFO, live=True)), frames(TWICE))
    latency = told[0].latency_ms
    assert latency.capture_to_publish is not None and latency.queue is not None
    assert latency.queue < latency.capture_to_publish


def test_windows_are_told_in_media_time(report, pipeline):
    reporter = report()
    given = [moved(frame, 77 * SECOND_NS) for frame in frames(TWICE)]
    told = play(pipeline, reporter, given)
    clock = reporter._clock
    for event in told:
        assert event.time.window is not None
        assert event.time.window.end_s <= round((event.time.decided_mono_ns - given[0].captured_ns) / SECOND_NS, 3)
    assert 1.5 < told[0].time.window.end_s < 2.5
    now = Clock.now()  # where the seconds begin changes nothing in UTC
    assert abs((clock.utc_ns - clock.mono_ns) - (now.utc_ns - now.mono_ns)) < SECOND_NS


def test_a_place_in_the_picture_that_is_not_finite_is_written_as_null(report, pipeline, tmp_path):
    place = np.full((16, 2), 0.5, np.float32)
    place[3], place[5, 0] = np.nan, np.inf
    given = [replace(frame, poses=(replace(frame.poses[0], image_joints=place),)) for frame in frames()[:5]]
    reporter = report(publish="tcp://127.0.0.1:*", record=tmp_path / "kept.mcap", poses=True)
    play(pipeline, reporter, given)
    reporter.close()
    kept = next(read_recording(tmp_path / "kept.mcap")).poses[0].image_joints
    np.testing.assert_array_equal(np.isnan(kept), ~np.isfinite(place))


@pytest.mark.parametrize("taken", ["kept.mcap", "kept.mcap.partial"])
def test_a_recording_never_overwrites_a_file(report, tmp_path, taken):
    (tmp_path / taken).write_bytes(b"precious")
    with pytest.raises(UsageError, match=rf"cannot record to .*kept\.mcap: .*{taken} is there"):
        report(record=tmp_path / "kept.mcap")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(taken, b"precious")]


def test_events_are_added_to_a_file_that_is_there(report, pipeline, bundle, tmp_path):
    path = tmp_path / "events.jsonl"
    play(pipeline, report(events=path), frames(TWICE))
    first = len(read_events(path))
    again = make_pipeline(PassThrough(), bundle, open_engine(bundle), persons=4)
    play(again, report(events=path), frames(TWICE))
    assert len(read_events(path)) == 2 * first


def test_a_recording_gives_back_the_poses(report, pipeline, tmp_path):
    reporter = report(record=tmp_path / "kept.mcap")
    given = frames(TWICE)
    play(pipeline, reporter, given)
    assert not (tmp_path / "kept.mcap").exists()
    reporter.close()
    kept = list(read_recording(tmp_path / "kept.mcap"))
    assert [frame.captured_ns for frame in kept] == [frame.captured_ns for frame in given]
    for before, after in zip(given, kept, strict=True):
        np.testing.assert_array_equal(after.poses[0].joints, before.poses[0].joints)


def test_frames_with_nobody_are_recorded_too(report, pipeline, tmp_path):
    reporter = report(record=tmp_path / "kept.mcap")
    given = [*frames(TWICE)[:5], Frame(5, SECOND_NS, poses=())]
    play(pipeline, reporter, given)
    reporter.close()
    assert [len(frame.poses or ()) for frame in read_recording(tmp_path / "kept.mcap")] == [1] * 5 + [0]


def test_poses_and_scores_are_published_where_asked_for(report, pipeline):
    reporter = report(publish="tcp://127.0.0.1:*", poses=True, scores=True)
    messages: list[AnyMessage] = []
    with heard(reporter, messages):
        taken = [pipeline.step(frame) for frame in frames()[:60]]
        for step in taken:
            reporter.step(step)
    poses = [message for message in messages if isinstance(message, PoseMessage)]
    scores = [message for message in messages if isinstance(message, ScoresMessage)]
    assert [pose.frame for pose in poses] == list(range(60))
    assert len(scores) == sum(len(step.scores) for step in taken) > 0
    assert set(scores[0].probabilities) == {"nothing", "left_up", "right_up"}


def test_a_lost_person_is_told_and_forgotten(report, pipeline):
    reporter = report(publish="tcp://127.0.0.1:*")
    given = frames()[:100]
    empty = [Frame(100 + i, given[-1].captured_ns + i * SECOND_NS // 10, poses=()) for i in range(1, 10)]
    messages: list[AnyMessage] = []
    with heard(reporter, messages):
        play(pipeline, reporter, [*given, *empty])
    resets = [message for message in messages if isinstance(message, Status)]
    assert [(reset.state, reset.track) for reset in resets] == [("window_reset", 1)]
    end = messages[-2]
    assert isinstance(end, ActionEvent) and end.end_reason == "track_lost"
    assert end.track.visible_joints == 16  # what is known of the person is told to the last


def test_people_who_come_and_go_for_ever_take_no_memory(report, pipeline):
    reporter = report()
    pose = frames()[0].poses[0]
    for index in range(500):
        at = index * SECOND_NS // 30
        crowd = tuple(replace(pose, captured_ns=at, track=10 * index + i) for i in range(10))
        reporter.step(pipeline.step(Frame(index, at, poses=crowd)))
    assert len(reporter._people) < 10 * 30  # those of the last second


def test_a_heartbeat_tells_what_is_open_and_what_comes_next(report, pipeline):
    reporter = report(publish="tcp://127.0.0.1:*")
    messages: list[AnyMessage] = []
    with heard(reporter, messages):
        for frame in frames()[:100]:
            reporter.step(pipeline.step(frame))
        reporter.heartbeat(READING, drops=3, refused=2, open_events=pipeline.open_events, persons=1)
    beat = messages[-1]
    assert isinstance(beat, Heartbeat)
    assert [one.action for one in beat.open_events] == ["right_up"]
    assert (beat.fps, beat.drops, beat.refused, beat.persons) == (30.0, 3, 2, 1)
    assert beat.frame_age_ms is not None and beat.frame_age_ms.p95 == 40.0
    assert beat.stage_ms["pose"].p50 == 20.0
    assert beat.next_seq["action"] == len(messages) - 1


def test_a_heartbeat_without_frames_says_so(report):
    reporter = report(publish="tcp://127.0.0.1:*")
    messages: list[AnyMessage] = []
    with heard(reporter, messages):
        reporter.heartbeat(Meter().read(True), drops=0, refused=0, open_events=(), persons=0)
    assert messages[0].fps == 0 and messages[0].frame_age_ms is None and messages[0].stage_ms == {}


def test_waiting_for_nobody_is_a_usage_error_and_can_be_stopped(report):
    reporter = report(publish="tcp://127.0.0.1:*")
    with pytest.raises(UsageError, match="no subscriber came to tcp://127"):
        reporter.wait_for_subscriber(0.1)
    reporter.wait_for_subscriber(30, stopped=lambda: True)


def test_a_full_disk_under_the_events_is_told_once_and_the_bus_goes_on(report, pipeline):
    if not Path("/dev/full").exists():
        pytest.skip("this machine has no /dev/full")
    reporter = report(publish="tcp://127.0.0.1:*", events=Path("/dev/full"))
    messages: list[AnyMessage] = []
    failures = []
    with heard(reporter, messages):
        given = frames(TWICE)
        for frame in given:
            try:
                reporter.step(pipeline.step(frame))
            except LineError as error:
                failures.append(str(error))
        reporter.events(pipeline.close(given[-1].captured_ns, "shutdown"))
    assert failures == ["cannot write /dev/full: No space left on device; free some space or name another file"]
    check_story(messages)  # type: ignore[arg-type]
    assert [event.action.id for event in messages if event.phase == "start"] == ["right_up", "left_up"]


def test_a_full_disk_never_ends_a_live_line(report, pipeline, tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("this machine has no /dev/full")
    reporter = report(
        replace(INFO, live=True), publish="tcp://127.0.0.1:*", events=Path("/dev/full"), record=tmp_path / "kept.mcap"
    )
    messages: list[AnyMessage] = []
    with heard(reporter, messages):
        reporter.status("online", 0)
        told = play(pipeline, reporter, frames(TWICE))
    trouble = "cannot write /dev/full: No space left on device; free some space or name another file"
    assert [one.reason for one in messages if isinstance(one, Status)] == [None, trouble]
    assert reporter.failures == [trouble]  # said again at the end, so that scripts notice
    assert [one for one in messages if isinstance(one, ActionEvent)] == told
    reporter.close()
    assert next(read_recording(tmp_path / "kept.mcap")).poses


def test_a_journal_that_fails_is_one_status_of_any_line(report, pipeline, bundle, tmp_path):
    with Outlet(OutletSpec("tcp://127.0.0.1:*", journal=tmp_path / "journal.jsonl")) as outlet:
        outlet.open()
        reporter = Reporter(Outputs(), bundle, "onnxruntime/cpu", INFO, outlet=outlet)
        messages: list[AnyMessage] = []
        with heard(reporter, messages), room(2000):
            told = play(pipeline, reporter, frames(TWICE))
        assert [one.reason.partition(" at ")[0] for one in messages if isinstance(one, Status)] == [
            "journal off: file too large"
        ]
        assert [one for one in messages if isinstance(one, ActionEvent)] == told
        assert len(reporter.failures) == 1
        reporter.close()


def test_closing_tells_the_numbers_once_more(bundle):
    with Outlet(OutletSpec("tcp://127.0.0.1:*")) as outlet:
        outlet.open()
        reporter = Reporter(Outputs(), bundle, "onnxruntime/cpu", INFO, outlet=outlet)
        messages: list[AnyMessage] = []
        with heard(reporter, messages):
            reporter.heartbeat(READING, drops=3, refused=0, open_events=(), persons=1)
            reporter.status("ended", 0)
            reporter.close()
        assert [type(one) for one in messages] == [Heartbeat, Status, Heartbeat]
        assert messages[-1].next_seq["status"] == 1 and messages[-1].drops == 3 and messages[-1].fps is None


def test_a_line_that_fits_only_in_part_is_taken_back(report, pipeline, tmp_path):
    path = tmp_path / "events.jsonl"
    reporter, taken = report(events=path), [pipeline.step(frame) for frame in frames(TWICE)]
    first = next(i for i, step in enumerate(taken) if step.events)
    for step in taken[: first + 1]:
        reporter.step(step)
    whole = path.read_bytes()
    with room(len(whole) + 100), pytest.raises(LineError, match=r"cannot write .*events\.jsonl: File too large"):
        for step in taken[first + 1 :]:
            reporter.step(step)
    assert path.read_bytes() == whole


def test_a_recording_that_does_not_fit_is_told_and_stays_partial(report, pipeline, tmp_path):
    path = tmp_path / "kept.mcap"
    reporter = report(record=path, events=tmp_path / "events.jsonl")
    with room(1000):
        for frame in frames(TWICE)[:60]:
            reporter.step(pipeline.step(frame))
        with pytest.raises(LineError, match=r"cannot write .*kept\.mcap: File too large"):
            reporter.close()
    assert not path.exists() and path.with_name("kept.mcap.partial").exists()
    reporter.close()


def test_outputs_opened_before_one_that_fails_are_closed_again(report, tmp_path):
    address = report(publish="tcp://127.0.0.1:*").address
    with pytest.raises(AddressError):
        report(publish=address, events=tmp_path / "events.jsonl", record=tmp_path / "kept.mcap")
    assert list(tmp_path.iterdir()) == []  # nothing was made before the address was there
    with pytest.raises(UsageError, match="cannot record to"):
        report(publish="tcp://127.0.0.1:*", events=tmp_path / "events.jsonl", record=tmp_path / "none" / "kept.mcap")
    assert (tmp_path / "events.jsonl").read_bytes() == b""


def test_closing_twice_is_closing_once(report, tmp_path):
    reporter = report(publish="tcp://127.0.0.1:*", events=tmp_path / "events.jsonl", record=tmp_path / "kept.mcap")
    reporter.close()
    reporter.close()
    assert [path.name for path in tmp_path.iterdir()] == ["events.jsonl"]  # a recording of nothing leaves no file


def test_the_meter_tells_a_second_and_starts_anew():
    meter = Meter()
    for _ in range(2000):  # more than it keeps
        meter.add((2_000_000, 0, 1_000_000, 0), 500_000, 30_000_000)
    reading = meter.read(paced=True)
    assert reading.fps == pytest.approx(2000 / 1e-3, rel=1e3) and meter.frames == 2000
    assert reading.frame_age_ms == (30.0, 30.0)
    assert reading.stage_ms["pose"] == (2.0, 2.0) and reading.stage_ms["bus"] == (0.5, 0.5)
    assert reading.stage_ms["queue"] == (26.5, 26.5)  # what is left of the age
    assert meter.read(paced=True).stage_ms == {}
    meter.add((0, 0, 0, 0), 0, 1)
    reading = meter.read(paced=False)
    assert reading.frame_age_ms is None and "queue" not in reading.stage_ms


def test_an_age_is_never_negative():
    meter = Meter()
    meter.add((1, 0, 0, 0), 0, -30_000_000)
    reading = meter.read(paced=True)
    assert reading.frame_age_ms == (0.0, 0.0) and reading.stage_ms["queue"] == (0.0, 0.0)


def test_a_step_told_is_what_the_pipeline_decided(report, pipeline):
    reporter = report()
    for frame in frames(TWICE):
        step: Step = pipeline.step(frame)
        assert [event.id for event in reporter.step(step)] == [event.id for event in step.events]
