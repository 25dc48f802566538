"""Answers to those who missed messages or came late; docs/events.md has the protocol. Standard library only."""

from __future__ import annotations

import json
from typing import Any

from realtime.outlet_wire import FAMILIES
from realtime.ring import Ring

COUNT_AT_MOST = 256  # messages of one answer; whoever needs more asks again
BYTES_AT_MOST = 256 << 10


class RequestError(ValueError):
    """A request that is not of the protocol; the text says what is wrong."""


def reply(request: bytes, ring: Ring) -> list[bytes]:
    """The frames of the answer: a JSON object, then the messages as they were published."""
    name: Any = None
    try:
        fields = _parsed(request)
        name = fields.get("id")
        if (isinstance(name, str | int) and len(str(name)) > 64) or not isinstance(name, str | int | None):
            name = None
            raise RequestError("id must be a number or a text of at most 64 characters")
        if fields.get("get") == "last":
            head, messages = _last(ring)
        elif fields.get("get") == "since":
            head, messages = _since(fields, ring)
        else:
            raise RequestError(f'get must be "since" or "last", got {fields.get("get")!r:.60}')
    except RequestError as error:
        head, messages = {"answer": "error", "reason": str(error)}, []
    if name is not None:
        head["id"] = name
    return [json.dumps(head, separators=(",", ":")).encode(), *messages]


def _parsed(request: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(request)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"not JSON: {error!s:.100}") from error
    if not isinstance(fields, dict):
        raise RequestError("a request is a JSON object")
    return fields


def _last(ring: Ring) -> tuple[dict[str, Any], list[bytes]]:
    parcels = ring.newest()
    messages = [parcel.payload for parcel in parcels]
    following = dict.fromkeys(("action", "status"), 0) | ring.following()
    return {"answer": "last", "session": ring.session, "next_seq": following, "count": len(messages)}, messages


def _since(fields: dict[str, Any], ring: Ring) -> tuple[dict[str, Any], list[bytes]]:
    family, session = fields.get("family"), fields.get("session") or ring.session
    if family not in FAMILIES:
        raise RequestError(f"family must be one of {', '.join(FAMILIES)}, got {family!r:.60}")
    if session is not None and not isinstance(session, str):
        raise RequestError(f"session must be a text, got {session!r:.60}")
    first = _number(fields, "from", 0)
    last = _number(fields, "to", 2**63)
    if last < first:
        raise RequestError(f"to must not be below from, got {first} to {last}")
    found = ring.since(session or "", str(family), first, last, COUNT_AT_MOST, BYTES_AT_MOST)
    unknown = session != ring.session and found.oldest is None
    head = {
        "answer": "since", "family": family, "session": session, "from": first,
        "oldest": found.oldest, "next": None if unknown else found.next, "count": len(found.messages),
    }  # fmt: skip
    if unknown or (first < found.next and (found.oldest is None or first < found.oldest)):
        return head | {"answer": "gone", "count": 0}, []
    return head, [payload for _, payload in found.messages]


def _number(fields: dict[str, Any], name: str, default: int) -> int:
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 2**63:
        raise RequestError(f"{name} must be a number from 0, got {value!r:.60}")
    return value
