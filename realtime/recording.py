"""Recordings: the bus's pose messages in an MCAP file, and the same messages one a line. The only door to mcap.

A recording holds skeletons only, never a picture. One channel `pose.<source>`, encoding json with its JSON Schema,
log_time the monotonic capture time; metadata `site` tells what floor and depth did to the poses. It is written as
NAME.partial and takes its name when it is closed, so a file under its own name is whole; after a crash NAME.partial
plays up to its last whole chunk (about a second is lost).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mcap.records import Channel, Message, Metadata
from mcap.stream_reader import StreamReader
from mcap.writer import Writer

from realtime.clips import refuse, screened
from realtime.errors import SourceError, UsageError
from realtime.feed import MARKS, Opened, SourceInfo, Tally, after_first, topic_id
from realtime.messages import MessageError, Person, PoseMessage, decode, encode, json_schemas
from realtime.schema import SECOND_NS, Frame, Pose
from realtime.wire import poses as poses_of
from realtime.wire import topic

CHUNK_BYTES = 64 * 1024  # about a second and a half of one person
RECORD_BYTES = 64 * 1024 * 1024  # no honest record is longer; a damaged length would ask for all the memory
LINE_BYTES = 1024 * 1024
SITE = "site"  # metadata of a recording: a key for each of its marks


def partial_of(path: Path) -> Path:
    """What a recording is called until it is whole."""
    return path.with_name(path.name + ".partial")


class RecordingWriter:
    """Writes pose messages of one source to an MCAP file, whole or not at all under its own name.

    Where no message was written there is no file in the end, and one of that name stays as it was.
    """

    def __init__(self, path: Path, marks: Collection[str] = ()) -> None:
        """marks: of `realtime.feed.MARKS`, what the site did to the poses. UsageError where the file cannot be made."""
        self.path = path
        self.partial = partial_of(path)
        try:
            self._file = self.partial.open("wb")
        except OSError as error:
            raise UsageError(f"cannot record to {path}: {error.strerror}; name a folder that can be written") from error
        self._writer = Writer(self._file, chunk_size=CHUNK_BYTES)
        self._writer.start(profile="", library="pcle-live")
        schema = json.dumps(json_schemas()["pose/1"]).encode()
        self._schema = self._writer.register_schema("pose/1", "jsonschema", schema)
        if marks:
            self._writer.add_metadata(SITE, dict.fromkeys(sorted(marks), "true"))
        self._channels: dict[str, int] = {}
        self._flushed_ns = 0
        self._written = False

    def write(self, message: PoseMessage) -> None:
        """Adds one message; OSError where the disk is full, MessageError where it breaks the schema."""
        name, payload = topic(message), encode(message)
        if name not in self._channels:
            self._channels[name] = self._writer.register_channel(name, "json", self._schema)
        at_ns = message.time.mono_ns
        self._writer.add_message(self._channels[name], at_ns, payload, at_ns, message.seq)
        self._written = True
        if at_ns - self._flushed_ns > SECOND_NS:  # what is written survives this process
            self._file.flush()
            self._flushed_ns = at_ns

    def close(self) -> None:
        """Finishes the file and gives it its name; a second call does nothing."""
        if self._file.closed:
            return
        if not self._written:
            self._file.close()
            self.partial.unlink(missing_ok=True)
            return
        with self._file:
            self._writer.finish()
            self._file.flush()
            os.fsync(self._file.fileno())
        self.partial.replace(self.path)

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_recording(path: Path, tally: Tally | None = None) -> Iterator[Frame]:
    """The frames of an MCAP recording, read as they are asked for; captured_ns is the recorded capture time.

    SourceError names the message and the rule: damaged or cut short (after all that is whole), unknown layout,
    wrong number of joints, time that does not rise, two sources.
    Joints that are not finite become missing and are counted in tally.refused.
    """
    return _recording_frames(path, _Messages(f"recording {path}", tally))


def open_recording(path: Path) -> Opened:
    """An MCAP recording, ready to play."""
    reader = _Messages(f"recording {path}")
    reading = _recording_frames(path, reader)
    _, frames = after_first(reading, f"recording {path} holds no pose message; name another")
    info = SourceInfo(topic_id(path.name.partition(".")[0]), "poses", layout=reader.layout, marks=reader.marks)
    return Opened(info, frames, reading.close, reader.tally)


def open_lines(descriptor: int, name: str) -> Opened:
    """Pose messages one a line from a file descriptor, as standard input gives them; it does not wait for the first.

    The frames raise SourceError where the first line is no pose message, or a message breaks a rule of poses.
    A later line that is no pose message, or one that comes too late, is counted, logged once and left out.
    """
    reader = _Messages(name, late_is_fatal=False)
    info = SourceInfo(topic_id(name), "poses")
    return Opened(info, _line_frames(descriptor, reader), lambda: None, reader.tally)


def open_lines_file(path: Path) -> Opened:
    """The same messages, one a line, in a file."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise SourceError(f"recording {path}: {error.strerror}; check its permissions") from error
    reader = _Messages(f"recording {path}")
    reading = _line_frames(descriptor, reader)
    try:
        _, frames = after_first(reading, f"recording {path} holds no pose message; name another")
    except SourceError:
        os.close(descriptor)
        raise
    info = SourceInfo(topic_id(path.stem), "poses", layout=reader.layout)
    return Opened(info, frames, _closing(descriptor), reader.tally)


