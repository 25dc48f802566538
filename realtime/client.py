"""The sockets of whoever reads a bus: a subscriber that counts what it misses, a client of replay. A door to zmq."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import zmq

from realtime.bus import DEFAULT_ADDRESS, HIGH_WATER, KEEPALIVE_S
from realtime.errors import UsageError
from realtime.messages import AnyMessage, Heartbeat, MessageError, decode
from realtime.wire import family, topic

Secure = Callable[["zmq.Socket[bytes]"], None]  # makes a socket safe before it connects, as zap.secure_client does


@dataclass(frozen=True, slots=True)
class Received:
    """One validated message and its payload as it came, with fields that this version does not know.

    lost: messages missed before it, of its own family (of any family, for a heartbeat).
    """

    topic: str
    message: AnyMessage
    payload: bytes
    lost: int


class Subscriber(AbstractContextManager["Subscriber"]):
    """Connects to a publisher, also one that starts later or again, and receives validated messages; for one thread.

    topics: prefixes such as "action." or "action.cam0.start."; "" is everything. `lost` and `refused` count messages
    missed and messages that broke their schema. Loss is only counted in families that the prefixes take whole.
    secure: called with the socket before it connects, for a line with keys.
    Errors: UsageError where the address is malformed.
    """

    def __init__(
        self, address: str = DEFAULT_ADDRESS, topics: Sequence[str] = ("",), secure: Secure | None = None
    ) -> None:
        self.lost = 0
        self.refused = 0
        self._topics = tuple(topics)
        self._expected: dict[str, tuple[str, int]] = {}  # family.source -> session, seq
        self._context = zmq.Context()
        self._socket = connected(self._context, zmq.SUB, address, secure, topics)

    def receive(self, timeout_s: float | None = None) -> Received | None:
        """The next message, or None when none came in time (None waits for ever). Errors: MessageError, then go on."""
        if not self._socket.poll(None if timeout_s is None else max(0, round(timeout_s * 1000))):
            return None
        frames = self._socket.recv_multipart()
        try:
            if len(frames) != 2:
                raise MessageError(f"a message is two frames, topic and JSON; got {len(frames)}")
            name, message = frames[0].decode("utf-8", "replace"), decode(frames[1])
            if name != topic(message):
                raise MessageError(f"topic {name!r} does not fit its message, which belongs under {topic(message)!r}")
        except MessageError:
            self.refused += 1
            raise
        lost = self._missing(message)
        self.lost += lost
        return Received(name, message, frames[1], lost)

    def waiting(self) -> bool:
        """Whether something can be received at once."""
        return bool(self._socket.poll(0))

    def close(self) -> None:
        """Disconnects; what was not read is dropped."""
        self._socket.close()
        self._context.term()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _missing(self, message: AnyMessage) -> int:
        source = message.source if isinstance(message.source, str) else message.source.id
        lost = self._advance(message.session, f"{family(message)}.{source}", message.seq, message.seq + 1)
        if isinstance(message, Heartbeat):
            for name, number in message.next_seq.items():
                if name != "heartbeat":
                    lost += self._advance(message.session, f"{name}.{source}", number, number)
        return lost

    def _advance(self, session: str, stream: str, number: int, following: int) -> int:
        """How many messages were skipped to reach this number. A first session is joined late, a second one is not."""
        whole = any(f"{stream}.".startswith(prefix) or stream == prefix for prefix in self._topics)
        if not whole:
            return 0
        before, expected = self._expected.get(stream, (session, number))
        if before != session:
            expected = 0
        self._expected[stream] = (session, max(following, expected))
        return max(0, number - expected)


class ReplayClient:
    """Asks a publisher for what was missed; one question at a time."""

    def __init__(self, address: str, secure: Secure | None = None) -> None:
        self._context = zmq.Context()
        self._socket = connected(self._context, zmq.DEALER, address, secure)
        self._number = 0

    def ask(self, **request: Any) -> bool:
        """Sends a question; False where nobody is connected."""
        self._number += 1
        body = json.dumps({k: v for k, v in request.items() if v is not None} | {"id": self._number}).encode()
        try:
            self._socket.send(body, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def answer(self, timeout_s: float) -> tuple[dict[str, Any], list[bytes]] | None:
        """The answer to the last question: its head, and messages. None where none came in time."""
        deadline = time.monotonic() + timeout_s
        while self._socket.poll(max(0, round((deadline - time.monotonic()) * 1000))):
            head, *messages = self._socket.recv_multipart()
            with suppress(ValueError, RecursionError):  # whatever it is, it is no answer of ours
                fields = json.loads(head)
                if isinstance(fields, dict) and fields.get("id") == self._number:
                    return fields, messages
        return None

    def close(self) -> None:
        """Disconnects."""
        self._socket.close()
        self._context.term()


def connected(
    context: zmq.Context[zmq.Socket[bytes]], kind: int, address: str, secure: Secure | None, topics: Sequence[str] = ()
) -> zmq.Socket[bytes]:
    """A socket of a client, connected. UsageError where the address is malformed."""
    made = context.socket(kind)
    options = {
        zmq.RCVHWM: HIGH_WATER,
        zmq.LINGER: 0,
        zmq.IPV6: int("[" in address),
        zmq.RECONNECT_IVL: 100,
        zmq.RECONNECT_IVL_MAX: 1000,
        # No ZMTP heartbeats: a full queue would look like a dead publisher, and connecting again with a full queue
        # aborts the program (libzmq 4.3.5, assertion _input_stopped).
        zmq.TCP_KEEPALIVE: KEEPALIVE_S[0],
        zmq.TCP_KEEPALIVE_IDLE: KEEPALIVE_S[1],
        zmq.TCP_KEEPALIVE_INTVL: KEEPALIVE_S[2],
        zmq.TCP_KEEPALIVE_CNT: KEEPALIVE_S[3],
        zmq.IMMEDIATE: int(kind == zmq.DEALER),  # no question waits for a connection that is not there
    }
    for option, value in options.items():
        made.setsockopt(option, value)
    for prefix in topics:
        made.setsockopt_string(zmq.SUBSCRIBE, prefix)
    try:
        if secure is not None:
            secure(made)
        made.connect(address)
    except zmq.ZMQError as error:
        context.destroy(linger=0)
        raise UsageError(f"cannot connect to {address!r}: {error}; try {DEFAULT_ADDRESS}") from error
    return made
