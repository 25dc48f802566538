"""Whole lines with nasty passwords: in no byte of what they print, publish, write or show in the list of processes."""

from __future__ import annotations

import base64
import http.server
import importlib.util
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.realtime.hands import ROOT, free_address, start
from tests.realtime.leaks import NASTY, USER, WORST, leaks


class Watch:
    """Samples what everybody can see of a process and its children while it runs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.own: list[bytes] = []
        self.children: set[bytes] = set()
        self.listed = b""
        self._process = process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.02):
            try:
                seen = Path(f"/proc/{self._process.pid}/cmdline").read_bytes()
                if seen:  # else it has ended
                    self.own.append(seen)
                for thread in Path(f"/proc/{self._process.pid}/task").iterdir():
                    for child in (thread / "children").read_text().split():
                        self.children.add(Path(f"/proc/{child}/cmdline").read_bytes())
            except OSError:
                continue
            if len(self.own) == 40:
                self.listed = subprocess.run(["ps", "-eo", "args"], capture_output=True).stdout

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


class Mjpeg(http.server.BaseHTTPRequestHandler):
    """A camera that wants user and password, shows sixty pictures and goes."""

    def do_GET(self) -> None:
        good = "Basic " + base64.b64encode(f"{USER}:{self.server.password}".encode()).decode()
        self.server.offered.append(self.headers.get("Authorization"))
        if self.headers.get("Authorization") != good:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=part")
        self.end_headers()
        for _ in range(60):
            self.wfile.write(
                b"--part\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(self.server.picture)
            )
            self.wfile.write(self.server.picture + b"\r\n")
            time.sleep(0.03)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def camera(password: str) -> Iterator[http.server.ThreadingHTTPServer]:
    cv2 = pytest.importorskip("cv2")
    import numpy as np

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mjpeg)
    server.daemon_threads = True
    server.password, server.offered = unquote(password), []  # type: ignore[attr-defined]
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    server.picture = cv2.imencode(".jpg", picture)[1].tobytes()  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def listen(address: str, over: threading.Event, heard: list[bytes]) -> None:
    """Every byte of every message on the bus."""
    import zmq

    with zmq.Context() as context, context.socket(zmq.SUB) as reader:
        reader.setsockopt(zmq.LINGER, 0)
        reader.subscribe("")
        reader.connect(address)
        while not over.is_set():
            if reader.poll(50):
                heard += reader.recv_multipart()


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() + path.name.encode() for path in folder.rglob("*") if path.is_file())


@pytest.mark.skipif(importlib.util.find_spec("mediapipe") is None, reason="mediapipe is not installed")
@pytest.mark.parametrize("password", [*WORST, NASTY[2]])
def test_a_line_that_reads_a_guarded_camera_shows_its_password_nowhere(password: str, tmp_path: Path):
    heard: list[bytes] = []
    over = threading.Event()
    address = free_address()
    with camera(password) as server:
        url = f"http://{USER}:{password}@127.0.0.1:{server.server_port}/x.mjpeg"
        flags = ("--events", tmp_path / "e.jsonl", "--record", tmp_path / "r.mcap", "--journal", tmp_path / "j.jsonl")
        process = start(
            "--source", url, "--pub", address, *flags, "--publish-poses", "--publish-scores", "--duration", 4
        )
        watch, reader = Watch(process), threading.Thread(target=listen, args=(address, over, heard))
        reader.start()
        try:
            out, said = process.communicate(timeout=60)
        finally:
            process.kill()
            over.set()
            watch.stop()
            reader.join()
    assert server.offered[0] is None and len(server.offered) >= 2  # it was asked, and it opened
    assert b"online" in b"".join(heard) and b"pose/1" in b"".join(heard), said
    for place, given in (("stdout", out), ("stderr", said), ("bus", b"".join(heard)), ("files", everything(tmp_path))):
        assert not leaks(password, given), place
    hidden_from = next(i for i, seen in enumerate(watch.own) if not leaks(password, seen))
    assert not any(leaks(password, seen) for seen in watch.own[hidden_from:])
    assert b"http://***@127.0.0.1" in watch.own[-1]
    assert not any(leaks(password, seen) for seen in watch.children)
    assert watch.listed and not leaks(password, watch.listed)


@pytest.mark.parametrize("password", WORST)
@pytest.mark.parametrize("way", ["environment", "file"])
def test_a_password_that_never_was_on_the_command_line_is_never_seen(
    way: str, password: str, tmp_path: Path, monkeypatch
):
    url = "rtsp://user:{}@127.0.0.1:1/x"
    if way == "environment":
        monkeypatch.setenv("CAMERA_PASSWORD", password)
        flags: tuple[object, ...] = ("--source", url.format("${CAMERA_PASSWORD}"))
    else:
        (tmp_path / "camera").write_text(url.format(password))
        (tmp_path / "camera").chmod(0o600)
        flags = ("--source-from", tmp_path / "camera")
    process = start(*flags, "--pub", "none", "--duration", 1)
    watch = Watch(process)
    out, said = process.communicate(timeout=30)
    watch.stop()
    assert watch.own and not any(leaks(password, seen) for seen in (out, said, *watch.own, *watch.children))


class Refusing(threading.Thread):
    """An RTSP server that answers everything with 401, as a camera does whose password was changed."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.asked = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]

    def run(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            with closing(peer):
                peer.settimeout(2)
                try:
                    while b"\r\n\r\n" in (asked := peer.recv(4096)):
                        self.asked += 1
                        number = next(row for row in asked.split(b"\r\n") if row.lower().startswith(b"cseq"))
                        head = b"RTSP/1.0 401 Unauthorized\r\n" + number
                        peer.sendall(head + b'\r\nWWW-Authenticate: Digest realm="c", nonce="1"\r\n\r\n')
                except OSError:
                    continue


@pytest.mark.parametrize("password", WORST)
def test_a_camera_that_refuses_the_password_and_one_that_is_not_there_are_told_without_it(
    password: str, tmp_path: Path
):
    refusing = Refusing()
    refusing.start()
    for port in (refusing.port, 1):
        url = f"rtsp://{USER}:{password}@127.0.0.1:{port}/x"
        process = start("--source", url, "--pub", "none", "--events", tmp_path / "e", "--log-json", "--duration", 2)
        try:
            out, said = process.communicate(timeout=30)
        finally:
            process.kill()
        assert b"Traceback" not in said and f"rtsp://***@127.0.0.1:{port}/x".encode() in said
        assert not leaks(password, out + said + everything(tmp_path))
    assert refusing.asked >= 1  # it was this host that was asked, none made of the password


@pytest.mark.parametrize("password", WORST)
@pytest.mark.parametrize(
    "flags",
    [
        ("--sorce", "rtsp://{}@127.0.0.1:1/x"),
        ("rtsp://{}@127.0.0.1:1/x",),
        ("--pub", "tcp://{}@127.0.0.1:1", "--source", "synthetic"),
        ("--source={}@127.0.0.1:1/x",),
        ("--print-config", "--pub", "none", "--duration", "1", "--source", "rtsp://{}@127.0.0.1:1/x"),
    ],
    ids=["a flag misspelt", "no flag", "another flag", "no scheme", "print-config"],
)
def test_a_complaint_about_flags_shows_no_password(password: str, flags: tuple[str, ...]):
    process = start(*(flag.format(f"{USER}:{password}") for flag in flags))
    out, said = process.communicate(timeout=30)
    squeezed = b"".join(out.split() + said.split()).replace("│".encode(), b"")  # a box may break it in two
    assert b"Traceback" not in said and not leaks(password, out + said)
    assert not leaks(password.replace(" ", ""), squeezed)


@pytest.mark.parametrize("password", WORST)
def test_an_internal_error_that_quotes_the_address_shows_no_password(password: str):
    program = """
import runpy
import realtime.source
def broken(spec, **_):
    raise RuntimeError(f"planted: {spec} and {spec!r} and {spec.encode()!r}")
realtime.source.open_source = broken
runpy.run_module("realtime.run", run_name="__main__", alter_sys=True)
"""
    url = f"rtsp://{USER}:{password}@127.0.0.1:1/x"
    ran = subprocess.run(
        [sys.executable, "-c", program, "--source", url, "--pub", "none"], cwd=ROOT, capture_output=True, timeout=60
    )
    assert ran.returncode == 1 and b"RuntimeError: planted: rtsp://***@127.0.0.1:1/x" in ran.stderr
    assert not leaks(password, ran.stderr + ran.stdout)
