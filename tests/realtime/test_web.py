"""The web server, as browsers and scrapers meet it: what it serves, and to whom."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from realtime.errors import AddressError, UsageError
from realtime.web import WebServer
from realtime.web.latest import Latest
from realtime.web.request import MOST_HEAD, is_loopback_host
from tests.realtime.watched_line import WatchedLine
from tests.realtime.web_reader import get, place, raw, reading, status_of, until

SECRET = "../" * 12 + "etc/passwd"
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
