"""`python -m realtime.web --connect`: a page for lines that run already, as a user starts it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import zmq

from realtime.errors import LineError, UsageError
from realtime.keys import ServerKeys, make_client, make_server
from realtime.messages import decode
from realtime.outlet import Outlet, OutletSpec
from realtime.web.__main__ import check_alive, lines, renamed
from tests.realtime.watched_line import WatchedLine

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def bridge(*flags: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """The program and the page's address."""
    command = [sys.executable, "-m", "realtime.web", "--http", "127.0.0.1:0", *flags]
    program = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert program.stderr is not None
        said = program.stderr.readline()
        yield program, re.search(r"at (http://127\.0\.0\.1:\d+/)", said)[1]
    finally:
        program.kill()
        program.communicate()


class Bus:
    """A publisher's end."""

    def __init__(self, keys: ServerKeys | None = None) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        if keys is not None:
            self._socket.curve_server = True
            self._socket.curve_secretkey, self._socket.curve_publickey = keys.secret.encode(), keys.public.encode()
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # tells of a subscriber also where another asked for the same
        self._socket.bind("tcp://127.0.0.1:*")
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def wait_for_subscriber(self) -> None:
        came = 0
        while came < 4:  # action, status, heartbeat, pose
            assert self._socket.poll(20_000), "nobody subscribed"
            came += self._socket.recv()[:1] == b"\x01"

    def line(self, source: str) -> WatchedLine:
        return WatchedLine(lambda topic, payload: self._socket.send_multipart((topic.encode(), payload)), source)

    def __enter__(self) -> Bus:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)


def answer(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=5) as told:
            return told.read()
    except urllib.error.HTTPError as error:
        return error.read()


def wait_for(url: str, condition) -> dict:
    deadline = time.monotonic() + 10
    while True:
        told = json.loads(answer(url))
        if condition(told):
            return told
        assert time.monotonic() < deadline, told
        time.sleep(0.1)


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_it_shows_a_running_line_and_ends_when_told_to(stop, code):
    with Bus() as bus, bridge("--connect", bus.address) as (program, url):
        bus.wait_for_subscriber()
        line = bus.line("cam0")
        line.status("online")
        line.heartbeat()
        line.start("e1", 1, "wave")
        line.poses(0)
        told = wait_for(f"{url}state.json", lambda told: told["sources"].get("cam0", {}).get("pose_age_s") is not None)
        assert told["sources"]["cam0"]["events"][0]["event"]["id"] == "e1"
        assert b'pcle_events_total{source="cam0",action="wave",phase="start"} 1' in answer(f"{url}metrics")
        program.send_signal(stop)
        assert program.wait(timeout=10) == code
        assert program.stderr.read() == ""


def test_a_line_with_keys_is_shown_to_who_has_one(tmp_path):
    server = make_server(tmp_path / "keys")
    client = make_client(tmp_path / "keys", "wall")
    with Bus(server) as bus, bridge("--connect", bus.address, "--keys", str(client)) as (_, url):
        bus.wait_for_subscriber()
        bus.line("cam0").heartbeat()
        wait_for(f"{url}healthz", lambda told: told["alive"])


def test_a_page_knows_what_was_open_when_the_sockets_process_was_killed():
    with Outlet(OutletSpec(http="127.0.0.1:0")) as outlet:
        outlet.open()
        line = WatchedLine(lambda topic, payload: outlet.publish(decode(payload)))
        line.status("online")
        line.start("e1", 1, "wave")
        line.heartbeat()
        url = f"http://{outlet.http}/"
        wait_for(f"{url}state.json", lambda told: "cam0" in told["sources"])
        outlet.tend()
        os.kill(outlet._child.pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while outlet.restarts == 0 or not outlet.http:
            assert time.monotonic() < deadline
            outlet.tend()
            time.sleep(0.02)
        told: dict = {}
        while not told.get("sources"):
            assert time.monotonic() < deadline, told
            outlet.tend()
            try:
                told = json.loads(answer(f"{url}state.json"))
            except OSError:  # not there again yet
                time.sleep(0.05)
        assert [(one["event"]["id"], one["open"]) for one in told["sources"]["cam0"]["events"]] == [("e1", True)]
        assert told["sources"]["cam0"]["state"] == "online"


def test_a_thread_that_ended_ends_the_program():
    page, running = SimpleNamespace(alive=True), threading.current_thread()
    check_alive(page, [running])
    with pytest.raises(LineError, match=r"the thread of bridge tcp://127\.0\.0\.1:1 ended"):
        check_alive(page, [running, threading.Thread(name="bridge tcp://127.0.0.1:1")])
    with pytest.raises(LineError, match="the thread of the page ended"):
        check_alive(SimpleNamespace(alive=False), [running])


def test_two_lines_whose_sources_are_called_alike_need_names():
    with Bus() as one, Bus() as two:
        with bridge("--connect", one.address, two.address) as (program, url):
            for bus in (one, two):
                bus.wait_for_subscriber()
                bus.line("cam0").heartbeat()
                wait_for(f"{url}state.json", lambda told: "cam0" in told["sources"])
            assert re.search(r"is left out.*cam0.*--connect NAME=tcp://127", program.stderr.readline())
        with bridge("--connect", f"hall={one.address}", f"yard={two.address}") as (_, url):
            for bus in (one, two):
                bus.wait_for_subscriber()
                bus.line("cam0").heartbeat()
            wait_for(f"{url}healthz", lambda told: set(told["sources"]) == {"hall", "yard"} and told["alive"])


def test_a_publishers_text_steers_no_terminal():
    with Bus() as bus, bridge("--connect", bus.address) as (program, _):
        bus.wait_for_subscriber()
        strange = json.dumps("\x1b[2J\x9b31m").encode()
        send = bus._socket.send_multipart
        WatchedLine(lambda topic, payload: send((topic.encode(), payload.replace(b'"online"', strange)))).status(
            "online"
        )
        said = program.stderr.readline().rstrip("\n")
        assert "refused a message" in said and "[2J" in said and said.isprintable()


def test_a_renamed_message_is_still_one_of_its_kind():
    kept: list[tuple[str, bytes]] = []
    line = WatchedLine(lambda topic, payload: kept.append((topic, payload)))
    line.start("e", 1, "wave")
    line.status("online")
    line.poses(0)
    for topic, payload in kept:
        other, changed = renamed(topic, payload, "hall")
        message, before = decode(changed), decode(payload)
        assert other == topic.replace(".cam0", ".hall")
        assert (message.source if isinstance(message.source, str) else message.source.id) == "hall"
        assert (message.seq, message.time) == (before.seq, before.time)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ((), "--connect needs"),
        (("a.b=tcp://127.0.0.1:1",), "letters, digits, _ and -"),
        (("=tcp://127.0.0.1:1",), "letters, digits, _ and -"),
        (("tcp://127.0.0.1:1", "tcp://127.0.0.1:1"), "twice"),
        (("a=tcp://127.0.0.1:1", "a=tcp://127.0.0.1:2"), "names a twice"),
    ],
)
def test_connections_that_cannot_be_told_apart_are_refused(given, complaint):
    with pytest.raises(UsageError, match=complaint):
        lines(given)


def test_an_ipc_path_may_have_an_equals_sign():
    assert lines(("ipc:///tmp/a=b", "hall=ipc:///tmp/c=d")) == [(None, "ipc:///tmp/a=b"), ("hall", "ipc:///tmp/c=d")]
