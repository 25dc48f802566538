"""What the server answers: files, state, health and metrics, from the messages it was fed."""

from __future__ import annotations

from collections.abc import Mapping

from realtime.metrics import CONTENT_TYPE, Metrics, process_families, render
from realtime.web.latest import Latest, Told
from realtime.web.request import Refusal
from realtime.web.stats import WebStats
from realtime.web.stream import sse

NOTES = {
    "subscribers": ("pcle_subscribers", "gauge", "Subscribers of the bus."),
    "outlet_restarts": (
        "pcle_outlet_restarts_total",
        "counter",
        "How often the process that holds the sockets was started again.",
    ),
    "outlet_memory_bytes": (
        "pcle_outlet_memory_bytes",
        "gauge",
        "Resident memory of the process that holds the sockets.",
    ),
    "handshakes_refused": (
        "pcle_handshakes_refused_total",
        "counter",
        "Clients whose key was turned away since that process was started.",
    ),
}
_OWN = (
    ("streams", "pcle_web_streams", "gauge", "Readers of /events."),
    ("requests", "pcle_web_requests_total", "counter", "Requests answered."),
    ("refused", "pcle_web_refused_total", "counter", "Requests that broke a rule."),
    ("turned_away", "pcle_web_turned_away_total", "counter", "Connections beyond the limit."),
    ("gaps", "pcle_web_gaps_total", "counter", "Times that a reader of /events fell behind and was told."),
    ("dropped_poses", "pcle_web_dropped_poses_total", "counter", "Poses that readers were too slow for."),
    ("not_understood", "pcle_web_not_understood_total", "counter", "Messages fed that are none."),
    ("failures", "pcle_web_failures_total", "counter", "Faults of the server while one client was served."),
)
_JSON = "application/json"


class Answers:
    """Takes in messages and says what stands at each path. For one thread."""

    def __init__(self, files: Mapping[str, tuple[bytes, str]]) -> None:
        self._files = files
        self._latest, self._metrics = Latest(), Metrics()
        self._malformed = 0

    @property
    def not_understood(self) -> int:
        """Messages that are none."""
        return self._latest.not_understood + self._malformed

    def take(self, topic: str, payload: bytes, fed_ns: int) -> Told | None:
        """Takes in one message; None where it is not to be passed on."""
        try:
            told = self._latest.take(topic, payload, fed_ns)
            if told is not None:
                self._metrics.take(told.family, told.source, told.message, fed_ns)
        except (
            TypeError,
            ValueError,
            KeyError,
            AttributeError,
        ):  # JSON, but a field is of another kind than it should be
            self._malformed += 1
            return None
        return told

    def catch_up(self, families: frozenset[str], now_ns: int) -> bytes:
        """What brings a reader of /events up to date: the state of everything, then the newest messages themselves.

        "live" ends it: what comes after that is new.
        """
        state = sse("snapshot", self._latest.state(now_ns))
        return b"".join([state, *self._latest.replay(families), sse("live", b"{}")])

    def content(self, path: str, now_ns: int, stats: WebStats, notes: Mapping[str, float]) -> tuple[int, bytes, str]:
        """Status, body and type of what stands at a path; Refusal (404) where nothing does."""
        if path in self._files:
            body, kind = self._files[path]
            return 200, body, kind
        if path == "/state.json":
            return 200, self._latest.state(now_ns), _JSON
        if path == "/metrics":
            return 200, self._metrics.text(now_ns, _own_families(stats, notes)), CONTENT_TYPE
        if path in ("/healthz", "/readyz"):
            alive, ready, body = self._latest.health(now_ns)
            return 200 if (alive if path == "/healthz" else ready) else 503, body, _JSON
        raise Refusal(404, "there is /, /events, /metrics, /healthz, /readyz, /state.json and /layouts.json")


def _own_families(stats: WebStats, notes: Mapping[str, float]) -> list[str]:
    lines = [line for name in sorted(notes) for line in render(*NOTES[name], [("", (), float(notes[name]))])]
    for field, name, kind, what in _OWN:
        lines += render(name, kind, what, [("", (), float(getattr(stats, field)))])
    return lines + process_families()
