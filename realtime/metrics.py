"""Metrics of a line in Prometheus' text format 0.0.4, kept from the messages that the line tells.

Gauges tell the last second and are left out once a line is silent for 3 s; counters and histograms stay.
Standard library only. https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
import os
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from realtime.memory import resident_bytes

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATES = ("online", "stalled", "frozen", "dark", "degraded", "reconnecting", "offline", "ended")
AGES_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)
SILENT_NS = 3_000_000_000  # a line that told nothing for so long is not alive
MOST_SERIES = 2000  # of events by action; what comes beyond is counted as the action "other"
Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Labels, float]  # suffix of the name, labels, value


class Histogram:
    """Counts values by upper bounds, cumulatively."""

    def __init__(self, bounds: tuple[float, ...] = AGES_S) -> None:
        self.bounds, self.counts = bounds, [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Counts one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def samples(self, labels: Labels) -> Iterable[Sample]:
        """_bucket, _sum and _count."""
        total = 0
        for bound, count in zip((*self.bounds, math.inf), self.counts, strict=True):
            total += count
            yield "_bucket", (*labels, ("le", number(bound))), total
        yield "_sum", labels, self.sum
        yield "_count", labels, total


class _Source:
    """What is kept of one source."""

    def __init__(self) -> None:
        self.heartbeat: dict[str, Any] = {}
        self.heard_ns: int | None = None
        self.state: str | None = None
        self.age, self.told = Histogram(), Histogram()
        self.messages: Counter[str] = Counter()
        self.events: Counter[tuple[str, str]] = Counter()
        self.ends: Counter[str] = Counter()
        self.resets = 0


class Metrics:
    """Everything that /metrics tells of the lines. For one thread."""

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}

    def take(self, family: str, name: str, message: Mapping[str, Any] | None, now_ns: int) -> None:
        """Counts one message, given as its JSON object (None: a pose). now_ns: monotonic."""
        source = self._sources.setdefault(name, _Source())
        source.messages[family] += 1
        if message is None:
            return
        if family == "heartbeat":
            source.heartbeat, source.heard_ns = dict(message), now_ns
            source.state = _state(message) or source.state
            age = _amount(_of(message, "frame_age_ms", "p95"))
            if age is not None:
                source.age.add(age / 1000)
        elif family == "status":
            source.state = _state(message) or source.state
            source.resets += message.get("state") == "window_reset"
        elif family == "action":
            self._event(source, message)

    def text(self, now_ns: int, more: Iterable[str] = ()) -> bytes:
        """The whole page; more: lines of other writers, whole families each."""
        lines = [
            line for name, kind, what, samples in self._families(now_ns) for line in render(name, kind, what, samples)
        ]
        return ("\n".join([*lines, *more]) + "\n").encode()

    def _event(self, source: _Source, message: Mapping[str, Any]) -> None:
        action, phase = str(_of(message, "action", "id")), str(message.get("phase"))
        if phase not in ("start", "update", "end"):
            return
        if (action, phase) not in source.events and sum(len(s.events) for s in self._sources.values()) >= MOST_SERIES:
            action = "other"
        source.events[action, phase] += 1
        if phase == "end":
            source.ends[str(message.get("end_reason"))[:32] if len(source.ends) < 32 else "other"] += 1
        delay = _amount(_of(message, "latency_ms", "capture_to_publish"))
        if delay is not None:
            source.told.add(delay / 1000)

    def _families(self, now_ns: int) -> Iterable[tuple[str, str, str, list[Sample]]]:
        every = {name: ((("source", name),), source) for name, source in self._sources.items()}
        now = [
            (labels, s) for labels, s in every.values() if s.heard_ns is not None and now_ns - s.heard_ns <= SILENT_NS
        ]

        yield "pcle_line_up", "gauge", "1 while a heartbeat came within the last 3 seconds.", [
            ("", labels, float((labels, s) in now)) for labels, s in every.values()
        ]  # fmt: skip
        yield "pcle_heartbeat_age_seconds", "gauge", "Seconds since the last heartbeat.", [
            ("", labels, (now_ns - s.heard_ns) / 1e9) for labels, s in every.values() if s.heard_ns is not None
        ]  # fmt: skip
        yield "pcle_source_state", "gauge", "State of the source: 1 for the one it is in, 0 for the others.", [
            ("", (*labels, ("state", state)), float(s.state == state))
            for labels, s in every.values() for state in STATES
        ]  # fmt: skip
        for key, name, what, unit in _GAUGES:
            found = [(labels, _amount(s.heartbeat.get(key))) for labels, s in now]
            yield name, "gauge", what, [("", labels, value * unit) for labels, value in found if value is not None]
        yield "pcle_open_events", "gauge", "Occurrences that began and have not ended.", [
            ("", labels, float(len(opened)))
            for labels, s in now if isinstance(opened := s.heartbeat.get("open_events"), list)
        ]  # fmt: skip
        yield "pcle_frame_age_seconds", "gauge", "Age of frames when all was told, over the last second.", [
            ("", (*labels, ("quantile", q)), value / 1000)
            for labels, s in now for q, value in _quantiles(s.heartbeat.get("frame_age_ms"))
        ]  # fmt: skip
        yield "pcle_stage_seconds", "gauge", "Time that a frame spends in each stage, over the last second.", [
            ("", (*labels, ("stage", str(stage)), ("quantile", q)), value / 1000)
            for labels, s in now for stage, pair in _items(s.heartbeat.get("stage_ms")) for q, value in _quantiles(pair)
        ]  # fmt: skip
        for key, name, what in _COUNTERS:
            counts = [(labels, _amount(s.heartbeat.get(key))) for labels, s in every.values()]
            yield name, "counter", what, [("", labels, value) for labels, value in counts if value is not None]
        yield from _counted(list(every.values()))


def _counted(every: list[tuple[Labels, _Source]]) -> Iterable[tuple[str, str, str, list[Sample]]]:
    """What is counted here, from the messages themselves."""
    yield "pcle_messages_total", "counter", "Messages told, by family.", [
        ("", (*labels, ("family", family)), float(n)) for labels, s in every for family, n in sorted(s.messages.items())
    ]  # fmt: skip
    yield "pcle_events_total", "counter", "Action events told, by action and phase (start, update, end).", [
        ("", (*labels, ("action", action), ("phase", phase)), float(n))
        for labels, s in every for (action, phase), n in sorted(s.events.items())
    ]  # fmt: skip
    yield "pcle_event_ends_total", "counter", "Action events ended, by reason.", [
        ("", (*labels, ("reason", reason)), float(n)) for labels, s in every for reason, n in sorted(s.ends.items())
    ]  # fmt: skip
    yield "pcle_window_resets_total", "counter", "Windows of a person that began anew.", [
        ("", labels, float(s.resets)) for labels, s in every
    ]  # fmt: skip
    yield "pcle_frame_age_p95_seconds", "histogram", "Each second's 95th percentile of the age of frames.", [
        sample for labels, s in every for sample in s.age.samples(labels)
    ]  # fmt: skip
    yield "pcle_capture_to_publish_seconds", "histogram", "From a frame's capture until its event was told.", [
        sample for labels, s in every for sample in s.told.samples(labels)
    ]  # fmt: skip


_GAUGES = (
    ("fps", "pcle_frames_per_second", "Frames through the line in the last second.", 1.0),
    ("persons", "pcle_persons", "People in view.", 1.0),
    ("memory_mb", "pcle_memory_bytes", "Resident memory of the line's process.", 1e6),
    ("uptime_s", "pcle_uptime_seconds", "Seconds since the line started.", 1.0),
)
_COUNTERS = (
    ("drops", "pcle_frames_dropped_total", "Frames that a newer one replaced before the line took them."),
    ("refused", "pcle_refused_total", "Frames and poses turned away at a door."),
    ("reconnects", "pcle_reconnects_total", "How often the source was opened again."),
)


def render(name: str, kind: str, what: str, samples: Iterable[Sample]) -> list[str]:
    """One family as lines, none where it has no sample. A value that is no number is left out."""
    lines = [
        f"{name}{suffix}{_braces(labels)} {number(value)}" for suffix, labels, value in samples if not math.isnan(value)
    ]
    return [f"# HELP {name} {_escape(what)}", f"# TYPE {name} {kind}", *lines] if lines else []


def number(value: float) -> str:
    """A value as Prometheus reads it: whole numbers without a point, infinity as +Inf."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))


