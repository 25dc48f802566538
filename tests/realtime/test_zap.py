"""Who gets in: listed keys and nobody else, whatever fails; and who is revoked is out, also when connected."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zmq

from realtime.keys import Allowed, ClientKeys, allow, load_client, load_server, make_client, make_server, revoke
from realtime.zap import DOMAIN, Gate, secure_client, secure_server

MESSAGE = [b"action.", b"{}"]


class Outlet:
    """What the child that holds the sockets does: publishes, answers the gate, binds anew when somebody is revoked."""

    def __init__(self, folder: Path, gated: bool = True) -> None:
        self.context = zmq.Context()
        self.allowed = Allowed(folder)
        self.told: list[str] = []
        self.gate = Gate(self.context, self.allowed, self.told.append) if gated else None
        self._keys = load_server(folder)
        self.address = "tcp://127.0.0.1:*"
        self.rebound = 0
        self._bind()

    def _bind(self) -> None:
        self.socket = self.context.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        secure_server(self.socket, self._keys)
        deadline = time.monotonic() + 5
        while True:
            try:
                self.socket.bind(self.address)
                break
            except zmq.ZMQError as error:  # the closed socket leaves in a thread of zmq's
                if error.errno != zmq.EADDRINUSE or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
        self.address = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def turn(self) -> None:
        if self.gate is not None and not self.gate.socket.closed:
            self.gate.answer()
            if self.gate.changed():
                self.socket.close()
                self._bind()
                self.rebound += 1
        self.socket.send_multipart(MESSAGE)
        time.sleep(0.002)


class Client:
    """A subscriber to everything."""

    def __init__(self, outlet: Outlet, keys: ClientKeys | None) -> None:
        self.socket = outlet.context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RECONNECT_IVL, 20)
        if keys is not None:
            secure_client(self.socket, keys)
        self.socket.subscribe("")
        self.socket.connect(outlet.address)

    def heard(self) -> bool:
        """Whether anything came; takes all of it."""
        any_came = False
        while self.socket.poll(0):
            self.socket.recv_multipart()
            any_came = True
        return any_came


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_server(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def wall(folder: Path) -> ClientKeys:
    return load_client(make_client(folder, "wall"))


@pytest.fixture
def outlet(folder: Path) -> Iterator[Outlet]:
    made = Outlet(folder)
    yield made
    made.context.destroy(linger=0)


def until(outlet: Outlet, true: Callable[[], bool], seconds: float) -> bool:
    """Lets the outlet work until it is true or the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        outlet.turn()
        if true():
            return True
    return False


def stranger(server: str, name: str = "nobody") -> ClientKeys:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    return ClientKeys(name, public, secret, server)


def test_a_listed_key_gets_in_under_its_name(outlet, wall):
    replies = outlet.context.socket(zmq.ROUTER)
    secure_server(replies, load_server(outlet.allowed._folder))
    port = replies.bind_to_random_port("tcp://127.0.0.1")
    asker = outlet.context.socket(zmq.DEALER)
    secure_client(asker, wall)
    asker.connect(f"tcp://127.0.0.1:{port}")
    asker.send(b"hello")
    assert until(outlet, lambda: bool(replies.poll(0)), 5)
    frames = replies.recv_multipart(copy=False)
    assert frames[-1].bytes == b"hello" and frames[-1].get("User-Id") == "wall"
    assert outlet.gate.refused == 0


def test_a_listed_key_hears_everything_and_the_rest_nothing(outlet, wall):
    good = Client(outlet, wall)
    bad = [
        Client(outlet, None),  # speaks no CURVE
        Client(outlet, stranger(wall.server)),  # not listed
        Client(outlet, stranger(zmq.curve_keypair()[0].decode())),  # took another for the line
        Client(outlet, replace(wall, server=zmq.curve_keypair()[0].decode())),
        Client(outlet, replace(wall, public=zmq.curve_keypair()[0].decode())),  # a public key that is not its own
    ]
    assert until(outlet, good.heard, 5)
    assert not until(outlet, lambda: any(client.heard() for client in bad), 1.0)
    assert good.heard()
    assert outlet.gate.refused >= 1


def test_without_a_gate_nobody_gets_in(folder, wall):
    outlet = Outlet(folder, gated=False)
    client = Client(outlet, wall)
    assert not until(outlet, client.heard, 1.0)
    outlet.context.destroy(linger=0)


def test_a_gate_that_does_not_answer_lets_nobody_in(outlet, wall):
    client = Client(outlet, wall)
    outlet.gate.answer = lambda: 0
    assert not until(outlet, client.heard, 1.0)


def test_a_gate_that_died_lets_nobody_new_in(outlet, wall):
    outlet.gate.close()
    client = Client(outlet, wall)
    assert not until(outlet, client.heard, 1.0)


def test_a_key_that_is_allowed_later_gets_in_without_a_restart(outlet, folder, wall):
    late = stranger(wall.server)
    client = Client(outlet, late)
    assert not until(outlet, client.heard, 0.5)
    allow(folder, "late", late.public)
    assert until(outlet, client.heard, 8)
    assert outlet.rebound == 0  # nobody else is disturbed


