"""What the line tells: events, status, heartbeats, poses and scores; to the bus, a file and a recording."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from realtime.bundle import Bundle
from realtime.bus import Numbers, Publisher
from realtime.clock import Clock
from realtime.errors import LineError, UsageError
from realtime.feed import SourceInfo
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
from realtime.pipeline import Step
from realtime.recording import RecordingWriter, partial_of
from realtime.resample import RESET_GAP_NS
from realtime.schema import Event, Pose, State, Window
from realtime.scoring import Engine
from realtime.skeleton import KINECT_V2_25, LAYOUTS
from realtime.wire import action_event, moment, pose_message, scores_message, span_of, track_of

BREATH_S = 0.2  # how often a wait looks whether it is to stop


@dataclass(frozen=True)
class Outputs:
    """Where to tell. publish: bus address, None for no bus; events: JSON lines; record: an MCAP file of skeletons.

    poses, scores: also publish every frame's poses, every window's probabilities.
    """

    publish: str | None = None
    events: Path | None = None
    record: Path | None = None
    poses: bool = False
    scores: bool = False


class Reporter:
    """Turns what the line decides into messages and sends them. Close it to finish its files.

    A file that cannot be written raises LineError once, when everything else of that step was told; it is left
    alone from then on, so the ends that follow still reach the bus.
    """

    def __init__(
        self, outputs: Outputs, bundle: Bundle, backend: str, info: SourceInfo, precision: str = "fp32",
        together: tuple[Bundle, Engine] | None = None,
    ) -> None:  # fmt: skip
        """together: the bundle of what two people do, and what runs it."""
        self._outputs, self._info, self._classes = outputs, info, bundle.classes
        self._bundle, self._fps = bundle, bundle.fps
        self._clock, self._begun = Clock.now(), False
        self._numbers = Numbers()
        self._source = Source(id=info.id, kind=info.kind, width=info.width, height=info.height, fps=info.fps)
        self._actions = _actions(bundle)
        self._model, self._together = _model(bundle, backend, precision), together
        self._pair_actions = _actions(together[0]) if together else {}
        self._people: dict[int, tuple[Pose, int]] = {}  # track -> newest pose, capture time of the first
        self._windows: dict[tuple[int, int | None], Window] = {}  # track and, of a pair, partner -> newest
        self._failure: LineError | None = None
        self._stack = ExitStack()
        with ExitStack() as opening:  # what was opened before one fails is closed again
            self._bus = opening.enter_context(Publisher(outputs.publish)) if outputs.publish else None
            self._events = opening.enter_context(_EventFile(outputs.events)) if outputs.events else None
            self._recording = opening.enter_context(_recording(outputs.record)) if outputs.record else None
            self._stack = opening.pop_all()

    @property
    def address(self) -> str | None:
        """Where subscribers connect."""
        return self._bus.address if self._bus else None

    def wait_for_subscriber(self, timeout_s: float, stopped: Callable[[], bool] = lambda: False) -> None:
        """Waits until somebody subscribed or `stopped` says true; UsageError where nobody comes."""
        deadline = time.monotonic() + timeout_s
        while self._bus is not None and not stopped():
            left_s = deadline - time.monotonic()
            if self._bus.wait_for_subscriber(min(max(left_s, 0.0), BREATH_S)):
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
        if self._recording is not None or self._outputs.poses:
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
        self._raise_failure()
        return told

    def events(self, events: Sequence[Event]) -> list[ActionEvent]:
        """Tells events that no frame decided: the ends at closing."""
        told = [self._tell(event, Latency()) for event in events]
        self._raise_failure()
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

    def status(self, state: State, captured_ns: int, reason: str | None = None, track: int | None = None) -> None:
        """Tells a change of the source's state."""
        self._publish(
            Status(
                session=self._numbers.session, seq=self._numbers.take("status"), source=self._info.id,
                time=moment(captured_ns, self._clock), state=state,
                reason=reason, track=track, backend=self._model.backend if state == "online" else None,
            )
        )  # fmt: skip

    def heartbeat(self, reading: Reading, drops: int, refused: int, open_events: Sequence[Event], persons: int) -> None:
        """Tells that the line is alive, and how fast."""
        self._publish(
            Heartbeat(
                session=self._numbers.session, seq=self._numbers.take("heartbeat"), source=self._info.id,
                time=moment(time.monotonic_ns(), self._clock), fps=round(reading.fps, 2),
                frame_age_ms=_percentiles(reading.frame_age_ms) if reading.frame_age_ms else None,
                drops=drops, refused=refused,
                stage_ms={name: _percentiles(pair) for name, pair in reading.stage_ms.items()},
                open_events=tuple(OpenEvent(id=e.id, track=e.track, action=e.action) for e in open_events),
                persons=persons, next_seq=self._numbers.next,
            )
        )  # fmt: skip

    def close(self) -> None:
        """Lets the last messages leave and finishes the files."""
        self._stack.close()

    def _forget(self, now_ns: int) -> None:
        """Drops people who left before they had a window: the window stage never tells them as lost."""
        for track in [t for t, (pose, _) in self._people.items() if abs(now_ns - pose.captured_ns) > RESET_GAP_NS]:
            del self._people[track]

    def _raise_failure(self) -> None:
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
                with _disk(self._outputs.record):
                    self._recording.write(message)
            except LineError as error:
                self._recording, self._failure = None, error
        if self._outputs.poses:
            self._publish(message)

    def _tell(self, event: Event, latency: Latency) -> ActionEvent:
        seen, window = self._people.get(event.track), self._windows.get((event.track, event.partner))
        action, model = self._by(event)
        message = action_event(
            event, session=self._numbers.session, seq=self._numbers.take("action"), source=self._source,
            action=action, model=model, clock=self._clock, latency=latency,
            track=track_of(seen[0], (event.decided_ns - seen[1]) / 1e9, event.partner) if seen else None,
            window=span_of(window, self._clock, self._fps) if window else None,
        )  # fmt: skip
        payload = self._publish(message)
        if self._events is not None:
            try:
                with _disk(self._outputs.events):
                    self._events.write(payload + b"\n")
            except LineError as error:
                self._events, self._failure = None, error
        return message

    def _by(self, event: Event) -> tuple[Action, Model]:
        """The action and the model that an event speaks of: of one person's, or of a pair's."""
        if event.partner is None or self._together is None:
            return self._actions[event.action], self._model
        bundle, engine = self._together  # asked each time: a GPU that fails is replaced by the CPU
        return self._pair_actions[event.action], _model(bundle, engine.backend, engine.precision)

    def _publish(self, message: AnyMessage) -> bytes:
        return self._bus.publish(message) if self._bus is not None else encode(message)


