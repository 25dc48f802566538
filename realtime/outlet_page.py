"""The page of a line, in the child that holds its sockets: whatever happens to it, the bus goes on.

It is served on a socket that the line bound, so that nobody takes the address while the page, or the child, is
started anew; browsers that come meanwhile wait in the kernel's queue.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable

from realtime.backoff import Backoff
from realtime.outlet_wire import Parcel
from realtime.web import WebServer

log = logging.getLogger(__name__)


class Page:
    """A web server that is made anew where its thread ended or it could not be made. Raises nothing for that."""

    def __init__(self, descriptor: int, newest: Callable[[], Iterable[Parcel]], backoff: Backoff | None = None) -> None:
        """descriptor: a listening socket, from here on ours. newest: what a server that is made later must know."""
        self._listener = socket.socket(fileno=descriptor)
        self._listener.setblocking(False)
        self._newest, self._backoff = newest, backoff or Backoff()
        self._server: WebServer | None = None
        self._begun_s = self._due_s = 0.0
        self.tend()

    def tend(self) -> None:
        """Makes the server anew where it is gone and the time has come; several times a second."""
        now_s = time.monotonic()
        if self._server is not None and not self._server.alive:
            self._server = None
            self._backoff.was_healthy(now_s - self._begun_s)
            self._later(now_s, "its thread ended")
        elif self._server is None and now_s >= self._due_s:
            self._serve(now_s)

    def feed(self, topic: str, payload: bytes) -> None:
        """Hands one message over, as WebServer.feed does."""
        if self._server is not None:
            self._server.feed(topic, payload)

    def note(self, **figures: float) -> None:
        """Figures for /metrics, as WebServer.note takes them."""
        if self._server is not None:
            self._server.note(**figures)

    def close(self) -> None:
        """Cuts everybody off."""
        if self._server is not None:
            self._server.close()
        self._listener.close()

    def _serve(self, now_s: float) -> None:
        try:
            listener = self._listener.dup()  # a server closes its own
            try:
                self._server = WebServer(listener)
            except BaseException:
                listener.close()
                raise
        except (OSError, RuntimeError, MemoryError) as error:  # no file, thread or memory to spare
            self._later(now_s, f"{type(error).__name__}: {error}")
            return
        self._begun_s = now_s
        for parcel in self._newest():
            self._server.feed(parcel.topic, parcel.payload)

    def _later(self, now_s: float, why: str) -> None:
        self._due_s = now_s + self._backoff.wait_s()
        log.warning("the page is away (%s); it is made anew, and the bus is not touched", why)
