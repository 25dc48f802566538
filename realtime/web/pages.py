"""What is served: the page's own files, read once, and answers with headers that keep a browser careful."""

from __future__ import annotations

from http import HTTPStatus
from importlib.resources import files

FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/sources.js": ("sources.js", "text/javascript; charset=utf-8"),
    "/stage.js": ("stage.js", "text/javascript; charset=utf-8"),
    "/panels.js": ("panels.js", "text/javascript; charset=utf-8"),
    "/timeline.js": ("timeline.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/layouts.json": ("layouts.json", "application/json"),
}
# Nothing but this server's own files runs or is loaded, no text becomes code, no other page may frame or read it.
POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'",
        "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'",
    )
)  # fmt: skip
_ALWAYS = (
    "Cache-Control: no-store",
    "X-Content-Type-Options: nosniff",
    "X-Frame-Options: DENY",
    "Referrer-Policy: no-referrer",
    "Cross-Origin-Resource-Policy: same-origin",
    "Cross-Origin-Opener-Policy: same-origin",
    f"Content-Security-Policy: {POLICY}",
    "Connection: close",
)


def load_files() -> dict[str, tuple[bytes, str]]:
    """Path -> content and type of every file of the page."""
    folder = files("realtime") / "assets" / "web"
    return {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in FILES.items()}


def head(status: int, kind: str, *more: str) -> bytes:
    """Status line and headers up to the empty line."""
    first = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"
    return "\r\n".join((first, f"Content-Type: {kind}", *_ALWAYS, *more, "", "")).encode("latin-1")


def answer(status: int, body: bytes, kind: str = "text/plain; charset=utf-8", *more: str, empty: bool = False) -> bytes:
    """A whole answer. empty: as to a HEAD, with the length of the body and without it."""
    start = head(status, kind, f"Content-Length: {len(body)}", *more)
    return start if empty else start + body


def refusal(status: int, why: str) -> bytes:
    """An answer that turns a request down, in one line."""
    more = {405: ("Allow: GET, HEAD",), 503: ("Retry-After: 5",)}.get(status, ())
    return answer(status, f"{status}: {why}\n".encode(), "text/plain; charset=utf-8", *more)
