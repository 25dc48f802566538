"""The child program that holds every network socket of a line: python -m realtime.outlet_child FD PARENT MEMORY_MB

Started and supervised by realtime/outlet.py. It does what frames on descriptor FD tell it, keeps what was published
for replay, and dies with its parent. Whatever a stranger does to its sockets, it costs this process at most. It loads
zmq and the standard library only, so that it is there before the models are; the page and the keys where asked for.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import zmq
from zmq.utils.monitor import parse_monitor_message

from realtime.bus import HIGH_WATER, KEEPALIVE_S
from realtime.confinement import confine
from realtime.errors import LineError, UsageError
from realtime.history import read_history
from realtime.journal import read_tail
from realtime.memory import resident_bytes
from realtime.outlet_wire import (
    AGAIN,
    ANSWER,
    BOUND,
    CLOSE,
    CONFIG,
    MESSAGE,
    PUBLISH,
    PULSE,
    REFUSED,
    REQUEST,
    TELL,
    FrameError,
    Parcel,
    Reader,
    heard,
    requested,
    say,
)  # fmt: skip
from realtime.replay import reply
from realtime.ring import Ring

PULSE_S = 0.2
LINGER_MS = 500  # how long closing waits for the last messages to leave
LARGEST_REQUEST = 65_536  # what a stranger may send us in one frame
HANDSHAKE_MS = 5000
TOPICS_COUNTED = 10_000
ANSWERS_WAITING = 8  # of a client that asks and does not read
REQUESTS_OPEN = 64  # control requests that the line has not answered
UNSENT_AT_MOST = 1 << 20  # towards a line that does not listen; then control requests are refused
BATCH = 500  # messages taken from one socket before the others have their turn
# No ZMTP heartbeats where events go out: a subscriber whose queue is full does not answer them, would be cut off and
# connect again, and libzmq 4.3.5 then aborts the subscriber's program (assertion _input_stopped). TCP asks instead.
_KEEPALIVES = (zmq.TCP_KEEPALIVE, zmq.TCP_KEEPALIVE_IDLE, zmq.TCP_KEEPALIVE_INTVL, zmq.TCP_KEEPALIVE_CNT)
KEEPALIVE = dict(zip(_KEEPALIVES, KEEPALIVE_S, strict=True))

Socket: TypeAlias = "zmq.Socket[bytes]"
Serve = Callable[[Socket], None]
Secure = Callable[[Socket], None] | None


class Peers:
    """Counts who is connected to a socket, from what zmq tells of it. Who does not shake hands is soon cut off."""

    def __init__(self, watched: Socket) -> None:
        self.socket = watched.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self.socket.setsockopt(zmq.LINGER, 0)
        self._connections: set[int] = set()  # descriptors

    @property
    def count(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    def take(self) -> None:
        """Reads what was told."""
        for _ in range(BATCH):
            try:
                told = parse_monitor_message(self.socket.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return
            if told["event"] == zmq.EVENT_ACCEPTED:
                self._connections.add(told["value"])
            else:
                self._connections.discard(told["value"])


class Channel(logging.Handler):
    """The child's end of the conversation with its line; what modules log goes to the line as well.

    The page's thread logs too, so any thread may speak; one listens.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(logging.WARNING)
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._reader, self._unsent = Reader(), bytearray()
        self._speaks = threading.Lock()  # of what is unsent; nothing is logged while it is held

    def fileno(self) -> int:
        """For polling."""
        return self._socket.fileno()

    def say(self, kind: int, **fields: Any) -> bool:
        """Sends a frame as soon as the line takes it; False where too much waits already, and then it is dropped."""
        with self._speaks:
            if len(self._unsent) > UNSENT_AT_MOST:
                return False
            self._unsent += say(kind, **fields)
            self._send()
            return True

    def flush(self) -> None:
        """Sends what waits, as far as the line takes it."""
        with self._speaks:
            self._send()

    def _send(self) -> None:
        with suppress(BlockingIOError, ConnectionError):  # a line that is gone shows when it is read
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]

    def listen(self) -> list[tuple[int, bytes]] | None:
        """Frames that came; None where the line is gone."""
        try:
            piece = self._socket.recv(1 << 18)
        except BlockingIOError:
            return []
        except ConnectionError:
            return None
        return list(self._reader.feed(piece)) if piece else None

    def emit(self, record: logging.LogRecord) -> None:
        """Sends one line that a module logged."""
        self.say(TELL, text=self.format(record))