def _closing(descriptor: int) -> Callable[[], None]:
    """Closes a descriptor once."""
    file = os.fdopen(descriptor, "rb", buffering=0)
    return file.close


class _Late(SourceError):
    """A message that is not newer than the one before it."""


class _Messages:
    """Checks messages in order: kind, layout, joints and time. `named` stands in its errors.

    late_is_fatal: whether lines that come too late end the reading; a file's order is wrong for good, a network's not.
    """

    def __init__(self, named: str, tally: Tally | None = None, late_is_fatal: bool = True) -> None:
        self.named, self.late_is_fatal = named, late_is_fatal
        self.tally = tally or Tally()
        self.number = 0
        self.layout: str | None = None
        self.marks: frozenset[str] = frozenset()
        self._source: str | None = None
        self._session = ""
        self._last_ns: int | None = None
        self._shift_ns = 0

    def wrong(self, rule: str) -> SourceError:
        """The error to raise about the message read last."""
        return SourceError(f"{self.named}, message {self.number}: {rule}")

    def frame(self, message: PoseMessage) -> Frame:
        """The message as a Frame; SourceError names the rule that it breaks."""
        try:
            poses = poses_of(message)
        except MessageError as error:
            raise self.wrong(str(error)) from error
        if self._source not in (None, message.source):
            raise self.wrong(f"it comes from {message.source!r}, those before from {self._source!r}; play one source")
        self.layout, self._source = message.layout, message.source
        captured_ns = self._time_ns(message)
        return Frame(
            message.frame,
            captured_ns,
            poses=tuple(
                self._screened(pose, person, captured_ns) for pose, person in zip(poses, message.persons, strict=True)
            ),
        )

    def _screened(self, pose: Pose, person: Person, captured_ns: int) -> Pose:
        said = 1.0 if person.confidence is None else np.array(person.confidence)
        lost = int(np.count_nonzero((pose.confidence == 0) & (said > 0)))  # said to be seen, but without a position
        if lost:
            refuse(self.tally, lost, f"{self.named}, message {self.number}: joints not finite are taken as missing")
        joints, confidence = screened(pose.joints, pose.confidence, self.tally, f"{self.named}, message {self.number}")
        return replace(pose, captured_ns=captured_ns, joints=joints, confidence=confidence)

    def _time_ns(self, message: PoseMessage) -> int:
        """The capture time, which must rise; a sender that restarted with its clock at zero goes on a second later."""
        told_ns = message.time.mono_ns
        if told_ns < 0:
            raise self.wrong(f"time.mono_ns must not be negative, got {told_ns}")
        if message.session != self._session and self._last_ns is not None and told_ns + self._shift_ns <= self._last_ns:
            self._shift_ns = self._last_ns + SECOND_NS - told_ns
        at_ns = told_ns + self._shift_ns
        if self._last_ns is not None and at_ns <= self._last_ns:
            behind = (self._last_ns - at_ns) / SECOND_NS
            rule = f"time.mono_ns must rise, got {told_ns}, {behind:.3f} s before the message before it"
            raise _Late(str(self.wrong(rule)))
        self._session, self._last_ns = message.session, at_ns
        return at_ns


