"""What is known of each source at this moment: state, heartbeat, open and recent events; for who comes late.

Payloads are read as plain JSON. They come from our own line, but nothing here trusts their fields.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from realtime.metrics import SILENT_NS
from realtime.web.stream import FAMILIES, sse

MOST_SOURCES = 64
MOST_OPEN = 256  # events open at once, of one source
RECENT = 60  # occurrences kept of one source
MOST_PAYLOAD = 1024 * 1024
READY = ("online", "degraded")
_HEAD = re.compile(rb'"session":"([A-Za-z0-9_-]{1,64})","seq":(\d{1,18})[,}]')
_TIME = re.compile(rb'"time":\{"mono_ns":(-?\d{1,19})[,}]')


@dataclass(frozen=True, slots=True)
class Told:
    """One message understood: its family and source, the event to send, and its content (None for a pose)."""

    family: str
    source: str
    chunk: bytes
    message: dict[str, Any] | None


@dataclass(slots=True)
class SourceNow:
    """One source. Times are this machine's monotonic clock when the message was fed.

    capture_ns: newest capture time told, on the line's clock. last: newest written event of the family.
    """

    session: str = ""
    state: str | None = None
    reason: str | None = None
    state_ns: int = 0
    heard_ns: int | None = None  # the last heartbeat
    pose_ns: int | None = None
    capture_ns: int | None = None
    capture_heard_ns: int = 0
    heartbeat: dict[str, Any] | None = None
    last: dict[str, bytes] = field(default_factory=dict)
    open: OrderedDict[str, bytes] = field(default_factory=OrderedDict)
    recent: OrderedDict[str, dict[str, Any]] = field(default_factory=OrderedDict)

    def begin(self, session: str) -> None:
        """The line started again: events of the old session will not end any more."""
        self.session = session
        self.capture_ns = None
        self.state = self.reason = None
        self.open.clear()
        for entry in self.recent.values():
            entry["open"] = False


class Latest:
    """The newest of everything, by source; bounded."""

    def __init__(self) -> None:
        self.sources: dict[str, SourceNow] = {}
        self.not_understood = 0

    def take(self, topic: str, payload: bytes, now_ns: int) -> Told | None:
        """Takes in one message; None where it is of no family shown here (scores), or no message at all (counted)."""
        family, _, rest = topic.partition(".")
        name = rest.partition(".")[0]
        if family not in FAMILIES:
            return None
        found = _HEAD.search(payload[:400])
        message = None if family == "pose" else _json(payload)
        full = name not in self.sources and len(self.sources) >= MOST_SOURCES
        if not name or full or len(payload) > MOST_PAYLOAD or (family != "pose" and message is None):
            self.not_understood += 1
            return None
        source = self.sources.setdefault(name, SourceNow())
        session, number = (found[1].decode(), found[2].decode()) if found else ("", "")
        if session and session != source.session:
            source.begin(session)
        told = Told(family, name, sse(family, payload, f"{session}/{number}" if found else ""), message)
        if message is None:
            time = _TIME.search(payload[:600])
            _captured(source, int(time[1]) if time else None, now_ns)
            source.pose_ns = now_ns
        else:
            _NOTE[family](source, told, message, now_ns)
        return told

    def replay(self, families: frozenset[str]) -> list[bytes]:
        """The written events that a newcomer needs: last status and heartbeat of each source, open events."""
        chunks = []
        for source in self.sources.values():
            chunks += [
                source.last[name] for name in ("status", "heartbeat") if name in families and name in source.last
            ]
            chunks += source.open.values() if "action" in families else ()
        return chunks

    def state(self, now_ns: int) -> bytes:
        """Everything a page needs to begin, as JSON."""
        sources = {name: _describe(source, now_ns) for name, source in self.sources.items()}
        return json.dumps({"sources": sources}, separators=(",", ":")).encode()

    def health(self, now_ns: int) -> tuple[bool, bool, bytes]:
        """Whether every line is alive, whether every source gives pictures, and both told by source as JSON.

        Alive: a heartbeat came within 3 s. Ready: alive, and the source is online (or degraded). A source that ended
        as it was meant to counts no more; but with none left nothing is alive.
        """
        going = [source for source in self.sources.values() if source.state != "ended"]
        alive = bool(going) and all(is_alive(source, now_ns) for source in going)
        ready = alive and all(source.state in READY for source in going)
        told = {name: _health(source, now_ns) for name, source in self.sources.items()}
        body = {"alive": alive, "ready": ready, "sources": told}
        return alive, ready, json.dumps(body, separators=(",", ":")).encode() + b"\n"


def is_alive(source: SourceNow, now_ns: int) -> bool:
    """Whether the source's line told a heartbeat within the last 3 s."""
    return source.heard_ns is not None and now_ns - source.heard_ns <= SILENT_NS


