"""Messages over ZeroMQ: a publisher that never blocks, and a subscriber that notices what it missed.

The only door to zmq. Two frames, topic and JSON. Publish/subscribe is at most once: a subscriber that connects late
or reads slowly misses messages, sees it by `seq`, and learns from the heartbeat what is open.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
import time
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import zmq

from realtime.errors import AddressError, UsageError
from realtime.messages import AnyMessage, Heartbeat, MessageError, decode, encode
from realtime.wire import family, topic

DEFAULT_ADDRESS = "tcp://127.0.0.1:5556"
HIGH_WATER = 10_000  # messages kept for a slow subscriber; a burst can lose some from about half of it on
LINGER_MS = 500  # how long closing waits for the last messages to leave
_SETTLE_S = 0.05  # the subscriptions of one subscriber arrive together
_LONGEST_IPC_PATH = 107  # sockaddr_un


class Numbers:
    """The sequence numbers of one session: per topic family from 0, +1."""

    def __init__(self, session: str | None = None) -> None:
        self.session = session or uuid.uuid4().hex
        self._next: dict[str, int] = {}

    def take(self, name: str) -> int:
        """The number of the next message of a family (action, status, heartbeat, scores, pose)."""
        number = self._next.get(name, 0)
        self._next[name] = number + 1
        return number

    @property
    def next(self) -> dict[str, int]:
        """What each family's next message will carry; for heartbeats."""
        return dict(self._next)


