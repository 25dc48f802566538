"""The web server, as browsers, scrapers and hostile programs meet it."""

from __future__ import annotations

import http.client
import json
import re
import resource
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from realtime.errors import AddressError, UsageError
from realtime.web import WebServer
from realtime.web.latest import MOST_SOURCES, RECENT, Latest
from realtime.web.request import MOST_HEAD, is_loopback_host
from realtime.web.server import MOST_INBOX
from realtime.web.stream import MOST_POSES, MOST_WAITING, Stream, sse
from tests.realtime.watched_line import WatchedLine, running

ROOT = Path(__file__).resolve().parents[2]
SECRET = "../" * 12 + "etc/passwd"


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


def place(server: WebServer) -> tuple[str, int]:
    host, _, port = server.address.rpartition(":")
    return host, int(port)


def get(server: WebServer, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(*place(server), timeout=5)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def raw(server: WebServer, data: bytes, timeout_s: float = 8.0) -> bytes:
    """What comes back for these very bytes, until the server closes."""
    with socket.create_connection(place(server), timeout=timeout_s) as connection:
        with suppress(ConnectionError):
            connection.sendall(data)
        answer = b""
        with suppress(ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
        return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@contextmanager
def reading(server: WebServer, query: str = "") -> Iterator[Iterator[tuple[str, str, dict]]]:
    """The events of a stream as they come: name, id, content."""
    connection = http.client.HTTPConnection(*place(server), timeout=5)
    connection.request("GET", f"/events{query}")
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("Content-Type")) == (200, "text/event-stream; charset=utf-8")

    def events() -> Iterator[tuple[str, str, dict]]:
        fields: dict[str, str] = {}
        while text := answer.readline().decode():
            name, _, value = text.rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "data" in fields:
                yield fields["event"], fields.get("id", ""), json.loads(fields["data"])
                fields = {}

    try:
        yield events()
    finally:
        answer.close()
        connection.close()


def until(condition, timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


# What is served


@pytest.mark.parametrize(
    "path", ["/", "/app.js", "/stage.js", "/style.css", "/layouts.json", "/icon.svg", "/state.json"]
)
def test_it_serves_the_page_and_lets_no_browser_be_careless(server, path):
    status, headers, body = get(server, path)
    assert status == 200 and len(body) == int(headers["content-length"]) > 0
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert not [name for name in headers if name.startswith("access-control")]


def test_the_page_names_nothing_outside():
    for file in (ROOT / "realtime/assets/web").iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", text), file
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), file


def test_every_file_of_the_page_is_served_and_there():
    from realtime.web.pages import FILES

    assert {name for name, _ in FILES.values()} == {file.name for file in (ROOT / "realtime/assets/web").iterdir()}


def test_the_page_knows_every_layout_as_it_is():
    from scripts.make_layouts import PATH, layouts_json

    assert PATH.read_text(encoding="utf-8") == layouts_json(), "run python scripts/make_layouts.py"


def test_a_head_is_a_get_without_the_body(server):
    status, headers, body = get(server, "/", "HEAD")
    assert (status, body) == (200, b"") and int(headers["content-length"]) > 0


def test_events_come_as_they_were_published(server, line):
    with reading(server) as events:
        assert next(events)[0] == "snapshot"
        assert [next(events)[0] for _ in range(3)] == ["status", "heartbeat", "live"]
        line.poses(0)
        name, number, pose = next(events)
        assert (name, number) == ("pose", f"{line.numbers.session}/0")
        assert pose["schema"] == "pose/1" and len(pose["persons"]) == 2
        line.start("e1", 1, "wave")
        name, number, event = next(events)
        assert (name, number, event["phase"]) == ("action", f"{line.numbers.session}/0", "start")


def test_a_newcomer_is_told_what_is_open_and_what_was(server, line):
    line.past("old", 1, "clap", 20, 3)
    line.start("now", 2, "walk")
    until(lambda: b'"now"' in get(server, "/state.json")[2])
    with reading(server, "?families=action") as events:
        name, _, snapshot = next(events)
        told = snapshot["sources"]["cam0"]
        assert name == "snapshot" and told["state"] == "online"
        assert [(one["event"]["id"], one["open"]) for one in told["events"]] == [("old", False), ("now", True)]
        name, _, event = next(events)
        assert (name, event["id"]) == ("action", "now")


def test_only_the_families_asked_for_come(server, line):
    with reading(server, "?families=status") as events:
        assert [next(events)[0] for _ in range(3)] == ["snapshot", "status", "live"]
        line.poses(0)
        line.heartbeat()
        line.status("stalled", "no frame for 2 s")
        name, _, status = next(events)
        assert (name, status["state"]) == ("status", "stalled")
    assert get(server, "/events?families=poses")[0] == 400


def test_health_tells_a_live_line_from_a_silent_one_and_a_ready_source_from_a_lost_one(server, monkeypatch):
    assert get(server, "/healthz")[0] == get(server, "/readyz")[0] == 503  # nothing was heard so far
    line = WatchedLine(server.feed)
    line.status("online")
    line.heartbeat()
    until(lambda: get(server, "/healthz")[0] == 200)
    assert get(server, "/readyz")[0] == 200
    line.status("reconnecting", "no answer")
    until(lambda: get(server, "/readyz")[0] == 503)
    assert get(server, "/healthz")[0] == 200  # the line itself is well
    told = json.loads(get(server, "/readyz")[2])["sources"]["cam0"]
    assert (told["state"], told["reason"]) == ("reconnecting", "no answer")
    line.status("online")
    line.heartbeat()
    until(lambda: get(server, "/readyz")[0] == 200)
    time.sleep(3.2)
    assert get(server, "/healthz")[0] == get(server, "/readyz")[0] == 503


def test_a_line_that_ended_as_it_was_meant_to_makes_nobody_ill():
    latest = Latest()
    first, second = (WatchedLine(lambda t, p: latest.take(t, p, 10**9), source) for source in ("cam0", "cam1"))
    for line in (first, second):
        line.status("online")
        line.heartbeat()
    first.status("ended")
    second.heartbeat()
    assert latest.health(2 * 10**9)[:2] == (True, True)
    second.status("ended")
    assert latest.health(2 * 10**9)[:2] == (False, False)


def test_an_event_whose_end_was_missed_is_closed_by_the_heartbeat_and_by_a_new_session():
    latest = Latest()
    line = WatchedLine(lambda topic, payload: latest.take(topic, payload, 1))
    line.start("a", 1, "wave")
    line.start("b", 2, "walk")
    del line.open["a"]
    line.heartbeat()
    assert list(latest.sources["cam0"].open) == ["b"]
    WatchedLine(lambda topic, payload: latest.take(topic, payload, 1)).heartbeat()
    assert not latest.sources["cam0"].open
    assert [entry["open"] for entry in latest.sources["cam0"].recent.values()] == [False, False]


# Who may ask


@pytest.mark.parametrize("address", ["0.0.0.0:8787", "192.168.1.7:8787", "[::]:8787", "example.org:8787", "[::1:8787"])
def test_an_address_open_to_the_network_is_refused_with_the_way_out(address):
    with pytest.raises(UsageError, match=r"ssh -L 8787:127\.0\.0\.1:8787"):
        WebServer(address)


@pytest.mark.parametrize("address", ["8787", ":8787", "127.0.0.1", "127.0.0.1:99999", "http://127.0.0.1:80", ""])
def test_a_malformed_address_is_refused_with_an_example(address):
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:8787"):
        WebServer(address)


def test_an_address_in_use_gives_exit_code_5_and_names_another(server):
    port = place(server)[1]
    with pytest.raises(AddressError, match=rf"in use.*--http 127\.0\.0\.1:{port % 65535 + 1}") as caught:
        WebServer(server.address)
    assert caught.value.exit_code == 5


def test_it_listens_on_ipv6s_loopback_too():
    try:
        made = WebServer("[::1]:0")
    except UsageError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with made:
        port = int(made.address.rpartition(":")[2])
        connection = http.client.HTTPConnection("::1", port, timeout=5)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 503


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "127.9.9.9", "[::1]", "[::1]:9000"])
def test_names_of_this_machine_are_its_own(host):
    assert is_loopback_host(host)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "localhost:80:80", "[::1",
     "::1", "localhost@evil", "127.0.0.1:port"],
)  # fmt: skip
def test_another_name_for_this_machine_is_not_answered(server, host):
    assert not is_loopback_host(host)
    assert status_of(raw(server, f"GET /state.json HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())) == 421


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /state.json HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", 405),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET /%2e%2e/" + SECRET.encode() + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /" + SECRET.encode() + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET //etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /index.html HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /" + b"a" * 4000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 3 * MOST_HEAD + b"\r\n\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /events?families HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ],
)  # fmt: skip
def test_whatever_is_no_harmless_question_is_refused(server, request_bytes, status):
    assert status_of(raw(server, request_bytes)) == status
    assert get(server, "/state.json")[0] == 200


def test_scripts_of_other_sites_get_nothing_and_a_link_from_there_works(server):
    for site in ("cross-site", "same-site"):
        assert get(server, "/events", Sec_Fetch_Site=site, Sec_Fetch_Mode="cors", Sec_Fetch_Dest="empty")[0] == 403
        assert get(server, "/", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="iframe")[0] == 403
        assert get(server, "/", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document")[0] == 200
    assert get(server, "/state.json", Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="cors")[0] == 200


# Who wants harm


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
