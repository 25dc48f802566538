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

    from realtime.secrets import hide_arguments

    hide_arguments()  # before the seconds in which libraries load

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from realtime.backends import open_engine
from realtime.bundle import Bundle, default_bundle, load_bundle
from realtime.command import run_command
from realtime.commands import Commands
from realtime.decoder import ActionRule, Decoder
from realtime.errors import LineError, SourceError, UsageError
from realtime.feed import Change
from realtime.meter import Meter
from realtime.outlet import Outlet, OutletSpec
from realtime.pipeline import FindsPoses, Pipeline, ScoresWindows, Step
from realtime.pose import MediaPipePose, PassThrough
from realtime.report import Outputs, Reporter
from realtime.schema import SECOND_NS, EndReason, Frame, State
from realtime.scoring import Engine
from realtime.secrets import source_of
from realtime.settings import MOST_PERSONS, Config, check
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


CROWD_S = 60.0  # how often it is said that more people are in view than are followed


class Stop:
    """What ends the loop from outside: Ctrl-C, SIGTERM and SIGHUP. A second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.code: int | None = None
        signal.signal(signal.SIGINT, self._interrupt)
        for quietly in (signal.SIGTERM, signal.SIGHUP):  # SIGHUP: the terminal was closed
            signal.signal(quietly, self._terminate)

    def end(self) -> None:
        """As SIGTERM does."""
        self.code = self.code or 0

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


Rebuild = Callable[[Path], tuple[Bundle, Pipeline, Engine]]


class Line:
    """A source, the pipeline with its engine, and its reporter, run as one loop."""

    def __init__(
        self,
        source: Source,
        pipeline: Pipeline,
        engine: Engine,
        reporter: Reporter,
        terminal: Terminal,
        stop: Stop,
        rebuild: Rebuild | None = None,
    ) -> None:
        """rebuild: another bundle's pipeline and engine, with the same pose stage; LineError where it is no good."""
        self._source, self._pipeline, self._reporter = source, pipeline, reporter
        self._rebuild, self._refused = rebuild, 0  # turned away by pipelines that were replaced
        self._engine, self._backend = engine, engine.backend
        self._terminal, self._stop = terminal, stop
        self._meter = Meter()
        self._persons: tuple[int, int] = (0, 0)
        self._crowded: tuple[int, float] = (0, 0.0)  # poses turned away so far, and when that may be said again
        self._now_ns = time.monotonic_ns()
        self._figures: dict[str, Any] = {}
        self._commands = Commands(self)

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
            for request in self._reporter.tend():
                self._reporter.answer(request, self._commands.handle(request.body))
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

    def stats(self) -> dict[str, Any]:
        """How the line is doing, as JSON values."""
        opened = [{"id": one.id, "track": one.track, "action": one.action} for one in self._pipeline.open_events]
        return {
            "source": self._source.info.id, "kind": self._source.info.kind, "model": self._reporter.bundle.name,
            "backend": self._engine.backend, "precision": self._engine.precision, "frames": self._meter.frames,
            **self._figures, "open_events": opened, "disabled": sorted(self._pipeline.disabled),
        }  # fmt: skip

    def actions(self) -> list[dict[str, Any]]:
        """What it recognises: id, name, thresholds, enabled."""
        return [
            {**asdict(one), "enabled": one.id not in self._pipeline.disabled} for one in self._reporter.bundle.actions
        ]

    def enable(self, action: str) -> None:
        """Lets an action start again."""
        self._pipeline.enable(action)
        self._tell_command(f"action {action} enabled")

    def disable(self, action: str) -> None:
        """Ends what is open of an action, and starts it no more."""
        self._terminal.events(self._reporter.events(self._pipeline.disable(action, self._now_ns)))
        self._tell_command(f"action {action} disabled")

    def reload(self, folder: Path) -> str:
        """Takes another bundle and returns its name; LineError where it is no good, and then nothing has changed."""
        if self._rebuild is None:
            raise UsageError("this line cannot take another bundle; start it again with --bundle")
        bundle, pipeline, engine = self._rebuild(folder)
        for action in self._pipeline.disabled & {one.id for one in bundle.actions}:
            pipeline.disable(action, self._now_ns)
        ended, tracks = self._pipeline.reset(self._now_ns, "shutdown")
        self._terminal.events(self._reporter.events(ended))
        self._reporter.reset(tracks, self._now_ns, f"bundle {bundle.name} was loaded")
        self._refused += self._pipeline.refused - pipeline.refused
        self._engine.close()
        self._pipeline, self._engine, self._backend = pipeline, engine, engine.backend
        self._crowded = (0, self._crowded[1])
        self._reporter.bundle_changed(bundle, engine.backend, engine.precision)
        self._terminal.bundle_changed(bundle)
        self._tell_command(f"bundle {bundle.name} was loaded from {folder}")
        return bundle.name

    def shutdown(self) -> None:
        """Ends after this frame."""
        self._stop.end()

    def close(self) -> None:
        """Frees the engine that runs now."""
        self._engine.close()

    def _tell_command(self, what: str) -> None:
        self._reporter.status("online", self._now_ns, f"{what} (control)")
        self._terminal.say(f"control: {what}")

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
        refused = self._source.refused + self._source.corrupt + self._pipeline.refused + self._refused
        persons = self._persons[0] if reading.fps else 0
        self._figures = {
            **asdict(reading), "drops": self._source.dropped, "refused": refused, "persons": persons,
            "reconnects": self._source.reconnects,
        }  # fmt: skip
        self._reporter.heartbeat(
            reading, self._source.dropped, refused, self._pipeline.open_events, persons, self._source.reconnects
        )
        self._warn_of_crowd()
        self._terminal.beat(reading, self._source.dropped, refused, persons, self._pipeline.gated)

    def _warn_of_crowd(self) -> None:
        """At most once a minute while more people are in view than are followed."""
        crowded, now = self._pipeline.crowded, time.monotonic()
        if crowded > self._crowded[0] and now >= self._crowded[1]:
            most = self._pipeline.most_persons
            reason = f"more people are in view than the {most} that are followed; --persons N follows more"
            self._reporter.status("online", self._now_ns, reason)
            self._terminal.say(reason)
            self._crowded = (crowded, now + CROWD_S)

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


