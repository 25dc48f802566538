"""The line as a program: python -m realtime.run --camera 0

One loop: frame -> poses -> windows -> scores -> events, and what it decides is told at once.
"""

from __future__ import annotations

import math
import os
import signal
import sys

if __name__ == "__main__":  # while the rest loads nothing is open yet, so a signal simply ends the program
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    for quietly in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(quietly, lambda number, frame: os._exit(0))

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import tyro
from rich.console import Console

from realtime.backends import open_engine
from realtime.bundle import Bundle, default_bundle, load_bundle
from realtime.bus import DEFAULT_ADDRESS
from realtime.command import run_command
from realtime.decoder import ActionRule, Decoder
from realtime.errors import LineError, SourceError, UsageError
from realtime.meter import Meter
from realtime.pipeline import FindsPoses, Pipeline, ScoresWindows, Step
from realtime.pose import MediaPipePose, PassThrough
from realtime.report import Outputs, Reporter
from realtime.schema import SECOND_NS, EndReason, Frame
from realtime.scoring import Engine
from realtime.source import Source, open_source
from realtime.terminal import Terminal, log_to
from realtime.window import WindowBuffer

EXAMPLES = """examples:
  python -m realtime.run --camera 0                                a camera, events on tcp://127.0.0.1:5556
  python -m realtime.run --source video.mp4 --fast --events out.jsonl
                                                                   every frame of a file, events also as JSON lines
  python -m realtime.run --source rtsp://HOST/stream --headless    a network camera on a machine with no screen
  python -m realtime.run --camera 0 --record today.mcap            keep the skeletons (never the pictures)
  python -m realtime.run --source today.mcap --fast --pub none --events again.jsonl
                                                                   decide again on kept skeletons
  python -m realtime.run --source synthetic --duration 30          a generated person; needs no camera
  python -m export.trt BUNDLE --backend trt --precision fp16       build a TensorRT engine on this machine, once; then
  python -m realtime.run --camera 0 --bundle BUNDLE --backend trt  run it, or end with exit code 6 or 3
  python -m realtime.run --camera 0 --backend ort --precision fp32 the CPU, the trained model's own numbers
  python -m realtime.tail                                          in another terminal: print the events

a GPU that fails while the line runs: ONNX Runtime on the CPU goes on with the same windows; a line here and a status
  message say so

exit codes: 0 ok or end of file, 1 internal error, 2 usage, 3 bundle or engine refused, 4 source cannot be opened or
  was lost, 5 address in use, 6 GPU or TensorRT demanded but not there, 130 interrupted (Ctrl-C);
  SIGTERM and SIGHUP close open events and give 0
"""
MOST_PERSONS = 8  # people followed in skeletons unless --persons says otherwise


@dataclass(frozen=True)
class InputFlags:
    """Where frames come from."""

    source: Annotated[str, tyro.conf.arg(aliases=("--camera",), metavar="SOURCE")] = "0"
    """Camera index, /dev/videoN, video file, folder of pictures, rtsp:// or http:// stream, skeletons (.mcap .jsonl
    .npz, NTU .skeleton, NW-UCLA .json), - for pose messages on standard input, or synthetic."""
    mirror: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The camera gives mirrored pictures (a selfie preview): turn them back, so that left is left."""
    fast: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Files: every frame, as fast as possible. Otherwise live pace, and the newest frame wins."""
    duration: float | None = None
    """Stop after so many seconds of the source's own time; silence of a live source counts. Default: never."""
    fps: float | None = None
    """Frames a second of what tells none: folders of pictures, NW-UCLA, .npz without times, synthetic. Default: 30,
    NW-UCLA 12."""
    seed: int | None = None
    """Of the source synthetic: the same seed, the same person."""


@dataclass(frozen=True)
class RecognitionFlags:
    """How people and actions are recognised."""

    bundle: Path | None = None
    """Folder of the model. Default: the one that ships."""
    pose: Literal["mediapipe"] = "mediapipe"
    """What finds skeletons in pictures."""
    persons: int | None = None
    """People to follow at most. Default: one in pictures, which is all that MediaPipe follows; 8 in skeletons."""
    backend: Literal["auto", "trt", "rtx", "ort-cuda", "ort"] = "auto"
    """What runs the model: TensorRT, TensorRT-RTX, ONNX Runtime on the GPU or on the CPU. auto: the first of these
    that is ready here; the line says which, and why none before it."""
    precision: Literal["auto", "fp32", "fp16", "int8"] = "auto"
    """What the model computes in. auto: the fastest that passed its gate; a CPU times fp32 and int8 at the start."""
    engine: Path | None = None
    """Take this TensorRT engine file, its sidecar beside it, instead of the one built into this user's cache."""
    trust: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Load --engine although it was copied here or others may write to its folder: an engine can run code."""
    threads: int = 1
    """CPU threads of the model."""


@dataclass(frozen=True)
class OutputFlags:
    """What is told, and where."""

    pub: str = DEFAULT_ADDRESS
    """ZeroMQ address to publish on (this machine only), or none."""
    events: Path | None = None
    """Also append events to this file, one JSON message a line."""
    record: Path | None = None
    """Record every frame's skeletons to this new MCAP file (no pictures); a file that is there is refused."""
    publish_poses: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Also publish every frame's skeletons (topic pose.)."""
    publish_scores: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Also publish every window's probabilities (topic scores.)."""
    wait_subscriber: float | None = None
    """Wait up to so many seconds for a subscriber before the first frame. Default: do not wait."""
    show: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Open a window with skeleton, label bars and history; without a display the line goes on without one."""
    headless: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """No window, whatever else is said; so it is by itself where there is no display."""
    quiet: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print errors only."""


