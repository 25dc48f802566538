"""The line as one loop: frame -> poses -> windows -> scores -> events, and what it decides is told at once."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from realtime.bundle import Bundle
from realtime.errors import LineError, SourceError
from realtime.feed import Change
from realtime.meter import Meter
from realtime.notify import Notifier
from realtime.outlet import Request
from realtime.pipeline import Pipeline, Step
from realtime.report import Reporter
from realtime.schema import SECOND_NS, EndReason, Frame, State
from realtime.scoring import Engine
from realtime.source import Source
from realtime.stop import Stop
from realtime.terminal import Terminal

CROWD_S = 60.0  # how often it is said that more people are in view than are followed


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
    """A source, the pipeline with its engine, and its reporter, run as one loop.

    figures: of the last second, as JSON values; now_ns: capture time of the newest frame.
    """

    def __init__(
        self,
        source: Source,
        pipeline: Pipeline,
        engine: Engine,
        reporter: Reporter,
        terminal: Terminal,
        stop: Stop,
        notifier: Notifier | None = None,
        beside: Sequence[Engine] = (),
    ) -> None:
        """beside: engines of other models in the pipeline; where one falls back to the CPU, that is told too."""
        self.source, self.pipeline, self.engine, self.reporter = source, pipeline, engine, reporter
        self.terminal, self.stop, self._notifier = terminal, stop, notifier or Notifier()
        self.figures: dict[str, Any] = {}
        self.now_ns = time.monotonic_ns()
        self.meter = Meter()
        self._beside = tuple(beside)
        self._backends = [one.backend for one in (engine, *self._beside)]
        self._asked: deque[Request] = deque()
        self._refused = 0  # turned away by pipelines that were replaced
        self._persons: tuple[int, int] = (0, 0)
        self._crowded: tuple[int, float] = (0, 0.0)  # poses turned away so far, and when that may be said again

    def run(
        self, duration_s: float | None, waits: bool = False, answer: Callable[[Any], dict[str, Any]] | None = None
    ) -> int:
        """Runs to the end of the source or of the time, or until stopped; returns the exit code.

        waits: the source's silence counts as its time. answer: to requests of the control socket, between two frames.
        """
        self.stop.running()
        self._notifier.ready(f"{self.source.info.id} on {self._backends[0]}")
        self.reporter.status("online", self.now_ns)
        try:
            reason = self._play(Deadline(duration_s, waits), answer)
        except LineError as error:
            self._finish("source_lost" if isinstance(error, SourceError) else "shutdown", "offline", str(error))
            raise
        except BaseException as error:
            # A pipe breaks when nobody reads any more what we say.
            fault = isinstance(error, Exception) and not isinstance(error, BrokenPipeError)
            self._finish("shutdown", "offline", "internal error" if fault else "interrupted")
            raise
        self._finish(reason, "ended", None)
        return self.stop.code or 0

    def exchange(self, bundle: Bundle, pipeline: Pipeline, engine: Engine) -> None:
        """Goes on with another bundle's pipeline and engine, and the same pose stage; what was open is ended."""
        ended, tracks = self.pipeline.reset(self.now_ns, "shutdown")
        self.terminal.events(self.reporter.events(ended))
        self.reporter.reset(tracks, self.now_ns, f"bundle {bundle.name} was loaded")
        self._refused += self.pipeline.refused - pipeline.refused
        self.engine.close()
        self.pipeline, self.engine, self._backends[0] = pipeline, engine, engine.backend
        self._crowded = (pipeline.crowded, self._crowded[1])
        self.reporter.bundle_changed(bundle, engine.backend, engine.precision)
        self.terminal.bundle_changed(bundle)

    def close(self) -> None:
        """Frees the engine that runs now."""
        self.engine.close()

    def _play(self, deadline: Deadline, answer: Callable[[Any], dict[str, Any]] | None) -> EndReason:
        """Takes frame after frame; returns why there are no more."""
        for item in self.source:
            frame = item if isinstance(item, Frame) else None
            if deadline.over(frame):
                return "shutdown"
            if frame is not None:
                self._take(self.pipeline.step(frame))
            elif isinstance(item, Change):
                self._turn(item)
            self._notifier.alive()
            self._beat(self.source.paced)
            self._tend(answer)
            if self.stop.code is not None or self.terminal.closed:
                break
        # Asked after the loop, because Ctrl-C ends the program that feeds us as well, and so the source.
        return "shutdown" if self.stop.code is not None or self.terminal.closed else "source_lost"

    def _tend(self, answer: Callable[[Any], dict[str, Any]] | None) -> None:
        """Looks after the outlet; of what was asked one thing is done between two frames, for it may take long."""
        self._asked += self.reporter.tend()
        if self._asked and answer is not None:
            self._notifier.alive(at_once=True)
            request = self._asked.popleft()
            self.reporter.answer(request, answer(request.body))

    def _take(self, step: Step) -> None:
        decided = time.perf_counter_ns()
        for number, engine in enumerate((self.engine, *self._beside)):
            if engine.backend != self._backends[number]:
                self._tell_engine(number, engine, step.frame.captured_ns)
        told = self.reporter.step(step)
        self.now_ns = step.frame.captured_ns
        self._persons = (len(step.poses), step.frame.index)
        spent = time.perf_counter_ns() - decided
        self.meter.add(step.stage_ns, spent, time.monotonic_ns() - step.frame.captured_ns)
        self.terminal.show(step, told, self.meter.fps)

    def _turn(self, change: Change) -> None:
        """The source's state changed: said, and where the frames broke off every window begins anew."""
        self.now_ns = max(self.now_ns, change.captured_ns)
        if change.reset is not None:
            ended, tracks = self.pipeline.reset(change.captured_ns, "source_lost")
            self.terminal.events(self.reporter.events(ended))
            self.reporter.reset(tracks, change.captured_ns, change.reset)
        self.reporter.status(change.state, change.captured_ns, change.reason)
        self.terminal.say(f"{self.source.info.id} {change.state}{': ' + change.reason if change.reason else ''}")

    def _tell_engine(self, number: int, engine: Engine, captured_ns: int) -> None:
        """The GPU failed and the CPU goes on: said before anything that the new engine decided."""
        self._backends[number] = engine.backend
        if not number:
            self.reporter.engine_changed(engine.backend, engine.precision)
        self.reporter.remark(captured_ns, engine.why)
        self.terminal.say(engine.why)

    def _beat(self, paced: bool) -> None:
        """Once a second, frames or not: the heartbeat."""
        if self.meter.seconds < 1.0:
            return
        reading = self.meter.read(paced)
        refused = self.source.refused + self.source.corrupt + self.pipeline.refused + self._refused
        persons = self._persons[0] if reading.fps else 0
        self.figures = {
            **asdict(reading),
            "drops": self.source.dropped,
            "refused": refused,
            "persons": persons,
            "reconnects": self.source.reconnects,
        }
        self.reporter.heartbeat(
            reading, self.source.dropped, refused, self.pipeline.open_events, persons, self.source.reconnects
        )
        self._warn_of_crowd()
        self._notifier.status(f"{reading.fps:.1f} fps, {persons} in view, {self.source.dropped} dropped")
        self.terminal.beat(reading, self.source.dropped, refused, persons, self.pipeline.gated)

    def _warn_of_crowd(self) -> None:
        """At most once a minute while more people are in view than are followed."""
        crowded, now = self.pipeline.crowded, time.monotonic()
        if crowded > self._crowded[0] and now >= self._crowded[1]:
            most = self.pipeline.most_persons
            reason = f"more people are in view than the {most} that are followed; --persons N follows more"
            self.reporter.remark(self.now_ns, reason)
            self.terminal.say(reason)
            self._crowded = (crowded, now + CROWD_S)

    def _finish(self, reason: EndReason, state: State, why: str | None) -> None:
        """Ends every open event, tells the last state and frees everything; also after an error."""
        self._notifier.stopping(why or state)
        try:
            try:
                told = self.reporter.events(self.pipeline.close(self.now_ns, reason))
            finally:
                self.reporter.status(state, self.now_ns, why)
            self.terminal.events(told)
            self.terminal.sum_up()
        finally:
            self.terminal.close()
