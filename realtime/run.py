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
from types import FrameType

from rich.console import Console

from realtime.backends import open_engine
from realtime.bundle import Bundle, default_bundle, load_bundle, shipped_interactions
from realtime.command import run_command
from realtime.decoder import ActionRule, Decoder
from realtime.errors import BundleError, LineError, SourceError
from realtime.feed import Change
from realtime.interactions import Interactions, check_pair_bundle
from realtime.meter import Meter
from realtime.pairs import PairWindows
from realtime.pipeline import FindsPoses, Pipeline, ScoresWindows, Step
from realtime.place import Placed
from realtime.pose import MediaPipePose, PassThrough
from realtime.report import Outputs, Reporter
from realtime.schema import SECOND_NS, EndReason, Frame, State
from realtime.scoring import Engine
from realtime.settings import MOST_PERSONS, SHIPS, Config, RecognitionFlags, check
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
        for item in self._source:
            frame = item if isinstance(item, Frame) else None
            if deadline.over(frame):
                return "shutdown"
            if frame is not None:
                self._take(self._pipeline.step(frame))
            elif isinstance(item, Change):
                self._turn(item)
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

    def _turn(self, change: Change) -> None:
        """The source's state changed: said, and where the frames broke off every window begins anew."""
        self._now_ns = max(self._now_ns, change.captured_ns)
        if change.reset is not None:
            ended, tracks = self._pipeline.reset(change.captured_ns, "source_lost")
            self._terminal.events(self._reporter.events(ended))
            self._reporter.reset(tracks, change.captured_ns, change.reset)
        self._reporter.status(change.state, change.captured_ns, change.reason)
        self._terminal.say(f"{self._source.info.id} {change.state}{': ' + change.reason if change.reason else ''}")

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

    def _finish(self, reason: EndReason, state: State, why: str | None) -> None:
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


def make_pipeline(
    pose: FindsPoses, bundle: Bundle, engine: ScoresWindows, persons: int, together: tuple[Bundle, Engine] | None = None
) -> Pipeline:
    """The stages of a line, joined. together: the bundle of what two people do together, and its engine."""
    windows = WindowBuffer(bundle.layout, bundle.window, bundle.fps, bundle.stride, max_tracks=persons)
    pairs = None
    if together is not None:
        pairs = Interactions(together[0], PairWindows(windows), together[1], make_decoder(together[0]))
    return Pipeline(pose, windows, engine, make_decoder(bundle), pairs)


def load_bundles(chosen: RecognitionFlags) -> tuple[Bundle, Bundle | None]:
    """The bundle, and that of pairs where one is named; BundleError where they do not go together."""
    bundle = load_bundle(chosen.bundle or default_bundle())
    if bundle.of_pairs:
        raise BundleError(f"bundle {bundle.path} is for pairs of people: give it as --interactions")
    if chosen.interactions is None:
        return bundle, None
    ships = str(chosen.interactions) == SHIPS
    pairs = load_bundle(shipped_interactions() if ships else chosen.interactions)
    check_pair_bundle(pairs, bundle)
    return bundle, pairs


def run(config: Config, console: Console) -> int:
    """Puts the line together and runs it; LineError says what is wrong."""
    check(config)
    log_to(console, config.output.quiet)
    stop = Stop()
    bundle, of_pairs = load_bundles(config.recognition)
    chosen, given, outputs = config.recognition, config.input, config.output
    address = None if outputs.pub == "none" else outputs.pub
    to = Outputs(address, outputs.events, outputs.record, outputs.publish_poses, outputs.publish_scores)
    with ExitStack() as opened:  # closed again in the opposite order, whatever happens
        engine = open_engine(bundle, chosen.backend, chosen.threads, chosen.precision, chosen.engine, chosen.trust)
        opened.callback(engine.close)
        together = None
        if of_pairs is not None:  # --engine is the first bundle's
            together = of_pairs, open_engine(of_pairs, chosen.backend, chosen.threads, chosen.precision)
            opened.callback(together[1].close)
        source = open_source(given.source, fast=given.fast, mirror=given.mirror, fps=given.fps, seed=given.seed)
        opened.callback(source.close)
        reporter = Reporter(to, bundle, engine.backend, source.info, engine.precision, together)
        opened.callback(reporter.close)
        skeletons = source.info.skeletons
        pose: FindsPoses = PassThrough() if skeletons else MediaPipePose()
        if together is not None and not skeletons:
            pose = Placed(pose)  # pairs must know who stands where
        persons = chosen.persons or (MOST_PERSONS if skeletons else 1)
        terminal = Terminal(console, bundle, source.info, outputs.quiet, outputs.show and not outputs.headless)
        terminal.opening(reporter.address, engine.backend, engine.why)
        if persons > 1 and not skeletons:
            terminal.say(f"MediaPipe follows one person in pictures; --persons {persons} changes nothing here")
        if outputs.wait_subscriber:
            reporter.wait_for_subscriber(outputs.wait_subscriber, stopped=lambda: stop.code is not None)
        line = Line(source, make_pipeline(pose, bundle, engine, persons, together), engine, reporter, terminal, stop)
        return line.run(given.duration, waits=source.info.live or given.source == "-")


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "realtime.run", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
