"""A network camera that misbehaves on demand: MJPEG over HTTP on loopback, from the standard library and OpenCV.

Every picture says its number in its pixels, so a test can prove which pictures reached the line and how old they were:
`stamped` draws it, `stamp_of` reads it back or finds that the picture is damaged.

    python -m scripts.mjpeg_server 8090          then play http://127.0.0.1:8090/normal, /stall?after=60 …
"""

from __future__ import annotations

import base64
import http.server
import itertools
import sys
import threading
import time
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np

BITS = 16
MODES = (
    *("normal", "stall", "slowloris", "truncated", "corrupt", "allcorrupt", "resize", "rotate", "frozen", "black"),
    *("slow", "fps", "close", "redirect", "text"),
)


def stamped(number: int, width: int = 320, height: int = 240) -> np.ndarray:
    """A picture (H, W, 3) uint8 BGR with the lower 16 bits of its number as bars above, the opposite bars below."""
    bits = np.array([number >> bit & 1 for bit in range(BITS)], np.uint8)
    bars = np.repeat(bits, -(-width // BITS))[:width] * 160 + 48  # (W,)
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2], image[height // 2 :] = bars[:, None], (256 - bars)[:, None]
    return image


def stamp_of(image: np.ndarray) -> int | None:
    """The number in the picture (H, W, 3); None where above and below disagree, so where a part is damaged."""
    height, width = image.shape[:2]
    centres = np.arange(BITS) * -(-width // BITS) + width // BITS // 2
    rows = [height // 8, height // 4, height * 3 // 8, height * 5 // 8, height * 3 // 4, height * 15 // 16]
    seen = image[rows][:, centres, 1].astype(int)  # (6, 16)
    high = seen > 128
    if (abs(seen - 128) < 30).any() or (high[:3] != high[0]).any() or (high[3:] == high[0]).any():
        return None
    return int((high[0] << np.arange(BITS)).sum())


class MjpegServer:
    """Serves http://127.0.0.1:PORT/MODE?after=N&fps=F; numbers rise over all connections. Use it in a `with`.

    Modes, each after `after` good pictures (default 20): stall says no more, slowloris a byte every half second,
    truncated and corrupt damage one picture in five, allcorrupt every one, resize and rotate give another size,
    frozen and black repeat one, slow and fps send 2 and 10 a second, close hangs up. redirect leads to itself.
    """

    def __init__(self, fps: float = 30.0, port: int = 0, user: str | None = None, password: str = "") -> None:
        self.fps, self.port = fps, port
        self.sent: dict[int, int] = {}  # number -> monotonic ns at which its picture began to be sent
        self.connections = 0
        self.credentials = None if user is None else base64.b64encode(f"{user}:{password}".encode()).decode()
        self.numbers = itertools.count(1)
        self.stopping = threading.Event()
        self._server: http.server.ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Listens, on the same port as before where it was stopped."""
        self.stopping = threading.Event()
        handler = type("Handler", (_Handler,), {"camera": self, "stopping": self.stopping})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Hangs up on everybody and listens no more; a second call does nothing."""
        self.stopping.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def url(self, mode: str = "normal", *, user: str | None = None, **query: float) -> str:
        """The address of a mode; user: NAME:PASSWORD."""
        told = "&".join(f"{name}={value:g}" for name, value in query.items())
        host = f"{user}@127.0.0.1" if user else "127.0.0.1"
        return f"http://{host}:{self.port}/{mode}" + (f"?{told}" if told else "")

    def __enter__(self) -> MjpegServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    camera: MjpegServer
    stopping: threading.Event

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        mode, query = address.path.strip("/"), {name: float(said[0]) for name, said in parse_qs(address.query).items()}
        if self.camera.credentials and self.headers.get("Authorization") != f"Basic {self.camera.credentials}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
        elif mode == "redirect":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()
        elif mode not in MODES:
            self.send_error(404)
        else:
            self.camera.connections += 1
            with suppress(ConnectionError):
                self._play(mode, int(query.get("after", 20)), query.get("fps", self.camera.fps))

    def _play(self, mode: str, after: int, fps: float) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain" if mode == "text" else "multipart/x-mixed-replace; boundary=cut")
        self.end_headers()
        if mode == "text":
            self.wfile.write(b"no camera lives here\n" * 200)
            return
        due = time.monotonic()
        still = stamped(0)
        for count in itertools.count():
            number = next(self.camera.numbers)
            begun = count >= after  # it misbehaves from now on
            if begun and mode == "close":
                return
            if begun and mode == "stall":
                self.stopping.wait()
                return
            still = still if begun and mode == "frozen" else stamped(number, *_size(mode, begun))
            image = np.zeros_like(still) if begun and mode == "black" else still
            self.camera.sent[number] = time.monotonic_ns()
            self._send(_spoilt(cv2.imencode(".jpg", image)[1].tobytes(), mode, count if begun else None))
            if begun and mode == "slowloris":
                self._drip()
                return
            due += 1 / ({"slow": 2.0, "fps": 10.0}.get(mode, fps) if begun else fps)
            if self.stopping.wait(max(0.0, due - time.monotonic())):
                return

    def _send(self, jpeg: bytes) -> None:
        head = f"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        self.wfile.write(head.encode() + jpeg + b"\r\n")

    def _drip(self) -> None:
        """One byte of the next picture every half second."""
        self.wfile.write(b"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: 100000\r\n\r\n\xff\xd8")
        while not self.stopping.wait(0.5):
            self.wfile.write(b"\xff")

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def _size(mode: str, begun: bool) -> tuple[int, int]:
    if begun and mode == "resize":
        return 640, 480
    return (240, 320) if begun and mode == "rotate" else (320, 240)


def _spoilt(jpeg: bytes, mode: str, count: int | None) -> bytes:
    """The picture, damaged where its mode and its number ask for it."""
    if count is None or (mode != "allcorrupt" and count % 5):
        return jpeg
    if mode == "truncated":
        return jpeg[: len(jpeg) // 2]
    if mode in ("corrupt", "allcorrupt"):
        body = bytearray(jpeg)
        start = body.index(b"\xff\xda") + 14  # within the compressed data
        body[start : start + 200] = np.random.default_rng(count).bytes(200).replace(b"\xff", b"\x7f")
        return bytes(body)
    return jpeg


def main() -> None:
    """Serves until Ctrl-C."""
    with MjpegServer(port=int(sys.argv[1]) if len(sys.argv) > 1 else 8090) as server, suppress(KeyboardInterrupt):
        print(f"playing {server.url('MODE?after=60')}, MODE one of {', '.join(MODES)}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
