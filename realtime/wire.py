"""Between the line's nouns and the messages on the wire: topics, events, scores, and poses both ways.

Readings of the wire are untrusted: a joint with a null coordinate, or one beyond float32, is missing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from realtime.clock import Clock
from realtime.messages import (
    Action,
    ActionEvent,
    Alternative,
    AnyMessage,
    EventTime,
    Latency,
    Media,
    MessageError,
    Model,
    Moment,
    Person,
    PoseMessage,
    PoseMoment,
    Score,
    ScoresMessage,
    Source,
    Span,
    Track,
)
from realtime.schema import Event, Pose, Scores, Window
from realtime.skeleton import LAYOUTS, Layout


def topic(message: AnyMessage) -> str:
    """The topic a message goes out under; MessageError where a part would break the topic's dots."""
    if isinstance(message, ActionEvent):
        return action_topic(message.source.id, message.phase, message.action.id)
    return f"{family(message)}.{topic_part(message.source)}"


def family(message: AnyMessage) -> str:
    """Which of the numbered families a message belongs to: action, status, heartbeat, scores or pose."""
    return str(message.__struct_config__.tag).partition("/")[0].partition("-")[0]


def action_topic(source: str, phase: str, action: str) -> str:
    """`action.<source>.<phase>.<action>`; the other topics are `<family>.<source>`."""
    return f"action.{topic_part(source)}.{phase}.{topic_part(action)}"


