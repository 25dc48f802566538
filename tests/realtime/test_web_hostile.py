"""The web server among programs that mean harm, or merely never read: it stays small, and who feeds it never waits."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from realtime.web import WebServer
from realtime.web.latest import MOST_SOURCES, RECENT, Latest
from realtime.web.server import MOST_INBOX
from realtime.web.stream import MOST_POSES, MOST_WAITING, Stream, sse
from tests.realtime.watched_line import WatchedLine, running
from tests.realtime.web_reader import get, memory_mb, place, reading, status_of, until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer("127.0.0.1:*") as made:
        yield made
    assert made.stats.failures == 0


@pytest.fixture
def line(server) -> WatchedLine:
    made = WatchedLine(server.feed)
    made.status("online")
    made.heartbeat()
    return made


@pytest.mark.faults
def test_a_request_that_trickles_in_is_cut_off_after_five_seconds(server):
    begun = time.monotonic()
    with socket.create_connection(place(server), timeout=8) as slow:
        answer = b""
        with suppress(ConnectionError):
            for letter in b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 60:
                slow.send(bytes([letter]))
                slow.settimeout(0.2)
                with suppress(TimeoutError):
                    answer = slow.recv(4096)
                    break
        assert status_of(answer) == 408
    assert 4.5 < time.monotonic() - begun < 7


@pytest.mark.faults
def test_six_hundred_connections_leave_room_for_a_reader(server, line):
    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before, crowd = files(), []
    for _ in range(600):
        one = socket.socket()
        one.settimeout(5)
        one.connect(place(server))
        crowd.append(one)
    until(lambda: server.stats.turned_away >= 600 - 96)
    assert server.stats.connections <= 96 + 65
    line.heartbeat()
    with reading(server) as events:  # whoever asks is answered, whoever only waits goes first
        assert next(events)[0] == "snapshot"
        status, _, body = get(server, "/healthz")
        assert status == 200, body
    turned_away = Counter()
    for one in crowd[:300]:
        with suppress(OSError):
            turned_away[one.recv(4096)[:12]] += 1
    assert turned_away[b"HTTP/1.1 503"] > 250
    for one in crowd:
        one.close()
    until(lambda: server.stats.connections == 0, timeout_s=10)
    until(lambda: files() <= before + 1)


@pytest.mark.faults
def test_readers_beyond_the_limit_are_turned_away_and_the_others_stay(line, server):
    with WebServer("127.0.0.1:*", most_clients=2) as small, reading(small) as first, reading(small) as second:
        assert get(small, "/events")[0] == 503
        assert get(small, "/healthz")[0] == 503  # no heartbeat there; but it answers
        WatchedLine(small.feed).heartbeat()
        for events in (first, second):
            assert [next(events)[0] for _ in range(3)] == ["snapshot", "live", "heartbeat"]


@pytest.mark.faults
def test_a_stopped_reader_never_delays_who_feeds_and_is_told_of_its_gap(server, line):
    with socket.create_connection(place(server)) as stopped:
        stopped.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stopped.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: server.stats.streams == 1)
        line.poses(0)
        line.start("e", 1, "wave")
        pose, event = [], []
        catch = WatchedLine(
            lambda topic, payload: (pose if topic.startswith("pose") else event).append((topic, payload))
        )
        catch.numbers = line.numbers
        catch.poses(1)
        catch.start("f", 2, "walk")
        before, took_s = memory_mb(), []
        for _ in range(3000):
            for topic, payload in (*pose, *event):
                begun = time.perf_counter()
                server.feed(topic, payload)
                took_s.append(time.perf_counter() - begun)
            time.sleep(0.0005)  # many times the pace of a camera
        took_s.sort()
        print(f"feed: at most {took_s[-1] * 1e3:.2f} ms, memory {memory_mb() - before:+.1f} MB")
        assert took_s[-4] < 0.005  # but for three of 6000, when a busy machine may have taken the processor away
        assert memory_mb() - before < 40
        assert server.stats.dropped_poses > 2000
        stopped.settimeout(10)
        heard = b""
        while b"event: gap" not in heard:
            heard = heard[-200_000:] + stopped.recv(1 << 16)
        while not re.search(rb"event: gap\ndata: (\{.*?\})\n\nevent: snapshot\n", heard):
            heard += stopped.recv(1 << 16)
        lost = json.loads(re.search(rb"event: gap\ndata: (\{.*?\})\n", heard)[1])
        assert list(lost) == ["action"] and lost["action"] > MOST_WAITING


@pytest.mark.faults
def test_a_flood_of_messages_is_bounded_and_told(monkeypatch):
    with WebServer("127.0.0.1:*") as server, reading(server) as events:
        next(events)
        with server._lock:  # the thread cannot take anything up
            pass
        line = WatchedLine(server.feed)
        kept: list[tuple[str, bytes]] = []
        catch = WatchedLine(lambda topic, payload: kept.append((topic, payload)))
        catch.start("e", 1, "wave")
        line.heartbeat()
        for _ in range(20 * MOST_INBOX):
            server.feed(*kept[0])
        assert len(server._inbox) <= MOST_INBOX
        names = Counter()
        for name, _, content in events:
            names[name] += 1
            if name == "gap":
                assert content["action"] > 0
                break
            if names["action"] == 20 * MOST_INBOX:
                break  # it kept up
        assert server.alive


def test_a_message_that_is_none_is_counted_and_hurts_nobody(server, line):
    for topic, payload in (
        ("status.cam0", b"not json"),
        ("status.cam0", b"[]"),
        ("status.cam0", b"\xff\xfe"),
        ("heartbeat.cam0", b"[" * 200_000),
        ("heartbeat.cam0", b'{"session":"s","seq":0,"open_events":[{"id":[]}]}'),
        ("action.cam0.start.x", b'{"session":"s","seq":0,"id":"a","time":3,"action":[],"track":null}'),
        ("action", b"{}"),
        ("", b""),
        ("pose.cam0", b"\n\n\nevent: action\ndata: {}\n\n"),
        ("scores.cam0", b"{}"),
        ("pose.cam0", b"x" * (2 << 20)),
    ):
        server.feed(topic, payload)
    line.heartbeat()
    until(lambda: get(server, "/healthz")[0] == 200)
    assert server.stats.not_understood == 7
    assert server.alive


def test_a_line_break_in_a_payload_starts_no_new_event():
    written = sse("pose", b'{"a":1}\n\nevent: action\rdata: {}\n\n')
    assert written.count(b"\n\n") == 1 and written.count(b"\n") == 3 and b"\r" not in written


def test_sources_events_and_names_are_bounded():
    latest = Latest()
    for number in range(3 * MOST_SOURCES):
        latest.take(f"status.cam{number}", b'{"session":"s","seq":0,"state":"online"}', 1)
    assert len(latest.sources) == MOST_SOURCES
    line = WatchedLine(lambda topic, payload: latest.take(topic, payload, 1))
    for number in range(3 * RECENT):
        line.past(f"e{number}", 1, "wave", 9, 1)
    assert len(latest.sources["cam0"].recent) == RECENT


def test_a_slow_reader_keeps_the_newest_poses_and_every_event():
    stream = Stream(frozenset(("pose", "action")))
    for number in range(100):
        stream.put("pose", b"pose%d;" % number)
        stream.put("status", b"status")
        if number % 10 == 0:
            stream.put("action", b"action%d;" % number)
    told = stream.take()
    assert told.startswith(b"".join(b"action%d;" % number for number in range(0, 100, 10)))
    assert told.endswith(b"".join(b"pose%d;" % number for number in range(100 - MOST_POSES, 100)))
    assert stream.dropped_poses == 100 - MOST_POSES and not stream


def test_closing_cuts_everybody_off_at_once_and_frees_the_address(line, server):
    with reading(server) as events:
        next(events)
        begun = time.monotonic()
        server.close()
        assert time.monotonic() - begun < 1
        assert list(events)[-1][0] == "live"
    server.feed("status.cam0", b"{}")  # and nothing happens
    server.close()
    WebServer(server.address).close()


def test_it_needs_neither_numpy_nor_msgspec_nor_zmq():
    program = (
        "import sys, realtime.web; print([m for m in ('numpy', 'msgspec', 'zmq', 'tyro', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
def test_readers_that_come_and_go_leave_nothing_behind(server, line):
    with running(line):
        for _ in range(3):
            with reading(server) as events:
                next(events)
        before_mb, before_files = memory_mb(), len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(60):
            with reading(server) as events:
                for _ in range(5):
                    next(events)
        until(lambda: server.stats.connections == 0)
        assert len(list(Path("/proc/self/fd").iterdir())) <= before_files + 1
        assert memory_mb() - before_mb < 8