def _actions(bundle: Bundle) -> dict[str, Action]:
    return {a.id: Action(id=a.id, name=a.name, label_set=bundle.name) for a in bundle.actions}


def _model(bundle: Bundle, backend: str, precision: str) -> Model:
    graph = bundle.graphs.get(precision, bundle.graphs["fp32"])  # an engine may be of a graph made on this machine
    return Model(
        name=bundle.name, sha256=bundle.files[graph.file][0], backend=backend, window=bundle.window,
        stride=bundle.stride, precision=precision,  # type: ignore[arg-type]
    )  # fmt: skip


@contextmanager
def _disk(path: Path | None) -> Iterator[None]:
    """Turns a failing write to a file of ours into one clear line."""
    try:
        yield
    except OSError as error:
        raise LineError(f"cannot write {path}: {error.strerror}; free some space or name another file") from error


def _percentiles(pair: tuple[float, float]) -> Percentiles:
    return Percentiles(p50=round(pair[0], 3), p95=round(pair[1], 3))


@contextmanager
def _recording(path: Path) -> Iterator[RecordingWriter]:
    """A recording; LineError where it cannot be finished, and then it stays NAME.partial.

    UsageError where there is one already, finished or left by a crash: nothing is ever overwritten.
    """
    if path.is_dir():  # noticed only at the end otherwise
        raise UsageError(f"cannot record to {path}: it is a folder; name a file")
    for taken in (path, partial_of(path)):
        if os.path.lexists(taken):
            raise UsageError(
                f"cannot record to {path}: {taken} is there and would be lost; move it or name another file"
            )
    with _disk(path), RecordingWriter(path) as writer:
        yield writer


class _EventFile:
    """A file that events are added to, unbuffered; each line is whole or absent."""

    def __init__(self, path: Path) -> None:
        """UsageError where it cannot be opened for writing."""
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise UsageError(
                f"cannot write events to {path}: {error.strerror}; name a file that can be written"
            ) from error

    def write(self, line: bytes) -> None:
        """Adds one line; OSError where it does not fit, and then nothing of it is there."""
        size, left = os.fstat(self._file.fileno()).st_size, line
        try:
            while left:  # a disk that gets full takes a part first
                left = left[self._file.write(left) :]
        except OSError:
            if len(left) < len(line):
                with suppress(OSError):  # a pipe takes nothing back
                    self._file.truncate(size)
            raise

    def __enter__(self) -> _EventFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
