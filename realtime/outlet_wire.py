"""What a line and the child that holds its sockets say to each other: length, kind, body. Standard library only.

A frame is 4 bytes length of the body (little endian), 1 byte kind, body. The body of a message has its own small head
(`Parcel`), so that the child keeps, counts and sends messages without understanding them; all else is JSON.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

FAMILIES = ("action", "status", "heartbeat", "scores", "pose")
# From the line: what to open · a message · the answer to a request · let the last messages out and end.
CONFIG, MESSAGE, ANSWER, CLOSE = 1, 2, 3, 4
# From the child: everything is open · alive, with figures · a control request · cannot go on, and why · for people.
BOUND, PULSE, REQUEST, REFUSED, TELL = 16, 17, 18, 19, 20
KINDS = frozenset((CONFIG, MESSAGE, ANSWER, CLOSE, BOUND, PULSE, REQUEST, REFUSED, TELL))
AGAIN = 75  # exit code of a child that wants to be started anew at once
LARGEST_BODY = 16 << 20
DEEPEST_REQUEST = 32  # levels of a stranger's request: what we can just read, the line with its deeper stack cannot

# What the child does with a message.
PUBLISH, KEEP, NEWEST, OVER = 1, 2, 4, 8

_HEAD = struct.Struct("<IB")
_PARCEL = struct.Struct("<BBQHHH")


class FrameError(ValueError):
    """Bytes that are no frame, or a body that is not what its kind says."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message on its way through the child.

    does: bits. PUBLISH: to the subscribers (the page gets everything). KEEP: for replay. NEWEST: it is the newest of
    its key (an open event's id, a source's status), for those who come late. OVER: that key has ended.
    """

    does: int
    family: str
    session: str
    seq: int
    topic: str
    key: str
    payload: bytes

    def body(self) -> bytes:
        """As it stands in a MESSAGE frame."""
        names = [name.encode() for name in (self.session, self.topic, self.key)]
        head = _PARCEL.pack(self.does, FAMILIES.index(self.family), self.seq, *map(len, names))
        return b"".join((head, *names, self.payload))

    @classmethod
    def of(cls, body: bytes) -> Parcel:
        """Reads `body` back; FrameError where it is cut short."""
        try:
            does, family, seq, *sizes = _PARCEL.unpack_from(body)
            names, at = [], _PARCEL.size
            for size in sizes:
                names.append(body[at : at + size].decode())
                at += size
            if at > len(body):
                raise FrameError(f"a message's names end after its {len(body)} bytes")
            return cls(does, FAMILIES[family], names[0], seq, names[1], names[2], body[at:])
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            raise FrameError(f"not a message of the line: {error}") from error


def frame(kind: int, body: bytes = b"") -> bytes:
    """One frame; FrameError where the body is larger than LARGEST_BODY."""
    if len(body) > LARGEST_BODY:
        raise FrameError(f"a frame carries at most {LARGEST_BODY} bytes, got {len(body)}")
    return _HEAD.pack(len(body), kind) + body


def say(kind: int, /, **fields: Any) -> bytes:
    """One frame whose body is a JSON object."""
    return frame(kind, json.dumps(fields, separators=(",", ":")).encode())


def heard(body: bytes) -> dict[str, Any]:
    """The JSON object in a body; FrameError where it is none."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise FrameError(f"not a JSON object but {type(fields).__name__}")
    return fields


def requested(body: bytes) -> dict[str, Any]:
    """A stranger's JSON object, flat enough to be handed on; FrameError where it is none."""
    fields = heard(body)
    level: list[Any] = [fields]
    for _ in range(DEEPEST_REQUEST):
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
        level = [one for one in level if isinstance(one, dict | list)]
    if level:
        raise FrameError(f"nested more than {DEEPEST_REQUEST} deep")
    return fields


class Reader:
    """Puts frames together from bytes in whatever pieces they come."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, piece: bytes) -> Iterator[tuple[int, bytes]]:
        """Kind and body of every frame that this piece completes; FrameError ends the conversation."""
        self._bytes += piece
        at = 0
        try:
            while len(self._bytes) - at >= _HEAD.size:
                size, kind = _HEAD.unpack_from(self._bytes, at)
                if size > LARGEST_BODY or kind not in KINDS:
                    raise FrameError(f"no frame of kind {kind} with {size} bytes is known")
                end = at + _HEAD.size + size
                if len(self._bytes) < end:
                    break
                body = bytes(memoryview(self._bytes)[at + _HEAD.size : end])
                at = end
                yield kind, body
        finally:
            del self._bytes[:at]
