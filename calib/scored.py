"""Recordings scored once: every window's answer is kept, so that many thresholds can be tried without the model.

What is played here is what the device plays: its window buffer, its engine, its decoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from realtime.bundle import Bundle
from realtime.pipeline import ScoresWindows
from realtime.recording import read_recording
from realtime.rejection import Rejection, prototypes_of, rejected
from realtime.run import make_decoder
from realtime.schema import SECOND_NS, Event, Frame, Pose, Scores, Window
from realtime.scoring import softmax
from realtime.window import WindowBuffer
from train.data.clip import Recording, Truth
from train.scoring import Detection
from train.vocabulary import action_of

BATCH = 64  # windows scored at once
MOST_PERSONS = 64
OUTSIDE = "outside: "  # stands before a label that the vocabulary has no word for
SEEN_GAP_NS = SECOND_NS // 2  # somebody counts as in sight between two poses nearer to each other than this


@dataclass(frozen=True)
class Step:
    """What the window stage gave of one frame that gave something: scores in order, and the tracks that ended."""

    captured_ns: int
    scores: list[Scores]
    lost: list[int]


@dataclass(frozen=True)
class Played:
    """One recording, its windows scored. Times in ns from its first frame.

    group: whose it is, for leaving people out. seen_ns: for how long somebody was in sight. truths: with the bundle's
    actions as labels, others behind `OUTSIDE`; None where nothing is labelled and no event is right. point_truth: they
    mark moments.
    """

    name: str
    group: str
    steps: list[Step]
    duration_ns: int
    seen_ns: int
    truths: tuple[Truth, ...] | None
    point_truth: bool

    @property
    def windows(self) -> int:
        """How many there are."""
        return sum(len(step.scores) for step in self.steps)


def play(bundle: Bundle, engine: ScoresWindows, frames: Iterable[Frame]) -> tuple[list[Step], int, int]:
    """Scores of every window of a recording with its ends of tracks, its length and the time somebody was in sight."""
    buffer = WindowBuffer(bundle.layout, bundle.window, bundle.fps, bundle.stride, max_tracks=MOST_PERSONS)
    steps: list[Step] = []
    waiting: list[tuple[int, Window]] = []  # number of the step, window
    first_ns = now_ns = seen_ns = 0
    seen_at: int | None = None

    def score() -> None:
        for (number, _), scores in zip(waiting, engine.score([window for _, window in waiting]), strict=True):
            steps[number].scores.append(scores)
        waiting.clear()

    for number, frame in enumerate(frames):
        if not number:
            first_ns = frame.captured_ns
        now_ns = frame.captured_ns - first_ns
        poses = tuple(replace(pose, captured_ns=now_ns) for pose in frame.poses or ())
        if poses:
            seen_ns += now_ns - seen_at if seen_at is not None and now_ns - seen_at <= SEEN_GAP_NS else 0
            seen_at = now_ns
        windows = buffer.push(frame.index, now_ns, poses)
        lost = buffer.lost()
        if windows or lost:
            waiting += [(len(steps), window) for window in windows]
            steps.append(Step(now_ns, [], lost))
        if len(waiting) >= BATCH:
            score()
    score()
    return steps, now_ns, seen_ns


def frames_of(recording: Recording) -> Iterator[Frame]:
    """A data set's recording as the line gets it: each body is a track."""
    for index, now_ns in enumerate(recording.times_ns.tolist()):
        yield Frame(
            index,
            now_ns,
            poses=tuple(
                Pose(
                    index, now_ns, body + 1, recording.layout,
                    recording.joints[index, body], recording.confidence[index, body],
                )
                for body in range(recording.joints.shape[1])
                if (recording.confidence[index, body] > 0).any()
            ),
        )  # fmt: skip


def play_labelled(bundle: Bundle, engine: ScoresWindows, recording: Recording) -> Played:
    """A data set's recording, scored."""
    actions = {action.id for action in bundle.actions}
    first_ns = int(recording.times_ns[0]) if len(recording.times_ns) else 0
    truths = []
    for truth in recording.truths:
        action = action_of(recording.data, truth.label)
        label = action if action in actions else f"{OUTSIDE}{truth.label}"
        truths.append(Truth(label, truth.start_ns - first_ns, truth.end_ns - first_ns))
    steps, duration_ns, seen_ns = play(bundle, engine, frames_of(recording))
    group = f"{recording.data} {recording.subject}"
    return Played(recording.name, group, steps, duration_ns, seen_ns, tuple(truths), recording.point_truth)