def process_families() -> list[str]:
    """Memory and open files of this very process, under the names that every exporter uses."""
    lines, resident = [], resident_bytes()
    if resident is not None:
        what = "Resident memory of the process that serves this page."
        lines += render("process_resident_memory_bytes", "gauge", what, [("", (), float(resident))])
    with suppress(OSError):  # no Linux, or no file to spare: the page goes without
        opened = float(len(os.listdir("/proc/self/fd")))
        lines += render("process_open_fds", "gauge", "Open files and sockets of that process.", [("", (), opened)])
    spent = round(time.process_time(), 3)
    return lines + render("process_cpu_seconds_total", "counter", "Processor time of that process.", [("", (), spent)])


def _braces(labels: Labels) -> str:
    inner = ",".join(f'{name}="{_escape(value, quoted=True)}"' for name, value in labels)
    return f"{{{inner}}}" if inner else ""


def _escape(value: str, quoted: bool = False) -> str:
    """Backslash and line feed, in labels also the quotation mark; what UTF-8 cannot write becomes '?'."""
    plain = value.replace("\\", r"\\").replace("\n", r"\n").encode("utf-8", "replace").decode()
    return plain.replace('"', r"\"") if quoted else plain


def _of(message: Mapping[str, Any], name: str, key: str) -> Any:
    inner = message.get(name)
    return inner.get(key) if isinstance(inner, dict) else None


def _state(message: Mapping[str, Any]) -> str | None:
    state = message.get("state")
    return state if isinstance(state, str) and state in STATES else None


def _amount(value: Any) -> float | None:
    """The value if it is a finite number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value < 2**63 else None


def _items(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items())[:16] if isinstance(value, dict) else []


def _quantiles(pair: Any) -> list[tuple[str, float]]:
    found = (
        [(label, _amount(pair.get(key))) for key, label in (("p50", "0.5"), ("p95", "0.95"))]
        if isinstance(pair, dict)
        else []
    )
    return [(label, value) for label, value in found if value is not None]
