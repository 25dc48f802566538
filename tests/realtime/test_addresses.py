"""Addresses: a line binds this machine's own, and others only with keys; each refusal says what mends it."""

from __future__ import annotations

import errno
import re
import socket
from pathlib import Path

import pytest

from realtime.addresses import DEFAULT_ADDRESS, DEFAULT_CONTROL, check_bind, is_local, is_loopback
from realtime.errors import AddressError, UsageError
from realtime.listener import Listener

KEYS = Path("keys")
OURS = [
    DEFAULT_ADDRESS,
    DEFAULT_CONTROL,
    "tcp://127.0.0.1:*",
    "tcp://localhost:1",
    "tcp://[::1]:5556",
    "tcp://127.8.9.1:7",
]
OPEN = [
    "tcp://0.0.0.0:5556",
    "tcp://*:5556",
    "tcp://192.0.2.7:5556",
    "tcp://[::]:5556",
    "tcp://[fe80::1%eth0]:5556",
    "tcp://eth0:5556",
    "tcp://host.lan:5556",
    "tcp://localhost.evil.example:5556",
    "tcp://127.0.0.1.evil.example:5556",
    "tcp://[::ffff:192.0.2.7]:5556",
]


@pytest.mark.parametrize("address", OURS)
@pytest.mark.parametrize("flag", ["--pub", "--control"])
@pytest.mark.parametrize("keys", [None, KEYS])
def test_this_machines_own_addresses_are_bound_with_and_without_keys(address, flag, keys):
    check_bind(address, keys, flag)
    assert is_local(address)


@pytest.mark.parametrize("address", OPEN)
@pytest.mark.parametrize("flag", ["--pub", "--control"])
def test_an_address_that_the_network_reaches_needs_keys_and_the_refusal_says_how(address, flag):
    assert not is_local(address)
    with pytest.raises(UsageError) as refusal:
        check_bind(address, None, flag)
    said = str(refusal.value)
    assert refusal.value.exit_code == 2 and "\n" not in said
    assert "run: python -m realtime.keys make server, then add --keys" in said
    assert f"{flag} tcp://127.0.0.1:5556" in said
    check_bind(address, KEYS, flag)


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("5556", f"try {DEFAULT_ADDRESS}"),
        ("", "got ''"),
        ("udp://127.0.0.1:5556", "tcp://127.0.0.1:PORT or ipc://PATH"),
        ("inproc://x", "tcp://127.0.0.1:PORT or ipc://PATH"),
        ("tcp://127.0.0.1", "the port must be"),
        ("tcp://127.0.0.1:0", "the port must be"),
        ("tcp://127.0.0.1:99999", "the port must be 1 to 65535"),
        ("tcp://127.0.0.1:５", "the port must be"),
        ("tcp://:5556", "must name a host"),
        ("tcp://127.0.0.1;192.0.2.7:5556", "must name a host"),
        ("ipc:///no/such/folder/bus", "no folder /no/such/folder"),
        ("ipc://" + "/x" * 60, "at most 107 bytes"),
    ],
)
@pytest.mark.parametrize("keys", [None, KEYS])
def test_an_address_that_cannot_be_is_refused_with_and_without_keys(address, complaint, keys):
    with pytest.raises(UsageError, match=re.escape(complaint)):
        check_bind(address, keys)


def test_nothing_but_a_dead_socket_is_replaced_at_an_ipc_path(tmp_path: Path):
    precious = tmp_path / "thesis.txt"
    precious.write_text("years")
    with pytest.raises(UsageError, match="not a socket"):
        check_bind(f"ipc://{precious}", None)
    path = str(tmp_path / "bus")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        with pytest.raises(AddressError, match=f"in use.*--control ipc://{path}2"):
            check_bind(f"ipc://{path}", None, "--control")
    check_bind(f"ipc://{path}", None)  # nobody is there any more
    check_bind("ipc://@name-in-no-folder", None)


def test_a_socket_whose_queue_is_full_is_still_somebodys(tmp_path: Path):
    path = str(tmp_path / "bus")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as waiting:
        server.bind(path)
        server.listen(0)
        waiting.connect(path)
        for take in (lambda: check_bind(f"ipc://{path}", None), lambda: Listener(f"ipc://{path}")):
            with pytest.raises(AddressError, match="in use"):
                take()
    assert Path(path).exists()


def test_who_listens_second_is_told_also_where_both_were_bound_at_the_same_moment(monkeypatch, tmp_path: Path):
    def too_late(self: socket.socket, backlog: int = 0) -> None:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(socket.socket, "listen", too_late)
    for address in ("tcp://127.0.0.1:*", f"ipc://{tmp_path}/bus"):
        with pytest.raises(AddressError, match="in use"):
            Listener(address)


def test_the_default_of_control_is_far_from_where_a_fleets_cameras_publish():
    ports = [int(address.rpartition(":")[2]) for address in (DEFAULT_ADDRESS, DEFAULT_CONTROL)]
    assert ports[1] >= ports[0] + 2 * 40


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("localhost", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("*", False),
        ("", False),
        ("host.lan", False),
        ("::", False),
    ],
)
def test_the_loopback_is_what_cannot_be_the_networks(host, ours):
    assert is_loopback(host) is ours