def topic_part(value: str) -> str:
    """The value itself where it can stand between a topic's dots, else MessageError."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", value):
        raise MessageError(f"a source or action id is made of letters, digits, _ and -, got {value!r}")
    return value


def pose_message(
    poses: Sequence[Pose],
    *,
    frame: int,
    captured_ns: int,
    layout: Layout,
    session: str,
    seq: int,
    source: str,
    clock: Clock,
) -> PoseMessage:
    """Everybody found in one frame (perhaps nobody), exact to the last bit of float32."""
    wrong = [pose.layout.name for pose in poses if pose.layout != layout]
    if wrong:
        raise MessageError(f"one message has one layout: {layout.name}, got a pose in {wrong[0]}")
    persons = tuple(
        Person(
            track=pose.track,
            joints=_rows(pose.joints),
            confidence=_rows(pose.confidence),
            box=None if pose.box is None else _rows(np.asarray(pose.box)),
            image_joints=None if pose.image_joints is None else _rows_or_null(pose.image_joints),
        )
        for pose in poses
    )
    time = PoseMoment(mono_ns=captured_ns, utc=clock.utc(captured_ns))
    return PoseMessage(
        session=session, seq=seq, source=source, time=time, frame=frame, layout=layout.name, persons=persons
    )


def poses(message: PoseMessage) -> tuple[Pose, ...]:
    """The poses in a message. A joint with a null coordinate or one beyond float32 is missing.

    A missing joint has confidence 0 and lies at the origin, for the window to place. Errors: MessageError where the
    layout is unknown, a count differs from the layout's or a track comes twice.
    """
    layout = LAYOUTS.get(message.layout)
    if layout is None:
        raise MessageError(f"unknown layout {message.layout!r}; known: {', '.join(LAYOUTS)}")
    tracks = [person.track for person in message.persons]
    if len(set(tracks)) < len(tracks):
        raise MessageError(f"frame {message.frame}: a track comes twice: {tracks}")
    return tuple(_pose(message, person, layout) for person in message.persons)


def _pose(message: PoseMessage, person: Person, layout: Layout) -> Pose:
    counts = {"joints": person.joints, "confidence": person.confidence, "image_joints": person.image_joints}
    for name, rows in counts.items():
        if rows is not None and len(rows) != len(layout):
            raise MessageError(
                f"frame {message.frame}, track {person.track}: {layout.name} has {len(layout)} joints, "
                f"got {len(rows)} {name}"
            )
    with np.errstate(over="ignore"):  # beyond float32 is infinite, hence missing
        joints = np.array(person.joints, np.float64).astype(np.float32)  # (V, 3), null is NaN
    seen = np.isfinite(joints).all(axis=1)
    confidence = np.ones(len(layout)) if person.confidence is None else np.array(person.confidence)
    image_joints = None
    if person.image_joints is not None:
        image_joints = np.array(person.image_joints, np.float64).astype(np.float32)
    return Pose(
        index=message.frame,
        captured_ns=message.time.mono_ns,
        track=person.track,
        layout=layout,
        joints=np.where(seen[:, None], joints, np.float32(0)),
        confidence=np.where(seen, confidence, 0).astype(np.float32),
        image_joints=image_joints,
        box=person.box,
    )


def _rows(array: np.ndarray) -> Any:
    """Nested tuples of floats with the 9 digits that float32 needs; half the bytes of its value as a float64."""
    if array.ndim > 1:
        return tuple(_rows(row) for row in array)
    return tuple(float(f"{value:.9g}") for value in array.tolist())


def _rows_or_null(array: np.ndarray) -> Any:
    """As _rows, with null for what is not finite: a joint may have a place in space and none in the picture."""
    if np.isfinite(array).all():
        return _rows(array)
    return tuple(tuple(number if math.isfinite(number) else None for number in row) for row in _rows(array))


def action_event(
    event: Event,
    *,
    session: str,
    seq: int,
    source: Source,
    action: Action,
    model: Model,
    clock: Clock,
    latency: Latency | None = None,
    track: Track | None = None,
    window: Span | None = None,
    calibrated: bool = False,
    far_per_h: float | None = None,
) -> ActionEvent:
    """The wire message of one phase of one occurrence. action.id must be the event's; track.id, partner likewise.

    calibrated: its thresholds were measured at this site, where far_per_h false alarms of it come in an hour.
    """
    strange = track is not None and (track.id, track.partner) != (event.track, event.partner)
    if action.id != event.action or strange:
        raise MessageError(f"event {event.id} is {event.action} of track {event.track}, got {action} and {track}")
    probability = {name: _unit(getattr(event, name)) for name in ("value", "raw", "peak", "on", "off")}
    offset = event.offset_ns
    return ActionEvent(
        session=session,
        seq=seq,
        id=event.id,
        phase=event.phase,
        source=source,
        track=track or Track(id=event.track, partner=event.partner),
        action=action,
        score=Score(
            **probability,
            margin=round(event.margin, 6),
            calibrated=calibrated,
            far_per_h=None if far_per_h is None else round(far_per_h, 3),
        ),
        alternatives=tuple(Alternative(id=name, value=_unit(value)) for name, value in event.alternatives),
        time=EventTime(
            onset=clock.utc(event.onset_ns),
            decided=clock.utc(event.decided_ns),
            offset=None if offset is None else clock.utc(offset),
            onset_mono_ns=event.onset_ns,
            decided_mono_ns=event.decided_ns,
            offset_mono_ns=offset,
            window=window,
        ),
        latency_ms=latency or Latency(),
        end_reason=event.end_reason,
        model=model,
        media=Media(),
    )


def track_of(pose: Pose, age_s: float, partner: int | None = None) -> Track:
    """What is known of the person at this pose; age_s: seconds since the track began. partner: the other's track."""
    seen = pose.confidence > 0
    return Track(
        id=pose.track,
        partner=partner,
        bbox=pose.box,
        age_s=round(age_s, 3),
        visible_joints=int(seen.sum()),
        quality=_unit(pose.confidence.mean()),
    )


def span_of(window: Window, clock: Clock, fps: float) -> Span:
    """The window's place in the session; fps: the model's frame rate."""
    return Span(
        start_s=round(clock.seconds(window.start_ns), 3),
        end_s=round(clock.seconds(window.captured_ns), 3),
        frames=len(window.joints),
        observed=window.observed,
        fps=fps,
    )


def scores_message(
    scores: Scores, *, classes: Sequence[str], session: str, seq: int, source: str, clock: Clock
) -> ScoresMessage:
    """What the model said of one window, by class."""
    return ScoresMessage(
        session=session,
        seq=seq,
        source=source,
        time=moment(scores.captured_ns, clock),
        frame=scores.index,
        track=scores.track,
        window_start_mono_ns=scores.start_ns,
        probabilities={name: _unit(value) for name, value in zip(classes, scores.probabilities, strict=True)},
    )


def moment(captured_ns: int, clock: Clock) -> Moment:
    """A capture time on both clocks."""
    return Moment(mono_ns=captured_ns, utc=clock.utc(captured_ns))


def _unit(value: float) -> float:
    """A probability with 6 decimals; a float32 softmax may lie a hair above 1."""
    return round(min(float(value), 1.0), 6)
