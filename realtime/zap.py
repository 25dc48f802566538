"""Who gets in: CURVE on every socket, and our own answers to ZeroMQ's question whether a key may enter (ZAP 1.0).

Fails closed: a socket made safe by `secure_server` lets nobody in while no gate answers, as its domain is enforced.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import zmq
from zmq.utils import z85

from realtime.keys import Allowed, ClientKeys, ServerKeys, load_client

DOMAIN = b"pcle-live"
REPORT_EVERY_S = 10.0  # refusals are told at most so often; those between are counted
_ENDPOINT = "inproc://zeromq.zap.01"
_AT_ONCE = 100  # handshakes answered in one go, so that a flood of them cannot hold the loop
_LOOK_EVERY_S = 0.2
# To a client 400 means never: zmq then gives up without a word, also where the key is allowed later, or the list was
# broken for a moment while somebody edited it. 300 leaves it without an answer until the time for a handshake is over,
# then it tries again.
_NOT_NOW = b"300"
_HANDSHAKE_MS = 3000

log = logging.getLogger(__name__)


def secure_server(socket: zmq.Socket, keys: ServerKeys) -> None:
    """Encrypts a socket and lets only those in whom a gate admits; before its bind."""
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without it a missing gate means that everybody gets in
    socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret.encode())
    socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public.encode())
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)


def secure_client(socket: zmq.Socket, client: ClientKeys, server_public: str | None = None) -> None:
    """Encrypts a socket that connects to a line, and to no other than this line; before its connect."""
    socket.setsockopt(zmq.CURVE_SERVERKEY, (server_public or client.server).encode())
    socket.setsockopt(zmq.CURVE_SECRETKEY, client.secret.encode())
    socket.setsockopt(zmq.CURVE_PUBLICKEY, client.public.encode())
    socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)


def security(keys: Path | None) -> Callable[[zmq.Socket], None] | None:
    """What makes a client's socket safe with the file of --keys; None without one. UsageError where it is no good."""
    if keys is None:
        return None
    client = load_client(keys)
    return lambda socket: secure_client(socket, client)


class Gate:
    """Answers each handshake of its context's sockets; without a thread: poll `socket`, then call `answer`.

    Make it before any socket binds. Only CURVE, only the domain of `secure_server`, only keys that are listed now.
    An admitted peer's name is its messages' User-Id. refused: handshakes turned away. tell: takes a line for people,
    at most one in ten seconds. Errors: zmq.ZMQError where the context has a gate already.
    """

    def __init__(self, context: zmq.Context, allowed: Allowed, tell: Callable[[str], None] = log.warning) -> None:
        self.refused = 0
        self.socket: zmq.Socket = context.socket(zmq.ROUTER)  # a REP would hang on half a question
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(_ENDPOINT)
        self._allowed, self._tell = allowed, tell
        self._inside: set[str] = set()  # keys let in since everybody last had to shake hands
        self._looked_s = time.monotonic()
        self._told_s = float("-inf")
        self._untold = 0

    def answer(self) -> int:
        """Answers what waits, without blocking; returns how many were let in."""
        admitted = 0
        for _ in range(_AT_ONCE):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            admitted += self._one(frames)
        return admitted

    def changed(self) -> bool:
        """Whether somebody was revoked who had been let in.

        CURVE asks at the handshake only, so who is connected stays: close all sockets and bind them anew when this
        is true. Looks at the list at most every 0.2 s. A list that cannot be read revokes everybody.
        """
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_EVERY_S:
            return False
        self._looked_s = now_s
        if self._inside <= self._allowed.keys():
            return False
        self._inside.clear()  # the caller makes all of them shake hands again
        return True

    def close(self) -> None:
        """From now on nobody gets in."""
        self.socket.close()

    def _one(self, frames: list[bytes]) -> bool:
        """Answers one question; one that is not ZAP 1.0 gets no answer, and so nobody in."""
        if len(frames) < 8 or frames[1] != b"" or frames[2] != b"1.0":
            return False
        sender, _, version, request, domain, address, _, mechanism, *credentials = frames
        name = None
        if mechanism == b"CURVE" and domain == DOMAIN and len(credentials) == 1 and len(credentials[0]) == 32:
            key = z85.encode(credentials[0]).decode()
            name = self._allowed.name_of(key)
            who = f"key {key[:8]}… is not listed"
            if name is not None:
                self._inside.add(key)
        else:
            who = f"{_shown(mechanism)} for {_shown(domain)}"
        if name is None:
            self._refuse(address, who)
            reply = (_NOT_NOW, b"not allowed", b"")
        else:
            reply = (b"200", b"", name.encode())
        self.socket.send_multipart((sender, b"", version, request, *reply, b""), zmq.NOBLOCK)
        return name is not None

    def _refuse(self, address: bytes, who: str) -> None:
        self.refused += 1
        now_s = time.monotonic()
        if now_s - self._told_s < REPORT_EVERY_S:
            self._untold += 1
            return
        more = f" (and {self._untold} more before)" if self._untold else ""
        self._told_s, self._untold = now_s, 0
        self._tell(f"refused a client from {_shown(address) or 'this machine'}: {who}{more}")


def _shown(given: bytes) -> str:
    """What a stranger sent, short and printable."""
    return "".join(c if c.isprintable() else "?" for c in given[:64].decode("ascii", "replace"))