def play_nothing(bundle: Bundle, engine: ScoresWindows, path: Path) -> Played:
    """A recording of ordinary life, scored. Raises SourceError where it cannot be read."""
    steps, duration_ns, seen_ns = play(bundle, engine, read_recording(path))
    return Played(path.name, str(path.resolve()), steps, duration_ns, seen_ns, None, False)


def windows_of(bundle: Bundle, played: Iterable[Played]) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, K) and embeddings (N, D) of all windows, in order."""
    every = [scores for one in played for step in one.steps for scores in step.scores]
    if not every:
        return np.zeros((0, len(bundle.classes)), np.float32), np.zeros((0, 0), np.float32)
    embedding = [np.zeros(0, np.float32) if one.embedding is None else one.embedding for one in every]
    return np.stack([one.logits for one in every]), np.stack(embedding)


def tempered(bundle: Bundle, played: Played, rejection: Rejection | None = None) -> Played:
    """The recording with the probabilities of this bundle's temperature, and of a rule of rejection."""
    every = [scores for step in played.steps for scores in step.scores]
    if not every:
        return played
    probabilities = softmax(np.stack([one.logits for one in every]), bundle.temperature)
    every = [replace(one, probabilities=row) for one, row in zip(every, probabilities, strict=True)]
    if rejection is not None:
        prototypes = prototypes_of(bundle) if rejection.kind == "prototype" else None
        every = rejected(every, rejection, bundle.classes.index(bundle.nothing), prototypes)
    rest = iter(every)
    steps = [replace(step, scores=[next(rest) for _ in step.scores]) for step in played.steps]
    return replace(played, steps=steps)


def decide(bundle: Bundle, played: Played) -> list[Detection]:
    """The events of one recording by this bundle's thresholds, from the device's own decoder."""
    decoder = make_decoder(bundle, new_id=_counter())
    starts: dict[str, Event] = {}
    found: list[Detection] = []

    def take(events: Iterable[Event]) -> None:
        for event in events:
            if event.phase == "start":
                starts[event.id] = event
            elif event.phase == "end":
                first = starts.pop(event.id)
                end_ns = event.decided_ns if event.offset_ns is None else event.offset_ns
                found.append(Detection(first.action, first.onset_ns, end_ns, first.decided_ns))

    for step in played.steps:
        for track in step.lost:
            take(decoder.close(step.captured_ns, "track_lost", track))
        take(decoder.decide(step.scores))
    take(decoder.close(played.duration_ns, "source_lost"))
    return found


@dataclass(frozen=True)
class Part:
    """A stretch of a recording: its share of the time, and of the events those that begin in [low_ns, high_ns).

    It is decided as a whole all the same: an event across an edge is one event.
    """

    played: Played  # the whole, with this part's seen_ns
    low_ns: float = -math.inf
    high_ns: float = math.inf

    def own(self, found: Iterable[Detection]) -> list[Detection]:
        """Those of the recording's events that are this part's."""
        return [one for one in found if self.low_ns <= one.start_ns < self.high_ns]


def parts_of(played: Played, count: int) -> list[Part]:
    """An unlabelled recording in pieces of equal length; the time in sight goes by the windows in each."""
    if played.truths is not None or count < 2 or not played.windows:
        return [Part(played)]
    edges = [-math.inf, *np.linspace(0, played.duration_ns, count + 1)[1:-1].tolist(), math.inf]
    found = []
    for low, high in pairwise(edges):
        windows = sum(len(step.scores) for step in played.steps if low <= step.captured_ns < high)
        seen_ns = round(windows / played.windows * played.seen_ns)
        found.append(Part(replace(played, seen_ns=seen_ns), low, high))
    return found


def _counter() -> Callable[[], str]:
    numbers = iter(range(1 << 62))
    return lambda: str(next(numbers))