@dataclass(frozen=True)
class Config:
    """Recognise human actions, live, and publish them as events over ZeroMQ."""

    input: InputFlags
    recognition: RecognitionFlags
    output: OutputFlags


class Stop:
    """What ends the loop from outside: Ctrl-C, SIGTERM and SIGHUP. A second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.code: int | None = None
        signal.signal(signal.SIGINT, self._interrupt)
        for quietly in (signal.SIGTERM, signal.SIGHUP):  # SIGHUP: the terminal was closed
            signal.signal(quietly, self._terminate)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.code is not None:
            raise KeyboardInterrupt
        self.code = 130

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self.code = 0


class Deadline:
    """Tells when so many seconds of a source's own time are over. waits: its silence counts as well."""

    def __init__(self, duration_s: float | None, waits: bool) -> None:
        self._limit_s, self._waits = math.inf if duration_s is None else duration_s, waits
        self._begun_ns: int | None = None
        self._played_ns = 0  # from the first frame to the newest
        self._heard_ns = time.monotonic_ns()

    def over(self, frame: Frame | None) -> bool:
        """Whether the time is over with this frame, or with none."""
        now_ns = time.monotonic_ns()
        if frame is not None:
            self._begun_ns = frame.captured_ns if self._begun_ns is None else self._begun_ns
            self._played_ns, self._heard_ns = frame.captured_ns - self._begun_ns, now_ns
        silent_ns = now_ns - self._heard_ns if self._waits else 0
        return self._played_ns + silent_ns >= self._limit_s * SECOND_NS


class Line:
    """A source, the pipeline with its engine, and its reporter, run as one loop."""

    def __init__(
        self, source: Source, pipeline: Pipeline, engine: Engine, reporter: Reporter, terminal: Terminal, stop: Stop
    ) -> None:
        self._source, self._pipeline, self._reporter = source, pipeline, reporter
        self._engine, self._backend = engine, engine.backend
        self._terminal, self._stop = terminal, stop
        self._meter = Meter()
        self._persons: tuple[int, int] = (0, 0)
        self._now_ns = time.monotonic_ns()

    def run(self, duration_s: float | None, waits: bool = False) -> int:
        """Runs to the end of the source or of the time, or until stopped; returns the exit code.

        waits: the source's silence counts as its time.
        """
        self._reporter.status("online", self._now_ns)
        try:
            reason = self._play(Deadline(duration_s, waits))
        except LineError as error:
            self._finish("source_lost" if isinstance(error, SourceError) else "shutdown", "offline", str(error))
            raise
        except BaseException as error:
            # A pipe breaks when nobody reads any more what we say.
            fault = isinstance(error, Exception) and not isinstance(error, BrokenPipeError)
            self._finish("shutdown", "offline", "internal error" if fault else "interrupted")
            raise
        self._finish(reason, "ended", None)
        return self._stop.code or 0

    def _play(self, deadline: Deadline) -> EndReason:
        """Takes frame after frame; returns why there are no more."""
        for frame in self._source:
            if deadline.over(frame):
                return "shutdown"
            if frame is not None:
                self._take(self._pipeline.step(frame))
            self._beat(self._source.paced)
            if self._stop.code is not None or self._terminal.closed:
                break
        # Asked after the loop, because Ctrl-C ends the program that feeds us as well, and so the source.
        return "shutdown" if self._stop.code is not None or self._terminal.closed else "source_lost"

    def _take(self, step: Step) -> None:
        decided = time.perf_counter_ns()
        if self._engine.backend != self._backend:
            self._tell_engine(step.frame.captured_ns)
        told = self._reporter.step(step)
        self._now_ns = step.frame.captured_ns
        self._persons = (len(step.poses), step.frame.index)
        spent = time.perf_counter_ns() - decided
        self._meter.add(step.stage_ns, spent, time.monotonic_ns() - step.frame.captured_ns)
        self._terminal.show(step, told, self._meter.fps)

    def _tell_engine(self, captured_ns: int) -> None:
        """The GPU failed and the CPU goes on: said before anything that the new engine decided."""
        self._backend = self._engine.backend
        self._reporter.engine_changed(self._backend, self._engine.precision)
        self._reporter.status("online", captured_ns, self._engine.why)
        self._terminal.say(self._engine.why)

    def _beat(self, paced: bool) -> None:
        """Once a second, frames or not: the heartbeat."""
        if self._meter.seconds < 1.0:
            return
        reading = self._meter.read(paced)
        refused = self._source.refused + self._source.corrupt + self._pipeline.refused
        persons = self._persons[0] if reading.fps else 0
        self._reporter.heartbeat(reading, self._source.dropped, refused, self._pipeline.open_events, persons)
        self._terminal.beat(reading, self._source.dropped, refused, persons, self._pipeline.gated)

    def _finish(self, reason: EndReason, state: str, why: str | None) -> None:
        """Ends every open event, tells the last state and frees everything; also after an error."""
        try:
            try:
                told = self._reporter.events(self._pipeline.close(self._now_ns, reason))
            finally:
                self._reporter.status(state, self._now_ns, why)
            self._terminal.events(told)
        finally:
            self._terminal.close()


