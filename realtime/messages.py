"""The messages on the wire: typed, validated, JSON. The only door to msgspec.

Readers ignore unknown keys, so fields may be added within a schema's version but never changed or removed.
Times are monotonic capture times in ns and UTC as RFC 3339 with milliseconds and Z. Probabilities lie in [0, 1].
JSON has no NaN: a non-finite number is refused by name before it is written; a joint's missing coordinate is null.
realtime/wire.py makes these from the line's nouns and turns pose messages back into poses.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from realtime.schema import EndReason, Phase, State

Probability = Annotated[float, Meta(ge=0, le=1)]
Margin = Annotated[float, Meta(ge=-1, le=1)]
Amount = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
Utc = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$")]
Coordinate = float | None
Precision = Literal["fp32", "fp16", "int8"]


class MessageError(ValueError):
    """A message that is not what its schema says; the text names the field."""


class Part(Struct, frozen=True, kw_only=True):
    """A piece of a message."""


class Moment(Part, frozen=True, kw_only=True):
    """A capture time on both clocks."""

    mono_ns: int
    utc: Utc


class Source(Part, frozen=True, kw_only=True):
    """Where the frames come from. width, height: pixels; null for skeletons."""

    id: str
    kind: str
    width: int | None = None
    height: int | None = None
    fps: float | None = None


class Track(Part, frozen=True, kw_only=True):
    """The person. bbox: x, y, width, height in units of the image; quality: mean joint confidence.

    partner: the other person's track, where two people do it together.
    """

    id: int
    bbox: tuple[float, float, float, float] | None = None
    age_s: float | None = None
    visible_joints: int | None = None
    quality: Probability | None = None
    partner: int | None = None


class Action(Part, frozen=True, kw_only=True):
    """What is being done, and where that word comes from."""

    id: str
    name: str
    origin: Literal["trained", "text", "enrolled"] = "trained"
    label_set: str | None = None
    state: Literal["active", "draft"] = "active"


class Score(Part, frozen=True, kw_only=True):
    """value: smoothed; raw: this window's; peak: largest value so far; margin: value minus the runner-up's.

    calibrated: on and off were measured at this site. far_per_h: false alarms of this action expected there in an hour.
    """

    value: Probability
    raw: Probability
    peak: Probability
    on: Probability
    off: Probability
    margin: Margin
    calibrated: bool = False
    far_per_h: Amount | None = None


class Alternative(Part, frozen=True, kw_only=True):
    """Another action and its smoothed probability."""

    id: str
    value: Probability


class Span(Part, frozen=True, kw_only=True):
    """The window behind the decision; start_s and end_s count from the session's clock (media time of a file)."""

    start_s: float
    end_s: float
    frames: Count
    observed: Count
    fps: Amount


class EventTime(Part, frozen=True, kw_only=True):
    """onset: estimated beginning, back-dated; decided: capture time at which this phase was known; offset: end."""

    onset: Utc
    decided: Utc
    offset: Utc | None = None
    onset_mono_ns: int
    decided_mono_ns: int
    offset_mono_ns: int | None = None
    window: Span | None = None


class Latency(Part, frozen=True, kw_only=True):
    """Milliseconds spent on the frame that decided."""

    capture_to_publish: Amount | None = None
    pose: Amount | None = None
    model: Amount | None = None
    queue: Amount | None = None


class Model(Part, frozen=True, kw_only=True):
    """What classified. window and stride: frames at the model's frame rate.

    sha256: of the ONNX graph that runs, or that the engine was built from. precision: what it computes in.
    """

    name: str
    sha256: str
    backend: str
    window: Count
    stride: Count
    precision: Precision | None = None


class Media(Part, frozen=True, kw_only=True):
    """Files kept of this occurrence, as paths; null where none is kept."""

    skeleton: str | None = None
    snapshot: str | None = None
    clip: str | None = None


class Percentiles(Part, frozen=True, kw_only=True):
    """Median and 95th percentile over the last second."""

    p50: Amount
    p95: Amount


class OpenEvent(Part, frozen=True, kw_only=True):
    """An occurrence that has started and not ended; tells a late subscriber what it missed."""

    id: str
    track: int
    action: str


class Person(Part, frozen=True, kw_only=True):
    """One person in one frame: joints (V, 3) metres in Kinect camera axes, by the message's layout.

    A joint with a null coordinate is missing. confidence (V): 1 where left out. image_joints (V, 2) and box
    (x, y, width, height): in units of the image's width and height.
    """

    track: int
    joints: tuple[tuple[Coordinate, Coordinate, Coordinate], ...]
    confidence: tuple[Probability, ...] | None = None
    box: tuple[float, float, float, float] | None = None
    image_joints: tuple[tuple[Coordinate, Coordinate], ...] | None = None


