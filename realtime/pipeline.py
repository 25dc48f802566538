"""The line: frame -> poses -> windows -> scores -> events, one straight step per frame."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from realtime.decoder import Decoder
from realtime.schema import EndReason, Event, Frame, Pose, Scores, Window
from realtime.window import WindowBuffer

STAGES = ("pose", "window", "model", "decoder")


class FindsPoses(Protocol):
    """The pose stage.

    refused: frames that were no good; gated: finds that are not believed a body; crowded: bodies beyond those followed.
    """

    @property
    def refused(self) -> int:
        """Frames that were no good, so far."""

    @property
    def gated(self) -> int:
        """Finds that were not believed a body, so far."""

    @property
    def crowded(self) -> int:
        """A counter like the others; a stage may count it elsewhere."""

    def find(self, frame: Frame) -> tuple[Pose, ...]:
        """The poses in this frame, none where nobody is seen or the frame is no good."""

    def reset(self) -> None:
        """Forgets whom it followed: the next frame has nothing to do with the last one. Track ids are not reused."""

    def close(self) -> None:
        """Gives back what the stage holds. May be called twice."""


class Around:
    """A pose stage around another, whose counters it passes on and which it resets and closes. `find` is its own."""

    def __init__(self, inner: FindsPoses) -> None:
        self._inner = inner

    @property
    def refused(self) -> int:
        """As of the stage inside."""
        return self._inner.refused

    @property
    def gated(self) -> int:
        """As of the stage inside."""
        return self._inner.gated

    @property
    def crowded(self) -> int:
        """As of the stage inside."""
        return self._inner.crowded

    def reset(self) -> None:
        """As the stage inside."""
        self._inner.reset()

    def close(self) -> None:
        """As the stage inside. May be called twice."""
        self._inner.close()


class ScoresWindows(Protocol):
    """What the line needs of an engine."""

    def score(self, windows: Sequence[Window]) -> list[Scores]:
        """One Scores for each window, in order; all windows go through in one batch."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one frame brought about. stage_ns: time spent in each of STAGES. lost: tracks that ended.

    pairs: windows of two people; their events are among the events, their time is the model's.
    """

    frame: Frame
    poses: tuple[Pose, ...]
    windows: list[Window]
    scores: list[Scores]
    events: list[Event]
    lost: list[int]
    stage_ns: tuple[int, int, int, int]
    pairs: tuple[Window, ...] = ()


class WatchesPairs(Protocol):
    """What two people do together: a model beside the first (realtime/interactions.py)."""

    def step(
        self, captured_ns: int, windows: Sequence[Window], lost: Sequence[int]
    ) -> tuple[list[Window], list[Event]]:
        """The windows of the pairs that are due with these of single people, and the events they bring about."""

    @property
    def open_events(self) -> tuple[Event, ...]:
        """Events that have started and not ended."""

    @property
    def disabled(self) -> frozenset[str]:
        """The actions that do not start."""

    def enable(self, action: str) -> None:
        """Lets an action start again. ValueError where there is none of the name."""

    def disable(self, action: str, captured_ns: int) -> list[Event]:
        """From now on the action does not start; the ends of what is open of it. ValueError as in `enable`."""

    def close(self, captured_ns: int, reason: EndReason) -> list[Event]:
        """Ends every open event."""


class Pipeline:
    """Finished stages, joined. Not thread-safe; one per source."""

    def __init__(
        self,
        pose: FindsPoses,
        windows: WindowBuffer,
        engine: ScoresWindows,
        decoder: Decoder,
        interactions: WatchesPairs | None = None,
    ) -> None:
        self._pose, self._windows, self._engine, self._decoder = pose, windows, engine, decoder
        self._interactions = interactions

    def step(self, frame: Frame) -> Step:
        """Takes one frame through the whole line."""
        begin = time.perf_counter_ns()
        poses = self._pose.find(frame)
        posed = time.perf_counter_ns()
        windows = self._windows.push(frame.index, frame.captured_ns, poses)
        lost = self._windows.lost()
        windowed = time.perf_counter_ns()
        scores = self._engine.score(windows) if windows else []
        pairs, done_together = self._together(frame.captured_ns, windows, lost)
        scored = time.perf_counter_ns()
        events = [event for track in lost for event in self._decoder.close(frame.captured_ns, "track_lost", track)]
        events += [*self._decoder.decide(scores), *done_together]
        decided = time.perf_counter_ns()
        spent = (posed - begin, windowed - posed, scored - windowed, decided - scored)
        return Step(frame, poses, windows, scores, events, lost, spent, tuple(pairs))

    def _together(self, now_ns: int, windows: list[Window], lost: list[int]) -> tuple[list[Window], list[Event]]:
        return self._interactions.step(now_ns, windows, lost) if self._interactions is not None else ([], [])

    @property
    def open_events(self) -> tuple[Event, ...]:
        """Events that have started and not ended."""
        return self._decoder.open + (self._interactions.open_events if self._interactions is not None else ())

    @property
    def refused(self) -> int:
        """Pictures turned away by the pose stage, joints and poses by the window stage."""
        return self._pose.refused + self._windows.refused + self._windows.late + self._windows.crowded

    @property
    def crowded(self) -> int:
        """Poses of people beyond those that are followed."""
        return self._windows.crowded + self._pose.crowded

    @property
    def most_persons(self) -> int:
        """How many people are followed at most."""
        return self._windows.max_tracks

    @property
    def gated(self) -> int:
        """What looked like a person and was not believed to be one."""
        return self._pose.gated

    @property
    def disabled(self) -> frozenset[str]:
        """The actions that do not start."""
        return self._decoder.disabled | (self._interactions.disabled if self._interactions is not None else frozenset())

    def enable(self, action: str) -> None:
        """Lets an action start again. ValueError where there is none of the name."""
        self._deciding(action).enable(action)

    def disable(self, action: str, captured_ns: int) -> list[Event]:
        """From now on the action does not start; the ends of what is open of it. ValueError as in `enable`."""
        return self._deciding(action).disable(action, captured_ns)

    def _deciding(self, action: str) -> Decoder | WatchesPairs:
        """Who decides about an action: of one person, or of two where only that knows it."""
        alone = self._interactions is None or action in self._decoder.classes
        return self._decoder if alone or self._interactions is None else self._interactions

    def reset(self, captured_ns: int, reason: EndReason) -> tuple[list[Event], list[int]]:
        """Begins anew after a break in the frames: the ends of what was open, and the tracks that were followed."""
        self._pose.reset()
        return self._ended(captured_ns, reason), self._windows.reset()

    def close(self, captured_ns: int, reason: EndReason) -> list[Event]:
        """Ends every open event and frees the pose stage."""
        self._pose.close()
        return self._ended(captured_ns, reason)

    def _ended(self, captured_ns: int, reason: EndReason) -> list[Event]:
        together = self._interactions.close(captured_ns, reason) if self._interactions is not None else []
        return self._decoder.close(captured_ns, reason) + together
