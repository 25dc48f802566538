"""An `EventSubscriber` in a thread, which notes what it was told, what was recovered and what was lost."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from realtime.gap import Gap, Joined, Silence
from realtime.messages import ActionEvent, Heartbeat, Status
from realtime.subscriber import EventSubscriber
from realtime.wire import family
from scripts.faults.fault import Failed


class Following(AbstractContextManager["Following"]):
    """Follows a line's events and recovers what it missed.

    lost, recovered: messages, by its gaps. session: of the publisher, None before the first. last_s: when anything
    came. silent: whether nothing, not even a heartbeat, came for seconds; silences: how often that was so.
    """

    def __init__(self, address: str, keys: Path | None = None, **options: Any) -> None:
        self.seen: list[tuple[float, ActionEvent | Status]] = []
        self.gaps: list[Gap] = []
        self.lost = self.recovered = self.silences = 0
        self.session: str | None = None
        self.sessions: list[tuple[float, str]] = []
        self.last_s = time.monotonic()
        self.silent = False
        self._paused_until = 0.0
        self._done = threading.Event()
        self._subscriber = EventSubscriber(address, **options)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def pause(self, seconds: float) -> None:
        """Reads nothing for so long."""
        self._paused_until = time.monotonic() + seconds

    def numbers(self, of: str) -> list[int]:
        """The numbers of one family of the newest session, in the order in which they were told."""
        return [m.seq for _, m in self.seen if family(m) == of and m.session == self.session]

    def wait_session(self, timeout_s: float, other_than: str | None = None) -> float:
        """When a session was joined, other than the one named; Failed where none is in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            joined = [at for at, session in self.sessions if session != other_than]
            if joined:
                return joined[0]
            time.sleep(0.01)
        raise Failed(f"no {'new ' if other_than else ''}session within {timeout_s:g} s")

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(timeout=5)
        self._subscriber.close()

    def _listen(self) -> None:
        while not self._done.is_set():
            if time.monotonic() < self._paused_until:
                time.sleep(0.05)
                continue
            item = self._subscriber.receive(0.1)
            if item is None:
                continue
            now = time.monotonic()
            if isinstance(item, Silence):
                self.silent = True
                self.silences += 1
                continue
            self.last_s, self.silent = now, False
            if isinstance(item, Gap):
                self.gaps.append(item)
                self.lost += item.lost or 0
                self.recovered += item.recovered
            elif isinstance(item, Joined):
                if item.session is not None:
                    self._join(item.session, now)
            elif isinstance(item, (ActionEvent, Status)):
                self.seen.append((now, item))
                self._join(item.session, now)
            elif isinstance(item, Heartbeat):
                self._join(item.session, now)

    def _join(self, session: str, now: float) -> None:
        if session != self.session:
            self.session = session
            self.sessions.append((now, session))
