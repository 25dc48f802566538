"""Where no child of the outlet can be had, or it says nonsense: the line goes on, and has one as soon as can be."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
import zmq

from realtime.backoff import Backoff
from realtime.errors import LineError
from realtime.outlet import BACK_OFF_S, Outlet, OutletSpec
from realtime.outlet_child import Channel
from realtime.outlet_wire import BOUND, DEEPEST_REQUEST, PULSE, REFUSED, REQUEST, TELL, FrameError, Reader, requested
from tests.realtime.telling import ANY_PORT, opened, status
from tests.realtime.test_outlet import restarted, wait_until

pytestmark = pytest.mark.faults


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def nested(levels: int) -> bytes:
    """A request that is so deep, itself included."""
    return b'{"command":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def no_process(*_: object, **__: object) -> None:
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


@pytest.mark.parametrize("levels", [DEEPEST_REQUEST + 1, 400, 900, *range(960, 1000, 3), 30_000])
def test_a_request_nested_too_deep_never_reaches_the_line(levels):
    with pytest.raises(FrameError, match=r"deep|JSON"):
        requested(nested(levels))


def test_a_request_may_be_nested_somewhat():
    assert json.dumps(requested(nested(DEEPEST_REQUEST))).count("[") == DEEPEST_REQUEST - 1
    assert requested(b'{"a":{"b":[1,"x",null]},"c":2.5}') == {"a": {"b": [1, "x", None]}, "c": 2.5}


def test_deep_requests_are_answered_and_the_line_lives():
    with opened(None, control=ANY_PORT) as outlet, zmq.Context() as context, context.socket(zmq.REQ) as client:
        client.setsockopt(zmq.LINGER, 0)
        client.connect(outlet.control)
        for levels in (DEEPEST_REQUEST + 1, *range(940, 1000, 4), 20_000):
            client.send(nested(levels))
            wait_until(lambda: client.poll(10), outlet=outlet)
            answer = client.recv_json()
            assert answer["ok"] is False and "a request is a JSON object" in answer["error"]
        client.send_json({"command": "stats"})
        came: list = []
        wait_until(lambda: came.extend(outlet.tend()) or came)
        assert came[0].body == {"command": "stats"} and outlet.restarts == 0


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (PULSE, b"[" * 100_000),
        (PULSE, b"{}"),
        (PULSE, b'{"subscribers":[],"subscriptions":0}'),
        (PULSE, b'{"subscribers":"many","subscriptions":0}'),
        (REQUEST, b'{"number":1}'),
        (REQUEST, b'{"number":1,"body":' + b"[" * 990 + b"]" * 990 + b"}"),
        (TELL, b"\xff\xfe"),
        (REFUSED, b'{"error":"no","code":[]}'),
        (BOUND, b"7"),
    ],
)
def test_a_child_that_talks_nonsense_is_replaced(kind, body):
    with opened() as outlet:
        outlet._child.listen = lambda: [(kind, body)]
        time.sleep(0.1)
        outlet.publish(status(0))
        wait_until(restarted(outlet), outlet=outlet)
        assert outlet.failure.startswith("it said what no child of ours says")


def test_what_is_no_frame_ends_the_conversation():
    with opened() as outlet:
        outlet._child._reader.feed = lambda piece: iter(Reader().feed(b"\xff" * 20))
        wait_until(restarted(outlet), outlet=outlet)
        assert outlet.failure.startswith("it said what no child of ours says")


def test_where_no_process_can_be_had_the_line_goes_on_and_gets_one_later(monkeypatch):
    with opened() as outlet:
        outlet.publish(status(0))
        before = open_files()
        with monkeypatch.context() as patched:
            patched.setattr(subprocess, "Popen", no_process)
            outlet._child.kill()
            begun = time.monotonic()
            while time.monotonic() - begun < 1.5:
                outlet.publish(status(0))
                outlet.tend()
                time.sleep(0.01)
            assert outlet.failure == "it cannot be started: Resource temporarily unavailable"
            assert outlet.restarts == 0 and outlet._failures >= 3
            assert open_files() <= before
        wait_until(restarted(outlet), outlet=outlet)
        assert outlet.restarts == 1
        wait_until(lambda: open_files() <= before)


def test_where_the_first_process_cannot_be_had_it_is_said_and_nothing_is_left(monkeypatch):
    before = open_files()
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", no_process)
        with pytest.raises(LineError, match=r"cannot start the process that holds the sockets: .*ulimit"):
            Outlet(OutletSpec(ANY_PORT, control=ANY_PORT, http="127.0.0.1:*"))
    assert open_files() == before


def test_the_first_restart_is_at_once_and_later_ones_wait_longer():
    with Outlet(OutletSpec()) as outlet:
        outlet._backoff = Backoff(*BACK_OFF_S, chance=lambda: 1.0)
        assert [outlet._pause_s() for _ in range(9)] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_two_threads_speak_through_one_channel():
    ours, theirs = socket.socketpair()
    channel, failed, frames = Channel(theirs.detach()), [], []
    over = threading.Event()

    def speak() -> None:
        try:
            for number in range(4000):
                while not channel.say(TELL, text="x" * 2000, number=number):
                    time.sleep(0.001)
        except (BufferError, AssertionError, OSError) as error:
            failed.append(error)

    def read() -> None:
        reader = Reader()
        while not over.is_set():
            try:
                frames.extend(reader.feed(ours.recv(1 << 16)))
            except TimeoutError:
                continue

    ours.settimeout(0.1)
    threads = [threading.Thread(target=one) for one in (speak, speak, read)]
    for one in threads:
        one.start()
    begun = time.monotonic()
    while len(frames) < 8000 and not failed and time.monotonic() - begun < 60:
        channel.flush()
    over.set()
    for one in threads:
        one.join(10)
    ours.close()
    assert failed == [] and len(frames) == 8000
