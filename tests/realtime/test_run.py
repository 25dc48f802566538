"""The line as a program: how it ends, what it leaves behind, and that the camera's frame rate does not matter."""

from __future__ import annotations

import io
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from realtime import run as program
from realtime.backends import Falling, open_engine
from realtime.bundle import default_bundle, load_bundle
from realtime.engine import OrtEngine
from realtime.errors import GpuError, LineError, SourceError
from realtime.feed import SourceInfo
from realtime.generator.perform import perform
from realtime.line import Line
from realtime.messages import ActionEvent, AnyMessage, Heartbeat, PoseMessage, Status
from realtime.pose import PassThrough
from realtime.report import Outputs, Reporter
from realtime.run import make_pipeline
from realtime.schema import SECOND_NS, Frame, Pose
from realtime.skeleton import KINECT_V2_25
from realtime.stop import Stop
from realtime.subscriber import Subscriber
from realtime.terminal import Terminal
from tests.realtime.hands import (
    RAISED,
    ended,
    frames,
    free_address,
    lines,
    read_events,
    start,
    story,
    write_hands,
    write_recording,
)


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="the tiny model is made with the onnx package, which is not installed")
    return write_hands(tmp_path_factory.mktemp("run") / "hands")


@pytest.fixture
def line(hands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Runs the program within this process and gives its exit code; events go to events.jsonl."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*flags: object, pub: str = "none") -> int:
        given = ["run", "--bundle", hands, "--pub", pub, "--events", tmp_path / "events.jsonl", *flags]
        monkeypatch.setattr("sys.argv", [str(flag) for flag in given])
        return program.main()

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write_recording(tmp_path / "hand.mcap", frames())


def test_the_end_of_a_file_is_success_and_every_event_has_its_end(line, recording, tmp_path, capfd):
    assert line("--source", recording, "--fast") == 0
    assert story(tmp_path / "events.jsonl") == [("start", "right_up", None), ("end", "right_up", "score")]
    said = capfd.readouterr()
    assert said.out == "" and "right hand up" in said.err and "error" not in said.err
    assert said.err.splitlines()[-1] == f"hand: {len(frames())} frames in 6.0 s, 1 event (right hand up 1)"


def test_a_file_that_ends_within_an_action_ends_it(line, tmp_path):
    path = write_recording(tmp_path / "cut.mcap", frames()[:RAISED])
    assert line("--source", path, "--fast") == 0
    assert story(tmp_path / "events.jsonl")[-1] == ("end", "right_up", "source_lost")


def test_a_recording_of_the_line_gives_the_same_events_again(line, recording, tmp_path):
    assert line("--source", recording, "--fast", "--record", tmp_path / "again.mcap") == 0
    first = read_events(tmp_path / "events.jsonl")
    (tmp_path / "events.jsonl").unlink()
    assert line("--source", tmp_path / "again.mcap", "--fast") == 0
    second = read_events(tmp_path / "events.jsonl")
    told = [[(e.phase, e.action, e.score, e.alternatives, e.track) for e in events] for events in (first, second)]
    assert told[0] == told[1]
    assert len({e.session for e in first + second}) == 2


def test_duration_counts_the_time_of_the_source(line, recording, tmp_path):
    assert line("--source", recording, "--fast", "--duration", 3.5) == 0
    end = read_events(tmp_path / "events.jsonl")[-1]
    assert end.end_reason == "shutdown"
    start_ns = read_events(tmp_path / "events.jsonl")[0].time.onset_mono_ns
    assert 0.8 < (end.time.decided_mono_ns - start_ns) / SECOND_NS < 1.5


def test_the_synthetic_person_plays_for_ever_until_the_duration(line, tmp_path):
    assert line("--source", "synthetic", "--seed", 4, "--fast", "--duration", 40, "--quiet") == 0
    read_events(tmp_path / "events.jsonl")


def test_quiet_says_nothing(line, recording, tmp_path, capfd):
    assert line("--source", recording, "--fast", "--quiet") == 0
    assert capfd.readouterr() == ("", "")


def test_help_has_groups_units_and_ends_with_examples(line, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run", "--help"])
    with pytest.raises(SystemExit) as end:
        program.main()
    said = capsys.readouterr().out
    assert end.value.code == 0
    assert "--wait-subscriber" in said and "seconds" in said and "input options" in said
    assert said.index("examples:") > said.index("--quiet")
    assert "exit codes:" in said


def test_lines_on_standard_input_are_played_to_their_end(hands, tmp_path):
    process = start(
        "--bundle", hands, "--source", "-", "--pub", "none", "--events", tmp_path / "e.jsonl", stdin=subprocess.PIPE
    )
    code, said = ended(process, b"".join(lines(frames())))
    assert code == 0, said
    assert story(tmp_path / "e.jsonl") == [("start", "right_up", None), ("end", "right_up", "score")]


def test_a_source_lost_midway_ends_its_events_and_says_so_everywhere(hands, tmp_path):
    given = list(lines(frames()[:RAISED]))
    path = tmp_path / "back.jsonl"
    path.write_bytes(b"".join([*given, given[3]]))  # time goes back: no recording goes on like that
    address = free_address()
    flags = ("--bundle", hands, "--source", path, "--fast", "--pub", address, "--wait-subscriber", 20)
    with Subscriber(address) as subscriber:
        process = start(*flags, "--events", tmp_path / "events.jsonl")
        code, said = ended(process)
        messages = []
        while (received := subscriber.receive(0.3)) is not None:
            messages.append(received.message)
    assert code == 4
    assert said.splitlines()[-1].startswith("error: recording") and "must rise" in said
    assert story(tmp_path / "events.jsonl")[-1] == ("end", "right_up", "source_lost")
    states = [message for message in messages if isinstance(message, Status)]
    assert [state.state for state in states] == ["online", "offline"]
    assert states[-1].reason is not None and "must rise" in states[-1].reason
    assert [m for m in messages if isinstance(m, ActionEvent)] == read_events(tmp_path / "events.jsonl")


def test_the_heart_beats_once_a_second(hands):
    address = free_address()
    with Subscriber(address) as subscriber:
        process = start("--bundle", hands, "--source", "synthetic", "--pub", address, "--publish-poses", "--quiet")
        beats: list[Heartbeat] = []
        poses = 0
        deadline = time.monotonic() + 20
        while len(beats) < 2 and time.monotonic() < deadline:
            received = subscriber.receive(0.2)
            if received is not None and isinstance(received.message, Heartbeat):
                beats.append(received.message)
            elif received is not None and isinstance(received.message, PoseMessage):
                poses += 1
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 0
    assert (beats[1].time.mono_ns - beats[0].time.mono_ns) / SECOND_NS == pytest.approx(1.0, abs=0.35)
    assert beats[1].seq == beats[0].seq + 1 and beats[1].next_seq["pose"] > beats[0].next_seq["pose"]
    assert beats[1].persons == 1 and poses > 10
    assert beats[1].frame_age_ms is not None and beats[1].stage_ms["queue"].p50 <= beats[1].frame_age_ms.p50
    assert set(beats[1].stage_ms) == {"pose", "window", "model", "decoder", "bus", "queue"}


@pytest.mark.parametrize("action", ["wave:right", "walk:treadmill", "clap"])
def test_one_motion_gives_its_label_at_any_frame_rate_with_the_bundle_that_ships(action):
    if not default_bundle().is_dir():
        pytest.skip(f"no bundle ships yet: {default_bundle()}")
    bundle = load_bundle(default_bundle())
    engine = open_engine(bundle)
    labels, lengths_s = {}, {}
    for fps in (10.0, 15.0, 30.0, 60.0):
        seen = perform([("nothing", 2.0), (action, 5.0), ("nothing", 2.5)], seed=1, fps=fps, noise=False)
        pipeline = make_pipeline(PassThrough(), bundle, engine, persons=1)
        told = []
        for i, (at, joints, sure) in enumerate(zip(seen.times_ns.tolist(), seen.joints, seen.confidence, strict=True)):
            told += pipeline.step(Frame(i, at, poses=(Pose(i, at, 1, KINECT_V2_25, joints, sure),))).events
        told += pipeline.close(at, "source_lost")
        ends = [event for event in told if event.phase == "end"]
        longest = max(ends, key=lambda event: (event.offset_ns or 0) - event.onset_ns)
        labels[fps] = longest.action
        lengths_s[fps] = ((longest.offset_ns or 0) - longest.onset_ns) / SECOND_NS
    assert set(labels.values()) == {action.partition(":")[0]}, labels
    assert max(lengths_s.values()) - min(lengths_s.values()) < 1.0, lengths_s


class Played:
    """A source that gives frames and then, perhaps, an error."""

    dropped = refused = corrupt = 0
    paced = False
    info = SourceInfo("figure", "poses", layout="CORE_16")

    def __init__(self, given: list[Frame], error: BaseException | None = None) -> None:
        self._given, self._error = given, error

    def __iter__(self) -> Iterator[Frame]:
        yield from self._given
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        pass


class Watched(Terminal):
    """Counts how often it was closed; `breaks` makes it fail at the first event."""

    closes = 0
    breaks: Exception | None = None

    def events(self, told) -> None:
        if told and self.breaks is not None:
            raise self.breaks
        super().events(told)

    def close(self) -> None:
        self.closes += 1
        super().close()


@pytest.fixture
def play(hands) -> Iterator[Callable[..., int]]:
    """Plays a source through a Line; `breaks` is what the terminal raises at the first event."""
    bundle = load_bundle(hands)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(source: Played, breaks: Exception | None = None, engine=None, said=None, **outputs: Path) -> int:
        engine = engine or open_engine(bundle)
        reporter = Reporter(Outputs(**outputs), bundle, engine.backend, source.info)
        terminal = Watched(Console(file=said or io.StringIO(), width=400), bundle, source.info, quiet=False, show=False)
        terminal.breaks = breaks
        line = Line(source, make_pipeline(PassThrough(), bundle, engine, 1), engine, reporter, terminal, Stop())
        try:
            return line.run(None)
        finally:
            reporter.close()
            assert terminal.closes > 0

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("error", "reason", "why"),
    [
        (SourceError("the cable is out"), "source_lost", "the cable is out"),
        (LineError("the model gave nonsense"), "shutdown", "the model gave nonsense"),
        (KeyboardInterrupt(), "shutdown", "interrupted"),
        (BrokenPipeError(), "shutdown", "interrupted"),
        (ZeroDivisionError("a fault of ours"), "shutdown", "internal error"),
    ],
)
def test_whatever_goes_wrong_each_event_ends_and_the_state_says_why(play, tmp_path, error, reason, why, monkeypatch):
    told: list[str] = []
    monkeypatch.setattr(
        Reporter, "status", lambda self, state, at, reason=None, track=None: told.append(f"{state} {reason}")
    )
    with pytest.raises(type(error)):
        play(Played(frames()[:RAISED], error), events=tmp_path / "events.jsonl")
    assert story(tmp_path / "events.jsonl")[-1] == ("end", "right_up", reason)
    assert told == ["online None", f"offline {why}"]


@pytest.mark.parametrize(
    ("error", "last"), [(None, "ended None"), (SourceError("the cable is out"), "offline the cable is out")]
)
def test_a_last_event_that_cannot_be_told_leaves_the_last_state_told_once(play, error, last, monkeypatch):
    told: list[str] = []
    monkeypatch.setattr(
        Reporter, "status", lambda self, state, at, reason=None, track=None: told.append(f"{state} {reason}")
    )

    def full(self, events):
        raise LineError("the disk is full")

    monkeypatch.setattr(Reporter, "events", full)
    with pytest.raises(LineError, match="the disk is full"):
        play(Played(frames()[:RAISED], error))
    assert told == ["online None", last]


def test_events_reach_the_file_although_the_terminal_is_gone(play, tmp_path):
    with pytest.raises(BrokenPipeError):
        play(Played(frames()), breaks=BrokenPipeError(), events=tmp_path / "events.jsonl")
    assert story(tmp_path / "events.jsonl")[-1] == ("end", "right_up", "shutdown")


def test_a_frame_keeps_its_time_from_source_to_event(play, tmp_path):
    late = [replace(f, captured_ns=f.captured_ns + 10**15) for f in frames()]
    late = [replace(f, poses=tuple(replace(p, captured_ns=f.captured_ns) for p in f.poses or ())) for f in late]
    play(Played(late), events=tmp_path / "events.jsonl")
    assert all(event.time.onset_mono_ns >= 10**15 for event in read_events(tmp_path / "events.jsonl"))


class Failing(OrtEngine):
    """An engine on a GPU that fails at its third call, as a driver that was reset does."""

    backend, calls = "fake-1.0/gpu", 0

    def _run(self, skeleton):
        self.calls += 1
        if self.calls == 3:
            raise GpuError("cuStreamSynchronize failed: CUDA_ERROR_LAUNCH_FAILED")
        return super()._run(skeleton)


def test_a_gpu_that_fails_leaves_the_events_as_they_are_and_says_so_once(play, hands, tmp_path, monkeypatch):
    told: list[AnyMessage] = []
    publish = Reporter._publish
    monkeypatch.setattr(Reporter, "_publish", lambda self, one: told.append(one) or publish(self, one))
    bundle, said = load_bundle(hands), io.StringIO()
    given = frames(((None, 1.0), ("right", 1.5), ("left", 1.5), (None, 1.0)))
    play(Played(given), events=tmp_path / "cpu.jsonl")
    told.clear()
    fails_after = Failing(bundle)
    fails_after.calls = -10  # so that an action is open when it fails
    play(Played(given), engine=Falling(fails_after, bundle, 1), said=said, events=tmp_path / "gpu.jsonl")
    with_gpu, without = read_events(tmp_path / "gpu.jsonl"), read_events(tmp_path / "cpu.jsonl")
    assert [(e.phase, e.action.id, e.score, e.time.onset_mono_ns, e.end_reason) for e in with_gpu] == [
        (e.phase, e.action.id, e.score, e.time.onset_mono_ns, e.end_reason) for e in without
    ]
    ran = [event.model.backend for event in with_gpu]
    assert ran[0] == "fake-1.0/gpu" and ran[-1].startswith("onnxruntime-")
    assert sum(one != other for one, other in pairwise(ran)) == 1
    statuses = [message for message in told if isinstance(message, Status)]
    assert [(status.state, status.backend) for status in statuses] == [
        ("online", "fake-1.0/gpu"), ("online", ran[-1]), ("ended", None),
    ]  # fmt: skip
    why = statuses[1].reason
    assert why.startswith("fake-1.0/gpu failed while running (cuStreamSynchronize failed") and why in said.getvalue()
    assert said.getvalue().count("failed while running") == 1


def test_an_engine_that_fails_without_another_to_go_on_ends_the_line(play, hands, tmp_path):
    with pytest.raises(GpuError, match="LAUNCH_FAILED"):
        play(Played(frames()), engine=Failing(load_bundle(hands)), events=tmp_path / "events.jsonl")


def test_the_line_says_what_runs_the_model_and_why(line, recording, capfd):
    assert line("--source", recording, "--fast") == 0
    said = capfd.readouterr().err
    assert "model hands on onnxruntime-" in said and "\nengine: fp32: the bundle has no int8 graph" in said
    assert line("--source", recording, "--fast", "--backend", "ort", "--precision", "fp32") == 0
    assert "\nengine: fp32, as asked" in capfd.readouterr().err