def make_pipeline(pose: FindsPoses, bundle: Bundle, engine: ScoresWindows, persons: int) -> Pipeline:
    """The stages of a line, joined."""
    windows = WindowBuffer(bundle.layout, bundle.window, bundle.fps, bundle.stride, max_tracks=persons)
    return Pipeline(pose, windows, engine, make_decoder(bundle))


def run(config: Config, console: Console) -> int:
    """Puts the line together and runs it; LineError says what is wrong."""
    check(config)
    log_to(console, config.output.quiet)
    stop = Stop()
    bundle = load_bundle(config.recognition.bundle or default_bundle())
    chosen, given, outputs = config.recognition, config.input, config.output
    address = None if outputs.pub == "none" else outputs.pub
    to = Outputs(address, outputs.events, outputs.record, outputs.publish_poses, outputs.publish_scores)
    reached = OutletSpec(address, outputs.keys, outputs.control, outputs.http, outputs.journal)
    with ExitStack() as opened:  # closed again in the opposite order, whatever happens
        outlet = opened.enter_context(Outlet(reached))  # its process starts while models load
        engine = open_engine(bundle, chosen.backend, chosen.threads, chosen.precision, chosen.engine, chosen.trust)
        opened.callback(engine.close)
        spec = source_of(given.source, given.source_from)
        source = open_source(spec, fast=given.fast, mirror=given.mirror, fps=given.fps, seed=given.seed)
        opened.callback(source.close)
        outlet.open()
        reporter = Reporter(to, bundle, engine.backend, source.info, engine.precision, outlet)
        opened.callback(reporter.close)
        skeletons = source.info.skeletons
        pose: FindsPoses = PassThrough() if skeletons else MediaPipePose()
        persons = chosen.persons or (MOST_PERSONS if skeletons else 1)
        terminal = Terminal(console, bundle, source.info, outputs.quiet, outputs.show and not outputs.headless)
        terminal.opening(reporter.address, engine.backend, engine.why)
        if outlet.control:
            terminal.say(f"control on {outlet.control}")
        if persons > 1 and not skeletons:
            terminal.say(f"MediaPipe follows one person in pictures; --persons {persons} changes nothing here")
        if outputs.wait_subscriber:
            reporter.wait_for_subscriber(outputs.wait_subscriber, stopped=lambda: stop.code is not None)

        def rebuild(folder: Path) -> tuple[Bundle, Pipeline, Engine]:
            other = load_bundle(folder)
            fresh = open_engine(other, chosen.backend, chosen.threads, chosen.precision)  # --engine is another model's
            return other, make_pipeline(pose, other, fresh, persons), fresh

        pipeline = make_pipeline(pose, bundle, engine, persons)
        line = Line(source, pipeline, engine, reporter, terminal, stop, rebuild)
        opened.callback(line.close)
        return line.run(given.duration, waits=source.info.live or spec == "-")


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "realtime.run", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