class PoseMoment(Part, frozen=True, kw_only=True):
    """A capture time; other programs that write poses may leave UTC out."""

    mono_ns: int
    utc: Utc | None = None


class Message(Struct, frozen=True, kw_only=True, tag_field="schema"):
    """session: new per start of the publisher; seq: per topic family, from 0, +1."""


class ActionEvent(Message, frozen=True, kw_only=True, tag="action-event/1"):
    """One phase of one occurrence of an action: one start, updates, one end, one id."""

    session: str
    seq: Count
    id: str
    phase: Phase
    source: Source
    track: Track
    action: Action
    score: Score
    alternatives: tuple[Alternative, ...] = ()
    time: EventTime
    latency_ms: Latency
    end_reason: EndReason | None = None
    model: Model
    media: Media = Media()


class Heartbeat(Message, frozen=True, kw_only=True, tag="heartbeat/1"):
    """Once a second. next_seq: the number that the next message of each family will carry, to notice a lost last one.

    fps: frames through the line; drops: frames overwritten unread; refused: frames or poses turned away at a door;
    stage_ms: by stage (pose, window, model, decoder, bus). state: the source's last told state; reconnects: how often
    it was opened again since the start; uptime_s: since the start; memory_mb: resident, of the line's process.
    """

    session: str
    seq: Count
    source: str
    time: Moment
    fps: Amount | None
    frame_age_ms: Percentiles | None
    drops: Count
    refused: Count
    stage_ms: dict[str, Percentiles]
    open_events: tuple[OpenEvent, ...]
    persons: Count
    next_seq: dict[str, Count] = {}
    state: State | None = None
    reconnects: Count = 0
    uptime_s: Amount | None = None
    memory_mb: Amount | None = None


class Status(Message, frozen=True, kw_only=True, tag="status/1"):
    """A change of the source's state, or a person's window that began anew (window_reset, track set; reason says why).

    The same state again, with a reason, is a remark. backend: what runs the model from now on; null
    where that says nothing (window_reset, ended, offline).
    """

    session: str
    seq: Count
    source: str
    time: Moment
    state: State
    reason: str | None = None
    track: int | None = None
    backend: str | None = None


class ScoresMessage(Message, frozen=True, kw_only=True, tag="scores/1"):
    """What the model says of one window: probability of each class, "nothing" among them."""

    session: str
    seq: Count
    source: str
    time: Moment
    frame: int
    track: int
    window_start_mono_ns: int
    probabilities: dict[str, Probability]


class PoseMessage(Message, frozen=True, kw_only=True, tag="pose/1"):
    """Everybody in one frame. Also a line of a recording and of standard input."""

    session: str = ""
    seq: Count = 0
    source: str = ""
    time: PoseMoment
    frame: int
    layout: str
    persons: tuple[Person, ...]


AnyMessage = ActionEvent | Heartbeat | Status | ScoresMessage | PoseMessage
_decoder = msgspec.json.Decoder(AnyMessage)
_encoder = msgspec.json.Encoder()


def encode(message: AnyMessage) -> bytes:
    """JSON bytes; MessageError names a field that is not finite or breaks the schema."""
    _refuse_non_finite(message, type(message).__name__)  # msgspec would write them as null
    payload = _encoder.encode(message)
    decode(payload)  # msgspec checks types and ranges on reading only; what is sent must be readable
    return payload


def decode(payload: bytes | str) -> AnyMessage:
    """The message of the type that its "schema" names; MessageError says what is wrong and where."""
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # the last: nested too deeply
        hint = "; JSON has no NaN, write null for a missing coordinate" if "NaN" in str(payload) else ""
        raise MessageError(f"not a message of pcle-live: {error}{hint}") from error


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema (2020-12) of each message by its schema tag, such as "action-event/1"."""
    schemas = {}
    for kind in (ActionEvent, Heartbeat, Status, ScoresMessage, PoseMessage):
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | msgspec.json.schema(kind)
        schemas[str(kind.__struct_config__.tag)] = schema
    return schemas


def _refuse_non_finite(value: Any, path: str) -> None:
    """MessageError for the first float below value that is not finite, by a path such as PoseMessage.persons[0].box."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise MessageError(f"{path} must be finite, got {value}")
    elif isinstance(value, Struct):
        for name in value.__struct_fields__:
            _refuse_non_finite(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, dict):
        for name, entry in value.items():
            _refuse_non_finite(entry, f"{path}.{name}")
    elif isinstance(value, tuple) and not _plainly_finite(value):
        for index, entry in enumerate(value):
            _refuse_non_finite(entry, f"{path}[{index}]")


def _plainly_finite(row: tuple[Any, ...]) -> bool:
    """Whether every entry is a finite number: spares most of a pose message the walk with names."""
    try:
        return all(map(math.isfinite, row))
    except TypeError:
        return False
