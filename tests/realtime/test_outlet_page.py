"""The page of a line: it comes back when it fails, keeps its address, and the bus does not notice."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from realtime import outlet_page
from realtime.backoff import Backoff
from realtime.errors import AddressError
from realtime.keys import make_client, make_server, revoke
from realtime.messages import encode
from realtime.outlet import Outlet, OutletSpec
from realtime.outlet_page import Page
from realtime.outlet_wire import NEWEST, Parcel
from realtime.ring import Ring
from realtime.subscriber import Subscriber
from realtime.web.address import bound, listen
from realtime.wire import topic
from realtime.zap import security
from tests.realtime.telling import ANY_PORT, opened, status
from tests.realtime.test_metrics import read
from tests.realtime.test_outlet import restarted, wait_until

ANY_PAGE = "127.0.0.1:*"
pytestmark = pytest.mark.faults


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with listen(ANY_PAGE) as made:
        yield made


def page(listener: socket.socket, newest: Callable[[], tuple[Parcel, ...]] = tuple) -> Page:
    return Page(os.dup(listener.fileno()), newest, Backoff(0.05, 0.1))


def answer(address: str, path: str) -> bytes:
    try:
        with urllib.request.urlopen(f"http://{address}/{path}", timeout=5) as told:
            return told.read()
    except urllib.error.HTTPError as error:
        return error.read()


def sources(address: str) -> dict:
    return json.loads(answer(address, "state.json"))["sources"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_page_whose_thread_ended_is_made_anew_and_knows_what_is(listener, monkeypatch, caplog):
    ring, message = Ring(), status(0)
    parcel = Parcel(NEWEST, "status", message.session, 0, topic(message), topic(message), encode(message))
    ring.add(parcel)
    made = page(listener, ring.newest)
    try:
        first = made._server

        def no_memory(now_ns: int) -> None:
            raise MemoryError

        monkeypatch.setattr(first, "_sweep", no_memory)
        wait_until(lambda: not first.alive)
        made.feed(parcel.topic, parcel.payload)  # nobody is there, and nothing happens
        wait_until(lambda: made.tend() or (made._server is not None and made._server is not first))
        wait_until(lambda: sources(bound(listener)).get("cam0", {}).get("state") == "online")
        assert [record.getMessage() for record in caplog.records] == [
            "the page is away (its thread ended); it is made anew, and the bus is not touched"
        ]
    finally:
        made.close()


@pytest.mark.parametrize("error", [OSError("Too many open files"), RuntimeError("no thread"), MemoryError()])
def test_a_page_that_cannot_be_served_is_tried_again(listener, monkeypatch, caplog, error):
    before = len(os.listdir("/proc/self/fd"))

    def refuse(given: socket.socket) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(outlet_page, "WebServer", refuse)
        made = page(listener)
        made.note(subscribers=1)
        wait_until(lambda: made.tend() or len(caplog.records) >= 3)
        assert type(error).__name__ in caplog.text and len(os.listdir("/proc/self/fd")) == before + 1
    wait_until(lambda: made.tend() or made._server)
    assert b"<html" in answer(bound(listener), "")
    made.close()


def test_nobody_takes_the_pages_address_while_the_child_is_away():
    with opened(http=ANY_PAGE) as outlet:
        address = outlet.http
        outlet.publish(status(0))
        os.kill(outlet._child.pid, signal.SIGKILL)
        assert outlet._child.gone(5)
        with pytest.raises(AddressError, match="in use"):
            listen(address)
        wait_until(restarted(outlet), outlet=outlet)
        assert outlet.http == address
        wait_until(lambda: "cam0" in sources(address), outlet=outlet)
    listen(address).close()  # and now it is free


def test_a_pages_address_in_use_is_said_at_once():
    with listen(ANY_PAGE) as taken, pytest.raises(AddressError, match="in use"):
        Outlet(OutletSpec(ANY_PORT, http=bound(taken)))


def test_metrics_tell_who_was_refused_and_what_the_child_takes(tmp_path):
    folder = tmp_path / "keys"
    make_server(folder)
    wall, gone = security(make_client(folder, "wall")), security(make_client(folder, "gone"))
    revoke(folder, "gone")
    with opened(ANY_PORT, folder, http=ANY_PAGE) as outlet:

        def found(name: str) -> float:
            return read(answer(outlet.http, "metrics")).get((name, ()), 0)

        with Subscriber(outlet.address, [""], wall):
            wait_until(lambda: found("pcle_subscribers") == 1, outlet=outlet)
            assert 1e7 < found("pcle_outlet_memory_bytes") < 3e8
            assert found("pcle_handshakes_refused_total") == 0
            with Subscriber(outlet.address, [""], gone):
                wait_until(lambda: found("pcle_handshakes_refused_total") >= 1, outlet=outlet)
