"""One HTTP request, read strictly: what is not plainly a harmless question from this machine is refused.

The page has no password, so the browser is the door: a Host that is not this machine's name means that some web site's
name was pointed here (DNS rebinding), and Sec-Fetch-Site tells where a script asks from another site.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from realtime.addresses import is_loopback

MOST_HEAD = 8192  # bytes of request line and headers together
_MOST_LINE = 2048
_MOST_HEADERS = 64
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PORT = re.compile(r":\d{1,5}")


class Refusal(Exception):
    """A request that is turned down: an HTTP status and one line saying why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


@dataclass(frozen=True, slots=True)
class Request:
    """A GET or HEAD of a path with its query."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)


def parse(head: bytes) -> Request:
    """The request whose head (up to its empty line) this is; Refusal says what is wrong with it."""
    lines = head.decode("latin-1").split("\r\n")
    if any(ord(letter) < 32 and letter != "\t" for line in lines for letter in line):
        raise Refusal(400, "a request has no control characters")
    method, target = _request_line(lines[0])
    headers = _headers(lines[1:])
    _check_host(headers.get("host", []))
    _check_body(headers)
    _check_origin(headers)
    path, _, query = target.partition("?")
    try:
        pairs = parse_qsl(query, max_num_fields=8, strict_parsing=bool(query))
    except ValueError as error:
        raise Refusal(400, f"the query cannot be read: {error}") from error
    return Request(method, path, dict(pairs))


def _request_line(line: str) -> tuple[str, str]:
    if len(line) > _MOST_LINE:
        raise Refusal(414, f"a request line has at most {_MOST_LINE} bytes, got {len(line)}")
    parts = line.split(" ")
    if len(parts) != 3 or parts[2] not in ("HTTP/1.0", "HTTP/1.1"):
        raise Refusal(400, "a request begins with METHOD PATH HTTP/1.1")
    method, target, _ = parts
    if method not in ("GET", "HEAD"):
        raise Refusal(405, "only GET and HEAD: this page shows a line, it does not steer it")
    if not target.startswith("/"):
        raise Refusal(400, "a path begins with /")
    return method, target


def _headers(lines: list[str]) -> dict[str, list[str]]:
    if len(lines) > _MOST_HEADERS:
        raise Refusal(431, f"a request has at most {_MOST_HEADERS} headers, got {len(lines)}")
    found: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise Refusal(400, "a header is NAME: VALUE")
        found.setdefault(name.lower(), []).append(value.strip())
    return found


def _check_host(values: list[str]) -> None:
    if len(values) != 1:
        raise Refusal(400, f"a request has one Host header, got {len(values)}")
    if not is_loopback_host(values[0]):
        raise Refusal(421, "this page answers to localhost, 127.0.0.1 and [::1] only; from elsewhere use ssh -L")


def is_loopback_host(host: str) -> bool:
    """Whether a Host header names this machine; any port will do, since ssh -L may have changed it."""
    name, bracket, rest = host.lower().partition("]")
    if name.startswith("[") and bracket:
        name, port = name[1:], rest
    else:
        name, colon, rest = host.lower().partition(":")
        port = colon + rest
    return (not port or _PORT.fullmatch(port) is not None) and is_loopback(name)


def _check_body(headers: dict[str, list[str]]) -> None:
    if "transfer-encoding" in headers or any(value != "0" for value in headers.get("content-length", [])):
        raise Refusal(400, "a GET has no body")


def _check_origin(headers: dict[str, list[str]]) -> None:
    """Another site may link to the page, as a person follows it; its scripts, pictures and frames get nothing."""
    site, mode, dest = (headers.get(f"sec-fetch-{name}", [""])[0] for name in ("site", "mode", "dest"))
    followed = mode == "navigate" and dest == "document"
    if site in ("cross-site", "same-site") and not followed:
        raise Refusal(403, "only this page itself may ask from a browser")
