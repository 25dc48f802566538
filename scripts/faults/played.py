"""A source played as the line plays it, with what came out of it noted: pictures by their stamps, and changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from realtime.feed import Change
from realtime.schema import Frame
from realtime.source import Source, open_source
from scripts.faults.fault import Failed
from scripts.mjpeg_server import stamp_of


@dataclass(frozen=True)
class Picture:
    """One delivered picture. at_s: when; number: its stamp, None where it is damaged or has none; age_ms: then."""

    at_s: float
    number: int | None
    size: tuple[int, int]
    age_ms: float


class Played(AbstractContextManager["Played"]):
    """Plays a source in a thread; `pictures` and `changes` are what came."""

    def __init__(self, spec: str) -> None:
        self.pictures: list[Picture] = []
        self.changes: list[tuple[float, Change]] = []
        self.error: Exception | None = None
        self._done = threading.Event()
        self.source: Source = open_source(spec, fast=False)
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._thread.start()

    def _play(self) -> None:
        try:
            for item in self.source:
                now = time.monotonic()
                if isinstance(item, Change):
                    self.changes.append((now, item))
                elif isinstance(item, Frame) and item.image is not None:
                    height, width = item.image.shape[:2]
                    age_ms = now * 1e3 - item.captured_ns / 1e6
                    self.pictures.append(Picture(now, stamp_of(item.image), (width, height), age_ms))
                if self._done.is_set():
                    return
        except Exception as error:  # noqa: BLE001 - whatever ended the source is told where it is waited for
            self.error = error

    def wait_change(self, *states: str, timeout_s: float, since: float = 0.0) -> float:
        """When the source was told to be in one of these states."""
        return self._wait(
            lambda: next((at for at, c in self.changes if at >= since and c.state in states), None),
            f"change to {' or '.join(states)}", timeout_s,
        )  # fmt: skip

    def wait_picture(self, timeout_s: float, since: float = 0.0) -> float:
        """When a picture was delivered after `since`."""
        return self._wait(lambda: next((p.at_s for p in self.pictures if p.at_s > since), None), "picture", timeout_s)

    def bogus(self, since: float, until: float = float("inf")) -> int:
        """Pictures delivered in this time that are damaged, or were delivered before."""
        told = [p for p in self.pictures if since <= p.at_s <= until]
        before = {p.number for p in self.pictures if p.at_s < since}
        return sum(p.number is None or p.number in before for p in told)

    def _wait(self, look: Callable[[], float | None], what: str, timeout_s: float) -> float:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            at = look()
            if at is not None:
                return at
            if self.error is not None:
                raise Failed(f"the source ended before a {what}: {self.error}")
            time.sleep(0.005)
        states = [c.state for _, c in self.changes]
        raise Failed(f"no {what} within {timeout_s:g} s; changes {states}, {len(self.pictures)} pictures")

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.source.close()
        self._thread.join(timeout=3)
