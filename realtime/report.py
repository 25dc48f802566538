"""What the line tells: events, status, heartbeats, poses and scores; to the bus, a file and a recording."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from realtime.bundle import Action as ActionOfBundle
from realtime.bundle import Bundle
from realtime.bus import Numbers
from realtime.clock import Clock
from realtime.errors import LineError, UsageError
from realtime.feed import SourceInfo
from realtime.journal import LineFile
from realtime.memory import resident_bytes
from realtime.messages import (
    Action,
    ActionEvent,
    AnyMessage,
    Heartbeat,
    Latency,
    Model,
    OpenEvent,
    Percentiles,
    Source,
    Status,
    encode,
)  # fmt: skip
from realtime.meter import Reading
from realtime.outlet import Outlet, OutletSpec, Request
from realtime.pipeline import Step
from realtime.resample import RESET_GAP_NS
from realtime.schema import Event, Pose, State, Window
from realtime.scoring import Engine
from realtime.secrets import scrub
from realtime.skeleton import KINECT_V2_25, LAYOUTS
from realtime.thresholds import Thresholds
from realtime.wire import action_event, moment, pose_message, scores_message, span_of, track_of
from realtime.written import disk, recording_to

BREATH_S = 0.2  # how often a wait looks whether it is to stop

log = logging.getLogger(__name__)


class Tells(Protocol):
    """Where messages leave the line; realtime.outlet.Outlet, or one of a test."""

    address: str | None

    @property
    def watched(self) -> bool:
        """Whether a page wants every pose."""

    def publish(self, message: AnyMessage, *, to_bus: bool = True) -> bytes:
        """Sends one message and returns its payload."""

    def tend(self) -> list[Request]:
        """Looks after the sockets."""

    def answer(self, request: Request, reply: dict[str, Any]) -> None:
        """Answers a control request."""

    def troubles(self) -> list[str]:
        """What went wrong and is to be told."""

    def wait_for_subscriber(self, timeout_s: float) -> bool:
        """Whether somebody subscribed within the time."""


@dataclass(frozen=True)
class Outputs:
    """Where to tell. publish: bus address, None for no bus; events: JSON lines; record: an MCAP file of skeletons.

    poses, scores: also publish every frame's poses, every window's probabilities. marks: of feed.MARKS.
    """

    publish: str | None = None
    events: Path | None = None
    record: Path | None = None
    poses: bool = False
    scores: bool = False
    marks: frozenset[str] = frozenset()


class Reporter:
    """Turns what the line decides into messages and sends them. Close it to finish its files.

    A file that cannot be written is left alone from then on, and the rest goes on being told. Of a live source that
    is one status message and one line here, and `failures` says it again at the end; of a file it raises LineError
    once, when everything else of that step was told. A journal that fails never ends a line.
    """

    def __init__(
        self,
        outputs: Outputs,
        bundle: Bundle,
        backend: str,
        info: SourceInfo,
        precision: str = "fp32",
        outlet: Tells | None = None,
        together: tuple[Bundle, Engine] | None = None,
        thresholds: Thresholds | None = None,
    ) -> None:
        """outlet: where to publish, closed by whoever made it; without one, `outputs.publish` is opened here.

        together: the bundle of what two people do, and what runs it. thresholds: those of this site, which the bundle
        decides by.
        """
        self._outputs, self._info, self._classes = outputs, info, bundle.classes
        self._bundle, self._fps = bundle, bundle.fps
        self._clock, self._begun = Clock.now(), False
        self._numbers = Numbers()
        self._source = Source(id=info.id, kind=info.kind, width=info.width, height=info.height, fps=info.fps)
        self._actions = _actions(bundle)
        self._model, self._together = _model(bundle, backend, precision), together
        self._thresholds = thresholds
        self._pair_actions = _actions(together[0]) if together else {}
        self._people: dict[int, tuple[Pose, int]] = {}  # track -> newest pose, capture time of the first
        self._windows: dict[tuple[int, int | None], Window] = {}  # track and, of a pair, partner -> newest
        self._state: State | None = None
        self._begun_ns = time.monotonic_ns()
        self._last_beat: dict[str, Any] | None = None
        self._failure: LineError | None = None
        self._troubles: list[str] = []
        self.failures: list[str] = []  # what could not be written, for the end of the program
        self._stack = ExitStack()
        with ExitStack() as opening:  # what was opened before one fails is closed again
            self._outlet: Tells | None = outlet
            if outlet is None and outputs.publish:
                own = opening.enter_context(Outlet(OutletSpec(outputs.publish)))
                own.open()
                self._outlet = own
            self._events = opening.enter_context(LineFile(outputs.events, "events")) if outputs.events else None
            to = outputs.record
            self._recording = opening.enter_context(recording_to(to, outputs.marks)) if to else None
            self._stack = opening.pop_all()

    @property
    def address(self) -> str | None:
        """Where subscribers connect."""
        return self._outlet.address if self._outlet else None

    def wait_for_subscriber(self, timeout_s: float, stopped: Callable[[], bool] = lambda: False) -> None:
        """Waits until somebody subscribed or `stopped` says true; UsageError where nobody comes."""
        deadline = time.monotonic() + timeout_s
        while self._outlet is not None and self.address is not None and not stopped():
            left_s = deadline - time.monotonic()
            if self._outlet.wait_for_subscriber(min(max(left_s, 0.0), BREATH_S)):
                return
            if left_s <= 0:
                raise UsageError(
                    f"no subscriber came to {self.address} within {timeout_s:g} s; start it, then run again"
                )

    def step(self, step: Step) -> list[ActionEvent]:
        """Tells what one frame brought about; returns the events told."""
        frame, age_ns = step.frame, time.monotonic_ns() - step.frame.captured_ns
        if not self._begun:  # windows are told in seconds since the first frame, which is media time of a file
            self._clock, self._begun = self._clock.zeroed(frame.captured_ns), True
        for pose in step.poses:
            self._people[pose.track] = (pose, self._people.get(pose.track, (pose, frame.captured_ns))[1])
        for window in (*step.windows, *step.pairs):
            self._windows[window.track, window.partner] = window
        if self._recording is not None or self._outputs.poses or (self._outlet and self._outlet.watched):
            self._tell_poses(step)
        if self._outputs.scores:
            for scores in step.scores:
                self._publish(
                    scores_message(
                        scores, classes=self._classes, session=self._numbers.session,
                        seq=self._numbers.take("scores"), source=self._info.id, clock=self._clock,
                    )
                )  # fmt: skip
        pose_ns, _, model_ns, _ = step.stage_ns
        latency = Latency(
            capture_to_publish=max(0, time.monotonic_ns() - frame.captured_ns) / 1e6 if self._info.live else None,
            pose=pose_ns / 1e6,
            model=model_ns / 1e6,
            queue=max(0, age_ns - sum(step.stage_ns)) / 1e6 if self._info.live else None,
        )
        told = [self._tell(event, latency) for event in step.events]
        self.reset(step.lost, frame.captured_ns, "the person was not seen for more than 0.5 s")
        self._forget(frame.captured_ns)
        self._settle()
        return told

    def events(self, events: Sequence[Event]) -> list[ActionEvent]:
        """Tells events that no frame decided: the ends at closing."""
        told = [self._tell(event, Latency()) for event in events]
        self._settle()
        return told

    def reset(self, tracks: Sequence[int], captured_ns: int, reason: str) -> None:
        """Tells that these people's windows begin anew, and why."""
        for track in tracks:
            self._people.pop(track, None)
            self._windows = {key: window for key, window in self._windows.items() if track not in key}
            self.status("window_reset", captured_ns, reason, track)

    def engine_changed(self, backend: str, precision: str) -> None:
        """From now on every message names this engine."""
        self._model = _model(self._bundle, backend, precision)

    @property
    def bundle(self) -> Bundle:
        """What messages are told of."""
        return self._bundle

    @property
    def rules(self) -> tuple[ActionOfBundle, ...]:
        """Every action that may be told, of one person and of two."""
        return self._bundle.actions + self.pair_rules

    @property
    def pair_rules(self) -> tuple[ActionOfBundle, ...]:
        """The actions of two people."""
        return self._together[0].actions if self._together else ()

    def bundle_changed(self, bundle: Bundle, backend: str, precision: str) -> None:
        """From now on every message is of this bundle."""
        self._bundle, self._classes, self._fps = bundle, bundle.classes, bundle.fps
        self._actions = _actions(bundle)
        self.engine_changed(backend, precision)

    def status(self, state: State, captured_ns: int, reason: str | None = None, track: int | None = None) -> None:
        """Tells a change of the source's state. A state as told before says that only the reason is new."""
        if state != "window_reset":
            self._state = state
        if reason is not None:  # paths in it may be no text
            reason = scrub(reason).encode("utf-8", "replace").decode()
        silent = state in ("window_reset", "ended", "offline")  # of what runs the model
        self._publish(
            Status(
                session=self._numbers.session, seq=self._numbers.take("status"), source=self._info.id,
                time=moment(captured_ns, self._clock), state=state, reason=reason, track=track,
                backend=None if silent else self._model.backend,
            )
        )  # fmt: skip

    def remark(self, captured_ns: int, reason: str) -> None:
        """Tells something that changes nothing about the source's state."""
        self.status(self._state or "online", captured_ns, reason)

    def heartbeat(
        self,
        reading: Reading,
        drops: int,
        refused: int,
        open_events: Sequence[Event],
        persons: int,
        reconnects: int = 0,
    ) -> None:
        """Tells that the line is alive, and how fast."""
        self._clock, said = self._clock.checked()
        if said is not None:
            self.remark(time.monotonic_ns(), said)
        self._last_beat = {
            "frame_age_ms": _percentiles(reading.frame_age_ms) if reading.frame_age_ms else None,
            "drops": drops, "refused": refused, "reconnects": reconnects,
            "stage_ms": {name: _percentiles(pair) for name, pair in reading.stage_ms.items()},
        }  # fmt: skip
        opened = tuple(OpenEvent(id=e.id, track=e.track, action=e.action) for e in open_events)
        self._beat(fps=round(reading.fps, 2), open_events=opened, persons=persons, **self._last_beat)

    def _beat(self, **fields: Any) -> None:
        seq = self._numbers.take("heartbeat")
        following = self._numbers.next
        if not self._outputs.poses:  # numbered for a recording or a page; no subscriber misses them
            following.pop("pose", None)
        self._publish(
            Heartbeat(
                session=self._numbers.session, seq=seq, source=self._info.id, next_seq=following, state=self._state,
                time=moment(time.monotonic_ns(), self._clock), memory_mb=_memory_mb(),
                uptime_s=round((time.monotonic_ns() - self._begun_ns) / 1e9, 1), **fields,
            )
        )  # fmt: skip

    def close(self) -> None:
        """Tells the numbers once more, so that a lost last message shows; then finishes the files."""
        last, self._last_beat = self._last_beat, None
        if last is not None:
            self._beat(fps=None, open_events=(), persons=0, **last)
        self._stack.close()

    def _forget(self, now_ns: int) -> None:
        """Drops people who left before they had a window: the window stage never tells them as lost."""
        for track in [t for t, (pose, _) in self._people.items() if abs(now_ns - pose.captured_ns) > RESET_GAP_NS]:
            del self._people[track]

    def tend(self) -> list[Request]:
        """Looks after the outlet, at least every 0.2 s; returns control requests, to be given to `answer`."""
        requests = self._outlet.tend() if self._outlet else []
        self._settle()
        return requests

    def answer(self, request: Request, reply: dict[str, Any]) -> None:
        """Answers a control request."""
        if self._outlet is not None:
            self._outlet.answer(request, reply)

    def _failed(self, error: LineError) -> None:
        """A file of ours cannot be written: the end of a file's line, and a word about a live one."""
        if self._info.live:
            self._troubles.append(str(error))
        else:
            self._failure = error

    def _settle(self) -> None:
        """Tells what went wrong since the last time, or raises it."""
        self._troubles += self._outlet.troubles() if self._outlet else []
        while self._troubles:
            trouble = self._troubles.pop(0)
            self.failures.append(trouble)
            log.warning("%s", trouble)
            self.remark(time.monotonic_ns(), trouble)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _tell_poses(self, step: Step) -> None:
        layout = step.poses[0].layout if step.poses else LAYOUTS[self._info.layout or KINECT_V2_25.name]
        message = pose_message(
            step.poses, frame=step.frame.index, captured_ns=step.frame.captured_ns, layout=layout,
            session=self._numbers.session, seq=self._numbers.take("pose"), source=self._info.id, clock=self._clock,
        )  # fmt: skip
        if self._recording is not None:
            try:
                with disk(self._outputs.record):
                    self._recording.write(message)
            except LineError as error:
                self._recording = None
                self._failed(error)
        if self._outlet is not None and (self._outputs.poses or self._outlet.watched):
            self._outlet.publish(message, to_bus=self._outputs.poses)

    def _tell(self, event: Event, latency: Latency) -> ActionEvent:
        seen, window = self._people.get(event.track), self._windows.get((event.track, event.partner))
        action, model = self._by(event)
        here = None if self._thresholds is None or event.partner is not None else self._thresholds.actions[event.action]
        message = action_event(
            event, session=self._numbers.session, seq=self._numbers.take("action"), source=self._source,
            action=action, model=model, clock=self._clock, latency=latency,
            track=track_of(seen[0], (event.decided_ns - seen[1]) / 1e9, event.partner) if seen else None,
            window=span_of(window, self._clock, self._fps) if window else None,
            calibrated=here is not None, far_per_h=None if here is None else here.far_per_h,
        )  # fmt: skip
        payload = self._publish(message)
        if self._events is not None:
            try:
                with disk(self._outputs.events):
                    self._events.write(payload + b"\n")
            except LineError as error:
                self._events = None
                self._failed(error)
        return message

    def _by(self, event: Event) -> tuple[Action, Model]:
        """The action and the model that an event speaks of: of one person's, or of a pair's."""
        if event.partner is None or self._together is None:
            return self._actions[event.action], self._model
        bundle, engine = self._together  # asked each time: a GPU that fails is replaced by the CPU
        return self._pair_actions[event.action], _model(bundle, engine.backend, engine.precision)

    def _publish(self, message: AnyMessage) -> bytes:
        return self._outlet.publish(message) if self._outlet is not None else encode(message)


def _actions(bundle: Bundle) -> dict[str, Action]:
    return {a.id: Action(id=a.id, name=a.name, label_set=bundle.name) for a in bundle.actions}


def _model(bundle: Bundle, backend: str, precision: str) -> Model:
    graph = bundle.graphs.get(precision, bundle.graphs["fp32"])  # an engine may be of a graph made on this machine
    return Model(
        name=bundle.name, sha256=bundle.files[graph.file][0], backend=backend, window=bundle.window,
        stride=bundle.stride, precision=precision,  # type: ignore[arg-type]
    )  # fmt: skip


def _memory_mb() -> float | None:
    resident = resident_bytes()
    return None if resident is None else round(resident / 1e6, 1)


def _percentiles(pair: tuple[float, float]) -> Percentiles:
    return Percentiles(p50=round(pair[0], 3), p95=round(pair[1], 3))