def _recording_frames(path: Path, reader: _Messages) -> Generator[Frame, None, None]:
    for payload in _payloads(path, reader):
        reader.number += 1
        try:
            message = _decoded(payload)
        except MessageError as error:
            raise reader.wrong(str(error)) from error
        yield reader.frame(message)


def _payloads(path: Path, reader: _Messages) -> Iterator[bytes]:
    """The data of each message on a `pose.` channel, in the order of the file."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise SourceError(f"{reader.named}: {error.strerror}; check the path and its permissions") from error
    with file:
        records = StreamReader(file, validate_crcs=True, record_size_limit=RECORD_BYTES).records
        wanted: set[int] = set()
        while True:
            try:
                record = next(records, None)
            except Exception as error:  # mcap lets the errors of struct and of its decompressors through
                where = f"after message {reader.number}" if reader.number else "at its beginning"
                raise SourceError(
                    f"{reader.named} is damaged or cut short {where} ({type(error).__name__}): "
                    f"all before that is whole; record it again or play on without the rest"
                ) from error
            if record is None:
                return
            if isinstance(record, Channel) and record.topic.startswith("pose.") and record.message_encoding == "json":
                wanted.add(record.id)
            elif isinstance(record, Metadata) and record.name == SITE:
                reader.marks = frozenset(mark for mark in MARKS if record.metadata.get(mark) == "true")
            elif isinstance(record, Message) and record.channel_id in wanted:
                yield record.data


def _line_frames(descriptor: int, reader: _Messages) -> Iterator[Frame]:
    for number, line in enumerate(_lines(descriptor, reader), 1):
        if not line.strip():
            continue
        reader.number = number
        try:
            message = _decoded(line)
        except MessageError as error:
            if reader.layout is None:
                raise reader.wrong(str(error)) from error
            refuse(reader.tally, 1, f"{reader.named}, line {number} is left out: {error}")
            continue
        try:
            frame = reader.frame(message)
        except _Late as late:
            if reader.late_is_fatal:
                raise
            refuse(reader.tally, 1, f"{late}; it is left out")
            continue
        yield frame
    if reader.layout is None:
        raise SourceError(f"{reader.named} ended without a pose message; give it one JSON message a line")


def _lines(descriptor: int, reader: _Messages) -> Iterator[bytes]:
    """Lines as they come. Plain os.read: a thread that waits in sys.stdin would crash the interpreter's end."""
    rest = b""
    while chunk := os.read(descriptor, 65536):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > LINE_BYTES:
            raise SourceError(f"{reader.named}: a line is longer than {LINE_BYTES} bytes; send one message a line")
    yield rest


def _decoded(payload: bytes) -> PoseMessage:
    """A pose message; one with NaN or Infinity, which JSON does not have, is read with those joints missing."""
    try:
        message = decode(payload)
    except RecursionError as error:
        raise MessageError("it is nested too deep") from error
    except MessageError:
        if not re.search(rb"NaN|Infinity|[0-9][eE]", payload):
            raise
        message = decode(json.dumps(_finite(_json(payload))))
    if not isinstance(message, PoseMessage):
        raise MessageError(f"it is a {type(message).__name__}, not a message with schema pose/1")
    return message


def _json(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"not JSON: {error}") from error


def _finite(value: Any) -> Any:
    """The document with null for each number that is not finite; a joint whose confidence was one loses its place."""
    if isinstance(value, dict):
        value = {name: _finite(entry) for name, entry in value.items()}
        confidence, joints, box = value.get("confidence"), value.get("joints"), value.get("box")
        if isinstance(confidence, list) and isinstance(joints, list) and len(confidence) == len(joints):
            value["joints"] = [[None] * 3 if c is None else joint for joint, c in zip(joints, confidence, strict=True)]
            value["confidence"] = [1.0 if c is None else c for c in confidence]
        if isinstance(box, list) and None in box:
            value["box"] = None
        return value
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