class Publisher(AbstractContextManager["Publisher"]):
    """Binds an address and sends messages; for one thread.

    address: tcp:// on this machine's loopback, port `*` for any free one, or ipc:// and a path. `self.address` is the
    address that was bound. Errors: UsageError (address malformed, or open to the network), AddressError (in use).
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, *, linger_ms: int = LINGER_MS) -> None:
        _check_local(address)
        self._subscribed = False
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)  # like PUB, but tells when a subscriber came
        options = {
            zmq.SNDHWM: HIGH_WATER,
            zmq.LINGER: linger_ms,
            zmq.IPV6: int("[" in address),
            zmq.MAXMSGSIZE: 65_536,  # what a subscriber may send us: only subscriptions
            zmq.TCP_KEEPALIVE: 1,
            zmq.HEARTBEAT_IVL: 1000,
            zmq.HEARTBEAT_TIMEOUT: 3000,
            zmq.HEARTBEAT_TTL: 3000,
        }
        for option, value in options.items():
            self._socket.setsockopt(option, value)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise _bind_error(address, error) from error
        self.address: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._file = _socket_file(self.address)

    def publish(self, message: AnyMessage) -> bytes:
        """Sends one message under its own topic and returns its payload; never blocks.

        Errors: MessageError where the message breaks its schema; then nothing is sent.
        """
        name, payload = topic(message), encode(message)
        self._take_subscriptions()
        self._socket.send_multipart((name.encode(), payload), flags=zmq.NOBLOCK)
        return payload

    def wait_for_subscriber(self, timeout_s: float) -> bool:
        """Whether somebody subscribed within the time; for demos and tests, where no message may be missed."""
        deadline = time.monotonic() + timeout_s
        while not self._subscribed:
            left_ms = int((deadline - time.monotonic()) * 1000)
            if left_ms <= 0 or not self._socket.poll(left_ms):
                return False
            self._take_subscriptions()
        while self._socket.poll(int(_SETTLE_S * 1000)):
            self._take_subscriptions()
        return True

    def close(self) -> None:
        """Gives the last messages up to `linger_ms` to leave, then frees the address."""
        self._socket.close()
        self._context.term()
        if self._file is not None and _socket_file(self.address) == self._file:  # another may have taken the path since
            Path(self._file[0]).unlink(missing_ok=True)
        self._file = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take_subscriptions(self) -> None:
        """Reads what subscribers sent; unread, it would pile up."""
        for _ in range(1000):  # a bound, so a flood of subscriptions cannot hold the line
            try:
                self._subscribed |= self._socket.recv(zmq.NOBLOCK)[:1] == b"\x01"
            except zmq.Again:
                return


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
    Errors: UsageError where the address is malformed.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, topics: Sequence[str] = ("",)) -> None:
        self.lost = 0
        self.refused = 0
        self._topics = tuple(topics)
        self._expected: dict[str, tuple[str, int]] = {}  # family.source -> session, seq
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        options = {
            zmq.RCVHWM: HIGH_WATER,
            zmq.LINGER: 0,
            zmq.IPV6: int("[" in address),
            zmq.RECONNECT_IVL: 100,
            zmq.RECONNECT_IVL_MAX: 1000,
            zmq.HEARTBEAT_IVL: 1000,
            zmq.HEARTBEAT_TIMEOUT: 3000,
        }
        for option, value in options.items():
            self._socket.setsockopt(option, value)
        for prefix in self._topics:
            self._socket.setsockopt_string(zmq.SUBSCRIBE, prefix)
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise UsageError(f"cannot connect to {address!r}: {error}; try {DEFAULT_ADDRESS}") from error

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


def _check_local(address: str) -> None:
    """UsageError unless the address is one this machine alone can reach."""
    transport, mark, rest = address.partition("://")
    if not mark or transport not in ("tcp", "ipc") or not rest:
        raise UsageError(f"address must be tcp://127.0.0.1:PORT or ipc://PATH, got {address!r}; try {DEFAULT_ADDRESS}")
    if transport == "ipc":
        _check_ipc(address, rest)
        return
    host, _, port = rest.rpartition(":")
    if port != "*" and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise UsageError(f"the port must be 1 to 65535, or * for any free one, got {address!r}; try {DEFAULT_ADDRESS}")
    try:
        local = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        local = False
    if not local:
        raise UsageError(
            f"{address} can be reached from the network, and events are not encrypted yet; "
            f"publish on this machine, for example --pub tcp://127.0.0.1:{port}, and forward it with ssh -L"
        )


def _check_ipc(address: str, path: str) -> None:
    """zmq would unlink whatever lies at an ipc path: a file of the user's, or a live publisher's socket."""
    if path.startswith("@"):  # Linux: a name in no folder
        return
    if len(os.fsencode(path)) > _LONGEST_IPC_PATH:
        raise UsageError(
            f"an ipc path has at most {_LONGEST_IPC_PATH} bytes, got {len(os.fsencode(path))} in {address}"
        )
    if not Path(path).parent.is_dir():
        raise UsageError(f"no folder {Path(path).parent} for {address}; make it, or try {DEFAULT_ADDRESS}")
    if not Path(path).exists():
        return
    if not stat.S_ISSOCK(Path(path).stat().st_mode):
        raise UsageError(f"{path} is there and is not a socket; choose another path for {address}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(path) == 0:
            raise AddressError(f"{address} is in use by another program; try --pub ipc://{path}2")


def _socket_file(address: str) -> tuple[str, int, int] | None:
    """Path, device and inode of an ipc address's socket; zmq leaves the file behind. None where there is no file."""
    transport, _, path = address.partition("://")
    if transport != "ipc" or path.startswith("@"):
        return None
    try:
        found = Path(path).lstat()
    except OSError:
        return None
    return path, found.st_dev, found.st_ino


def _bind_error(address: str, error: zmq.ZMQError) -> UsageError | AddressError:
    if error.errno != zmq.EADDRINUSE:
        return UsageError(f"cannot publish on {address!r}: {error}; try --pub {DEFAULT_ADDRESS}")
    stem, _, port = address.rpartition(":")
    other = f"{stem}:{int(port) % 65_535 + 1}" if port.isdigit() else DEFAULT_ADDRESS
    return AddressError(f"{address} is in use, perhaps by another copy of this program; try --pub {other}")