class Child:
    """The sockets and what is kept for replay, as one loop."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._ring = Ring()
        self._gate: Any = None  # realtime.zap.Gate
        self._page: Any = None  # realtime.outlet_page.Page
        self._publisher: Socket | None = None
        self._peers: Peers | None = None
        self._serves: dict[Any, Serve] = {}
        self._control: Socket | None = None
        self._asked: OrderedDict[int, list[bytes]] = OrderedDict()  # control requests: number -> who asked
        self._requests = self._restarts = 0
        self._topics: set[bytes] = set()  # that somebody subscribed to
        self._told: tuple[int, int] = (0, 0)
        self._pulsed_s = 0.0
        self._closing_s: float | None = None  # when to close at the latest
        self._asked_s = 0.0  # when somebody last asked for replay

    def run(self) -> int:
        """Serves until told to end, or until the parent is gone; returns the exit code."""
        self._poller.register(self._channel, zmq.POLLIN)
        while not self._over():
            ready = dict(self._poller.poll(int(PULSE_S * 1000) if self._closing_s is None else 20))
            if self._channel.fileno() in ready:
                frames = self._channel.listen()
                if frames is None:
                    break
                for kind, body in frames:
                    self._obey(kind, body)
            for sock, serve in self._serves.items():
                if sock in ready:
                    serve(sock)
            if self._page is not None:
                self._page.tend()
            self._pulse()
            if self._gate is not None and self._gate.changed():
                return AGAIN  # who was revoked stays connected until every socket is closed
        self._close()
        return 0

    def _obey(self, kind: int, body: bytes) -> None:
        if kind == MESSAGE:
            self._publish(Parcel.of(body))
        elif kind == ANSWER:
            self._return(heard(body))
        elif kind == CONFIG:
            self._open(heard(body))
        elif kind == CLOSE:
            self._asked_s = time.monotonic()
            self._closing_s = self._asked_s + LINGER_MS / 1000

    def _publish(self, parcel: Parcel) -> None:
        self._ring.add(parcel)
        if self._publisher is not None and parcel.does & PUBLISH:
            self._publisher.send_multipart((parcel.topic.encode(), parcel.payload), zmq.NOBLOCK)
        if self._page is not None:
            self._page.feed(parcel.topic, parcel.payload)

    def _open(self, config: dict[str, Any]) -> None:
        """Takes over the listening sockets and what was published before; then the line hears that all is open."""
        if config["journal"]:
            for family, session, seq, payload in read_tail(Path(config["journal"])):
                self._ring.keep(family, session, seq, payload)
        if config["http"]:
            from realtime.outlet_page import Page

            self._page = Page(config["http"], self._ring.newest)
        for parcel in read_history([(int(descriptor), int(size)) for descriptor, size in config["history"]]):
            self._ring.add(parcel)
            if self._page is not None:  # a page is to know what was, also after we were started anew
                self._page.feed(parcel.topic, parcel.payload)
        if config["session"]:
            self._ring.started(config["session"], config["following"])
        self._restarts = config["restarts"]
        keys = self._guard(Path(config["keys"])) if config["keys"] else None
        if config["publish"]:
            self._publisher = self._bound(zmq.XPUB, config["publish"], HIGH_WATER, self._take_subscriptions, keys)
            self._peers = Peers(self._publisher)
            self._serve(self._peers.socket, lambda _: self._peers.take() if self._peers else None)
        if config["replay"]:
            self._bound(zmq.ROUTER, config["replay"], ANSWERS_WAITING, self._answer, keys)
        if config["control"]:
            self._control = self._bound(zmq.ROUTER, config["control"], ANSWERS_WAITING, self._forward, keys)
        self._channel.say(BOUND)

    def _guard(self, folder: Path) -> Secure:
        """Lets nobody in whose key is not listed; before any socket is bound."""
        from realtime.keys import Allowed, load_server
        from realtime.zap import Gate, secure_server

        keys = load_server(folder)
        self._gate = Gate(self._context, Allowed(folder))
        self._serve(self._gate.socket, lambda _: self._gate.answer())
        return lambda sock: secure_server(sock, keys)

    def _bound(self, kind: int, listening: tuple[int, str], high_water: int, serve: Serve, secure: Secure) -> Socket:
        """A socket that takes over a listening descriptor of the line's."""
        descriptor, address = listening
        made: Socket = self._context.socket(kind)
        options = {
            zmq.USE_FD: descriptor,
            zmq.SNDHWM: high_water,
            zmq.RCVHWM: 1000,
            zmq.LINGER: LINGER_MS,
            zmq.IPV6: int("[" in address),
            zmq.MAXMSGSIZE: LARGEST_REQUEST,
            zmq.HANDSHAKE_IVL: HANDSHAKE_MS,
            **KEEPALIVE,
        }
        if kind != zmq.XPUB:
            options |= {zmq.HEARTBEAT_IVL: 1000, zmq.HEARTBEAT_TIMEOUT: 3000, zmq.HEARTBEAT_TTL: 3000}
        for option, value in options.items():
            made.setsockopt(option, value)
        if secure is not None:
            secure(made)
        made.bind(address)
        self._serve(made, serve)
        return made

    def _serve(self, sock: Any, serve: Serve) -> None:
        self._poller.register(sock, zmq.POLLIN)
        self._serves[sock] = serve

    def _take_subscriptions(self, publisher: Socket) -> None:
        """Reads what subscribers sent; unread, it would pile up."""
        for _ in range(BATCH):
            try:
                told = publisher.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            if told[:1] == b"\x00":
                self._topics.discard(told[1:])
            elif told[:1] == b"\x01" and len(self._topics) < TOPICS_COUNTED:
                self._topics.add(told[1:])

    def _answer(self, replay: Socket) -> None:
        """Answers what clients missed. A client that does not read its answers loses them and asks again."""
        for _ in range(BATCH // 10):
            try:
                *envelope, request = replay.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._asked_s = time.monotonic()
            replay.send_multipart([*envelope, *reply(request, self._ring)], zmq.NOBLOCK)

    def _forward(self, control: Socket) -> None:
        """Gives requests to the line, which decides."""
        for _ in range(BATCH // 10):
            try:
                *envelope, request = control.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                fields = requested(request)
                if "get" in fields:  # what was published: the line need not be asked
                    control.send_multipart([*envelope, *reply(request, self._ring)], zmq.NOBLOCK)
                    continue
                taken = len(self._asked) < REQUESTS_OPEN and self._channel.say(
                    REQUEST, number=self._requests + 1, body=fields
                )
                why = "too many requests are waiting; ask again"
            except (FrameError, RecursionError) as error:
                taken, why = False, f"a request is a JSON object: {error}"
            if taken:
                self._requests += 1
                self._asked[self._requests] = envelope
            else:
                control.send_multipart([*envelope, _json(ok=False, error=why)], zmq.NOBLOCK)

    def _return(self, fields: dict[str, Any]) -> None:
        envelope = self._asked.pop(int(fields["number"]), None)
        if envelope is not None and self._control is not None:
            self._control.send_multipart([*envelope, _json(**fields["reply"])], zmq.NOBLOCK)

    def _pulse(self) -> None:
        """Tells the line that we are alive; at once where somebody came or went."""
        now_s = time.monotonic()
        figures = (self._peers.count if self._peers else 0, len(self._topics))
        if now_s - self._pulsed_s >= (PULSE_S if figures == self._told else PULSE_S / 10):
            self._pulsed_s, self._told = now_s, figures
            if self._page is not None:
                self._page.note(
                    subscribers=figures[0],
                    outlet_restarts=self._restarts,
                    outlet_memory_bytes=resident_bytes() or math.nan,
                    handshakes_refused=0 if self._gate is None else self._gate.refused,
                )
            self._channel.say(PULSE, subscribers=figures[0], subscriptions=figures[1])
        self._channel.flush()

    def _over(self) -> bool:
        """Whether to close: told so, and nobody is asking for what was missed any more."""
        if self._closing_s is None:
            return False
        now_s = time.monotonic()
        return now_s >= self._closing_s or not (self._peers and self._peers.count) or now_s - self._asked_s > 0.1

    def _close(self) -> None:
        if self._page is not None:
            self._page.close()
        self._context.destroy(linger=LINGER_MS)


def _json(**fields: Any) -> bytes:
    return say(ANSWER, **fields)[5:]


def main(arguments: list[str]) -> int:
    """FD PARENT MEMORY_MB; returns the exit code."""
    descriptor, parent, memory_mb = map(int, arguments)
    confine(parent, memory_mb)
    channel = Channel(descriptor)
    logging.getLogger().addHandler(channel)
    try:
        return Child(channel).run()
    except LineError as error:
        channel.say(REFUSED, error=str(error), code=error.exit_code)
    except (zmq.ZMQError, OSError) as error:
        channel.say(REFUSED, error=str(error), code=UsageError.exit_code)
    return 1


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # nothing is left to be saved, and threads of a page must not hold us