def test_who_is_revoked_is_dropped_although_connected_and_the_others_come_back(outlet, folder, wall):
    other = load_client(make_client(folder, "door"))
    out, stays = Client(outlet, wall), Client(outlet, other)
    heard: set[str] = set()

    def both() -> bool:
        heard.update(name for name, client in (("out", out), ("stays", stays)) if client.heard())
        return heard == {"out", "stays"}

    assert until(outlet, both, 5)
    revoke(folder, "wall")
    assert until(outlet, lambda: outlet.rebound == 1, 2)
    out.heard()  # what was on its way
    begun = time.monotonic()
    assert until(outlet, stays.heard, 5)
    assert time.monotonic() - begun < 2
    assert not until(outlet, out.heard, 1.0)
    assert stays.heard() and outlet.rebound == 1
    assert outlet.gate.refused >= 1  # it tried again


def test_a_list_that_breaks_drops_everybody(outlet, folder, wall):
    client = Client(outlet, wall)
    assert until(outlet, client.heard, 5)
    (folder / "authorized").write_text("nonsense")
    assert until(outlet, lambda: outlet.rebound == 1, 2)
    client.heard()
    assert not until(outlet, client.heard, 1.0)
    (folder / "authorized").write_text(f"wall {wall.public}")
    assert until(outlet, client.heard, 8)  # mended: the same client comes back by itself


def test_revoking_who_is_not_here_disturbs_nobody(outlet, folder, wall):
    make_client(folder, "door")
    client = Client(outlet, wall)
    assert until(outlet, client.heard, 5)
    revoke(folder, "door")
    assert not until(outlet, lambda: outlet.rebound > 0, 0.6)


def test_refusals_are_counted_and_told_with_address_and_key_but_not_one_by_one(outlet, wall):
    strange = stranger(wall.server)
    client = Client(outlet, strange)  # it tries again and again
    assert until(outlet, lambda: outlet.gate.refused >= 2, 8)
    assert not client.heard()
    assert len(outlet.told) == 1
    assert "127.0.0.1" in outlet.told[0] and strange.public[:8] in outlet.told[0]
    assert strange.public not in outlet.told[0]


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"", b"1.0"],
        [b"", b"9.9", b"1", DOMAIN, b"10.0.0.9", b"", b"CURVE", b"k" * 32],
        [b"no delimiter", b"1.0", b"1", DOMAIN, b"10.0.0.9", b"", b"CURVE", b"k" * 32],
    ],
)
def test_what_is_no_question_gets_no_answer_and_no_harm(outlet, wall, frames):
    asker = outlet.context.socket(zmq.DEALER)
    asker.connect("inproc://zeromq.zap.01")
    asker.send_multipart(frames)
    outlet.gate.answer()
    assert not asker.poll(50)
    client = Client(outlet, wall)
    assert until(outlet, client.heard, 5)


@pytest.mark.parametrize(
    ("domain", "mechanism", "credentials"),
    [
        (b"", b"CURVE", ["key"]),
        (b"other", b"CURVE", ["key"]),
        (DOMAIN, b"NULL", []),
        (DOMAIN, b"PLAIN", [b"wall", b"secret"]),
        (DOMAIN, b"CURVE", [b"short"]),
        (DOMAIN, b"CURVE", ["key", b"more"]),
        (DOMAIN, b"GSS\x1b[31mAPI" + b"x" * 500, [b"p"]),
    ],
)
def test_only_curve_in_our_domain_is_answered_with_yes(outlet, wall, domain, mechanism, credentials):
    key = zmq.utils.z85.decode(wall.public.encode())
    given = [key if one == "key" else one for one in credentials]
    asker = outlet.context.socket(zmq.DEALER)
    asker.connect("inproc://zeromq.zap.01")
    asker.send_multipart([b"", b"1.0", b"7", domain, b"10.0.0.9", b"", mechanism, *given])
    assert outlet.gate.answer() == 0
    assert asker.poll(1000)
    assert asker.recv_multipart()[2:4] == [b"7", b"300"]
    assert "\x1b" not in outlet.told[0] and len(outlet.told[0]) < 200


def test_a_second_gate_in_one_context_is_an_error(outlet):
    with pytest.raises(zmq.ZMQError):
        Gate(outlet.context, outlet.allowed)


def test_a_gate_tells_in_the_log(folder, caplog):
    context = zmq.Context()
    gate = Gate(context, Allowed(folder))
    asker = context.socket(zmq.DEALER)
    asker.connect("inproc://zeromq.zap.01")
    asker.send_multipart([b"", b"1.0", b"7", DOMAIN, b"10.0.0.9", b"", b"CURVE", b"k" * 32])
    with caplog.at_level(logging.WARNING):
        gate.answer()
    assert "refused a client from 10.0.0.9" in caplog.text
    context.destroy(linger=0)