def make_decoder(bundle: Bundle) -> Decoder:
    """The decoder that a bundle's thresholds describe."""
    rules = [ActionRule(a.id, a.on, a.off, a.min_on_s, a.min_off_s) for a in bundle.actions]
    return Decoder(
        bundle.classes,
        bundle.nothing,
        rules,
        bundle.smoothing_s,
        onset_shift_s=bundle.onset_shift_s,
        offset_shift_s=bundle.offset_shift_s,
    )


def make_pipeline(pose: FindsPoses, bundle: Bundle, engine: ScoresWindows, persons: int) -> Pipeline:
    """The stages of a line, joined."""
    windows = WindowBuffer(bundle.layout, bundle.window, bundle.fps, bundle.stride, max_tracks=persons)
    return Pipeline(pose, windows, engine, make_decoder(bundle))


def run(config: Config, console: Console) -> int:
    """Puts the line together and runs it; LineError says what is wrong."""
    _check(config)
    log_to(console, config.output.quiet)
    stop = Stop()
    bundle = load_bundle(config.recognition.bundle or default_bundle())
    chosen, given, outputs = config.recognition, config.input, config.output
    address = None if outputs.pub == "none" else outputs.pub
    to = Outputs(address, outputs.events, outputs.record, outputs.publish_poses, outputs.publish_scores)
    with ExitStack() as opened:  # closed again in the opposite order, whatever happens
        engine = open_engine(bundle, chosen.backend, chosen.threads, chosen.precision, chosen.engine, chosen.trust)
        opened.callback(engine.close)
        source = open_source(given.source, fast=given.fast, mirror=given.mirror, fps=given.fps, seed=given.seed)
        opened.callback(source.close)
        reporter = Reporter(to, bundle, engine.backend, source.info, engine.precision)
        opened.callback(reporter.close)
        skeletons = source.info.skeletons
        pose: FindsPoses = PassThrough() if skeletons else MediaPipePose()
        persons = chosen.persons or (MOST_PERSONS if skeletons else 1)
        terminal = Terminal(console, bundle, source.info, outputs.quiet, outputs.show and not outputs.headless)
        terminal.opening(reporter.address, engine.backend, engine.why)
        if persons > 1 and not skeletons:
            terminal.say(f"MediaPipe follows one person in pictures; --persons {persons} changes nothing here")
        if outputs.wait_subscriber:
            reporter.wait_for_subscriber(outputs.wait_subscriber, stopped=lambda: stop.code is not None)
        line = Line(source, make_pipeline(pose, bundle, engine, persons), engine, reporter, terminal, stop)
        return line.run(given.duration, waits=source.info.live or given.source == "-")


def _check(config: Config) -> None:
    for name, value in (("duration", config.input.duration), ("wait-subscriber", config.output.wait_subscriber)):
        if value is not None and not 0 < value < 1e9:
            raise UsageError(f"--{name} must be above 0 seconds, got {value}")
    if config.recognition.persons is not None and not 1 <= config.recognition.persons <= 64:
        raise UsageError(f"--persons must be in [1, 64], got {config.recognition.persons}")
    events, record = config.output.events, config.output.record
    if events is not None and record is not None and events.absolute() == record.absolute():
        raise UsageError(f"--events and --record are both {events}; name two files")
    source = os.path.expanduser(config.input.source)
    for name, path in (("events", events), ("record", record)):
        if path is not None and os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
            raise UsageError(f"--{name} {path} is the source itself and would be overwritten; name another file")


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "realtime.run", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
