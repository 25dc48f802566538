"""One connection of the web server: bytes in up to a request, bytes out, a deadline for each; never waited for."""

from __future__ import annotations

import socket
from typing import Literal

from realtime.web.request import MOST_HEAD, Refusal
from realtime.web.stream import Stream

State = Literal["reading", "answering", "streaming", "leaving"]
HEAD_NS = 5_000_000_000  # for a whole request: a slow one is cut off
ANSWER_NS = 15_000_000_000  # for taking an answer
LEAVE_NS = 1_000_000_000  # for the other side to close, so that it gets the answer whole
STUCK_NS = 60_000_000_000  # a reader of events that takes nothing for so long is cut off
_MOST_DISCARDED = 64 * 1024
SEND_BUFFER = 128 * 1024  # the kernel's, for each connection


class Client:
    """A connected socket, non-blocking. Every method returns at once; OSError means that the other side is gone."""

    def __init__(self, connection: socket.socket, now_ns: int) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self.state: State = "reading"
        self.deadline_ns = now_ns + HEAD_NS
        self.begun_ns = now_ns
        self.stream: Stream | None = None
        self.mask = 0  # what the selector was last asked to watch for
        self._head = bytearray()
        self._out = memoryview(b"")
        self._discarded = 0

    @property
    def pending(self) -> bool:
        """Whether bytes wait to be sent."""
        return len(self._out) > 0

    @property
    def is_leaving(self) -> bool:
        """Whether it got its answer and is only waited for to close."""
        return self.state == "leaving"

    def read_head(self) -> bytes | None:
        """The request's head once it is whole; None so far. Refusal where it is too long, OSError at its end."""
        data = self.socket.recv(MOST_HEAD)
        if not data:
            raise ConnectionResetError("closed before the request was whole")
        self._head += data
        head, end, _ = self._head.partition(b"\r\n\r\n")
        if end and len(head) <= MOST_HEAD:
            self._head.clear()
            return bytes(head)
        if len(self._head) > MOST_HEAD:
            raise Refusal(431, f"a request's head has at most {MOST_HEAD} bytes")
        return None

    def discard(self) -> None:
        """Reads what is of no interest any more; OSError at its end, or where it does not end."""
        data = self.socket.recv(MOST_HEAD)
        self._discarded += len(data)
        if not data or self._discarded > _MOST_DISCARDED:
            raise ConnectionResetError("closed")

    def answer(self, data: bytes, now_ns: int) -> None:
        """Begins to send a whole answer, after which the connection closes."""
        self.state, self.deadline_ns = "answering", now_ns + ANSWER_NS
        self._out = memoryview(data)
        self.send(now_ns)

    def begin_stream(self, head: bytes, stream: Stream, now_ns: int) -> None:
        """Begins to send events."""
        self.state, self.stream, self.deadline_ns = "streaming", stream, now_ns + STUCK_NS
        self._out = memoryview(head)
        self.send(now_ns)

    def load(self, data: bytes) -> None:
        """The next bytes to send; only where none are pending."""
        self._out = memoryview(data)

    def send(self, now_ns: int) -> None:
        """Sends what goes out now, and turns to leaving once an answer is out."""
        while self._out:
            try:
                sent = self.socket.send(self._out)
            except BlockingIOError:
                return
            self._out = self._out[sent:]
            if self.state == "streaming":
                self.deadline_ns = now_ns + STUCK_NS
        if self.state == "answering":
            self.state, self.deadline_ns = "leaving", now_ns + LEAVE_NS
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Frees the socket."""
        self.socket.close()