def _health(source: SourceNow, now_ns: int) -> dict[str, Any]:
    age = None if source.heard_ns is None else round((now_ns - source.heard_ns) / 1e9, 3)
    alive = is_alive(source, now_ns)
    return {"alive": alive, "state": source.state, "reason": source.reason, "heartbeat_age_s": age}


def _json(payload: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _captured(source: SourceNow, mono_ns: Any, now_ns: int) -> None:
    if isinstance(mono_ns, int) and (source.capture_ns is None or mono_ns >= source.capture_ns):
        source.capture_ns, source.capture_heard_ns = mono_ns, now_ns


def part(message: dict[str, Any], name: str) -> dict[str, Any]:
    """The object under this name, or an empty one."""
    found = message.get(name)
    return found if isinstance(found, dict) else {}


def text(value: Any, most: int = 64) -> str | None:
    """The value if it is a text, at most so long."""
    return value[:most] if isinstance(value, str) else None


def _status(source: SourceNow, told: Told, message: dict[str, Any], now_ns: int) -> None:
    _captured(source, part(message, "time").get("mono_ns"), now_ns)
    state = text(message.get("state"))
    if state == "window_reset":  # of one person, not of the source
        return
    source.state, source.reason, source.state_ns = state, text(message.get("reason"), 500), now_ns
    source.last["status"] = told.chunk


def _heartbeat(source: SourceNow, told: Told, message: dict[str, Any], now_ns: int) -> None:
    source.heard_ns, source.heartbeat = now_ns, message
    source.last["heartbeat"] = told.chunk
    state = text(message.get("state"))
    if state is not None and state != "window_reset" and state != source.state:  # its status was missed
        source.state, source.reason, source.state_ns = state, None, now_ns
    opened = message.get("open_events")
    if isinstance(opened, list):
        still = {one.get("id") for one in opened if isinstance(one, dict)}
        for gone in [name for name in source.open if name not in still]:  # its end was missed
            del source.open[gone]
            if gone in source.recent:
                source.recent[gone]["open"] = False


def _action(source: SourceNow, told: Told, message: dict[str, Any], now_ns: int) -> None:
    time, name, phase = part(message, "time"), text(message.get("id")), message.get("phase")
    _captured(source, time.get("decided_mono_ns"), now_ns)
    if name is None:
        return
    before = source.recent.pop(name, None)
    known = before["known_mono_ns"] if before else (time.get("decided_mono_ns") if phase == "start" else None)
    source.recent[name] = {"event": message, "known_mono_ns": known, "open": phase != "end"}
    source.open.pop(name, None)
    if phase != "end":
        source.open[name] = told.chunk
    for kept, most in ((source.recent, RECENT), (source.open, MOST_OPEN)):
        while len(kept) > most:
            kept.popitem(last=False)


_NOTE = {"status": _status, "heartbeat": _heartbeat, "action": _action}


def _describe(source: SourceNow, now_ns: int) -> dict[str, Any]:
    def age_s(then_ns: int | None) -> float | None:
        return None if then_ns is None else round((now_ns - then_ns) / 1e9, 3)

    return {
        "session": source.session,
        "state": source.state,
        "reason": source.reason,
        "state_age_s": age_s(source.state_ns) if source.state is not None else None,
        "heartbeat": source.heartbeat,
        "heartbeat_age_s": age_s(source.heard_ns),
        "pose_age_s": age_s(source.pose_ns),
        "capture_mono_ns": None if source.capture_ns is None else source.capture_ns + now_ns - source.capture_heard_ns,
        "events": list(source.recent.values()),
    }
