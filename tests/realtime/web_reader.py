"""How the tests of the web server ask it: whole requests, raw bytes, streams of events."""

from __future__ import annotations

import http.client
import json
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from realtime.web import WebServer


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


def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
