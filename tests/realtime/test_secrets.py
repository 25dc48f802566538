"""Passwords: in no byte of what the line prints, publishes, writes or shows in the list of processes."""

from __future__ import annotations

import base64
import http.server
import importlib.util
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote

import pytest

from realtime import secrets
from realtime.errors import UsageError
from realtime.secrets import MASK, Scrub, expand, keep_secret, redacted, scrub, secrets_of, sendable, source_of
from tests.realtime.hands import ROOT, free_address, start

NASTY = ["p@s/s:w0rd?#", "50% off: all", "ümläut-ß&=+", "quo\"te's\\n", "p%40ss%2Fword", "plain-but-secret"]
WORST = [NASTY[0], NASTY[3]]  # for whole lines, which take seconds
USER = "user"


def forms(password: str) -> set[bytes]:
    """What a leak of it can look like: raw, percent-encoded, in base64, and as JSON and repr write it."""
    plain = {password, unquote(password)}
    texts = set(plain)
    for one in plain:
        texts |= {quote(one, safe=""), quote(one), quote_plus(one), json.dumps(one)[1:-1], repr(one)[1:-1]}
        texts |= {base64.b64encode(text.encode()).decode() for text in (one, f"{USER}:{one}")}
    return {re.sub("%..", turn, text).encode() for text in texts for turn in (r"\g<0>", lambda code: code[0].lower())}


def leaks(password: str, given: bytes) -> list[bytes]:
    return [form for form in forms(password) if form in given]


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test keeps secret is none of the next one's."""
    monkeypatch.setattr(secrets, "_forms", set())
    monkeypatch.setattr(secrets, "_pattern", None)
    monkeypatch.setattr(secrets, "_hidden", {})


# --- Addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("rtsp://u:p@cam.lan:554/live?k=1", "rtsp://***@cam.lan:554/live?***"),
        ("rtsp://u:p@s/s:w0rd?#@cam/x", "rtsp://***@cam/x"),
        ("RTSPS://u:a b%c@cam/x#part", "RTSPS://***@cam/x#***"),
        ("srt+x://token@cam:9/x", "srt+x://***@cam:9/x"),
        ("u:p@s@cam/x", "***@cam/x"),
        ("rtsp:/u:p@cam/x", "rtsp:/***@cam/x"),
        ("rtsp://cam/user=admin_password=tlJw_channel=1.sdp", "rtsp://cam/user=admin_password=***_channel=1.sdp"),
        ("http://cam/api_token=abcd/live", "http://cam/api_token=***/live"),
        ("http://cam/live", "http://cam/live"),
        ("walk.mp4", "walk.mp4"),
        ("me@home.mp4", "me@home.mp4"),
        ("/dev/video0", "/dev/video0"),
        ("-", "-"),
    ],
)
def test_an_address_is_shown_without_user_password_and_query(given, seen):
    assert redacted(given) == seen
    assert redacted(seen) == seen


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("rtsp://u:pass@cam/x", {"u:pass", "pass"}),
        ("rtsp://u:p@s/s@cam/x", {"u:p", "p", "u:p@s/s", "p@s/s"}),
        ("http://cam/x?token=abc&n=1", {"abc"}),
        ("http://cam/user=admin_password=tlJw_channel=1.sdp", {"tlJw"}),
        ("rtsp://${USER}:${PASS}@cam/x", set()),
        ("rtsp://cam/x", set()),
        ("walk.mp4", set()),
        ("me@home.mp4", set()),
    ],
)
def test_the_secrets_of_an_address_are_found(given, found):
    assert set(secrets_of(given)) == found


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("rtsp://user:p@s/s:w0rd?#@127.0.0.1:5/x", "rtsp://user:p%40s%2Fs%3Aw0rd%3F%23@127.0.0.1:5/x"),
        ("rtsp://user:50% off@cam.lan/x", "rtsp://user:50%25%20off@cam.lan/x"),
        ("rtsp://user:a#b@cam/x", "rtsp://user:a%23b@cam/x"),
        ("rtsp://user:p%40ss@cam/x", "rtsp://user:p%40ss@cam/x"),
        ("rtsp://user:plain@cam/x", "rtsp://user:plain@cam/x"),
        ("http://10.0.0.7:80/x?mail=a@b", "http://10.0.0.7:80/x?mail=a@b"),
        ("http://user:pw@10.0.0.7/x?mail=a@b", "http://user:pw@10.0.0.7/x?mail=a@b"),
        ("rtsp://[fe80::1]:554/cam@1", "rtsp://[fe80::1]:554/cam@1"),
        ("rtsp://cam/x", "rtsp://cam/x"),
    ],
)
def test_a_password_as_typed_is_encoded_for_the_player_and_all_else_stays(given, sent):
    assert sendable(given) == sent


def test_names_are_filled_in_from_the_environment_and_a_password_needs_no_encoding_there():
    environ = {"WHO": "me", "PASS": "p@s/s", "HOST": "cam:554", "ALL": "rtsp://a:b@cam/x"}
    assert expand("rtsp://${WHO}:${PASS}@${HOST}/x", environ) == "rtsp://me:p%40s%2Fs@cam:554/x"
    assert expand("${ALL}", environ) == "rtsp://a:b@cam/x"
    assert expand("$HOME and {WHO}", environ) == "$HOME and {WHO}"
    with pytest.raises(UsageError, match="needs NONE from the environment"):
        expand("rtsp://${NONE}@cam/x", environ)


def test_what_the_environment_gave_is_a_secret_from_then_on():
    assert source_of("rtsp://me:${PASS}@cam/x", None, {"PASS": "p@s/s"}) == "rtsp://me:p%40s%2Fs@cam/x"
    assert scrub("a p@s/s and p%40s%2Fs and p%40s%2fs z") == "a *** and *** and *** z"


def test_a_source_from_a_file_is_its_first_line_and_the_file_must_be_the_owners_alone(tmp_path: Path):
    path = tmp_path / "cam"
    path.write_text("rtsp://u:${P}@cam/x\r\nsecond\n")
    path.chmod(0o640)
    with pytest.raises(UsageError, match=f"run: chmod 600 {path}"):
        source_of("0", path)
    path.chmod(0o600)
    assert source_of("0", path, {"P": "secret"}) == "rtsp://u:secret@cam/x"
    for bad in ("", "\nrtsp://cam/x", "a\x00b", "x" * 5000):
        path.write_text(bad)
        with pytest.raises(UsageError, match="the first line of"):
            source_of("0", path)


# --- Text that leaves the program -----------------------------------------------------------------------------------


@pytest.mark.parametrize("password", NASTY)
def test_a_kept_secret_is_found_in_all_its_forms(password):
    assert keep_secret(password) and keep_secret(f"{USER}:{password}")
    for form in forms(password):
        assert scrub(f"before {form.decode()} after") == f"before {MASK} after"
    assert scrub(f"rtsp://{USER}:{password}@cam/x refused") == f"rtsp://{MASK}@cam/x refused"


def test_a_password_of_two_letters_masks_no_other_word():
    assert not keep_secret("ab")
    assert keep_secret("user:ab")
    assert scrub("about user:ab and user%3Aab") == "about *** and ***"


def test_an_address_nobody_registered_is_scrubbed_too():
    assert scrub("cannot open 'rtsp://a:b@cam/x': no") == "cannot open 'rtsp://***@cam/x': no"


def test_a_log_record_is_without_secrets_on_every_handler_its_traceback_too():
    keep_secret("hunter22")
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    logger = logging.Logger("own")
    handler = Lines()
    handler.addFilter(Scrub())
    logger.addHandler(handler)
    try:
        raise ValueError("no hunter22")
    except ValueError:
        logger.exception("password %s", "hunter22")
    logger.warning("%s", {"password": "hunter22"})
    logger.error("wrong %d", "hunter22")
    assert "ValueError: no ***" in lines[0] and "'password': '***'" in lines[1] and lines[2] == "wrong %d ('***',)"
    assert "hunter22" not in "".join(line for text in lines for line in text.splitlines() if "raise" not in line)


def test_records_of_handlers_without_the_filter_and_uncaught_errors_of_threads_are_scrubbed():
    program = """
import logging, sys, threading
from realtime.secrets import keep_secret, scrub_everything
keep_secret("hunter" + "22")
logging.basicConfig(level=0)
scrub_everything()
logging.getLogger().addHandler(logging.StreamHandler())
logging.getLogger("x").error("now %s", "hunter" + "22")
def fail():
    try:
        raise KeyError("hunter" + "22")
    except KeyError as error:
        raise ValueError("then " + "hunter" + "22") from error
thread = threading.Thread(target=fail)
thread.start(); thread.join()
class Late:
    def __del__(self): fail()
Late()
fail()
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=30)
    assert ran.returncode == 1 and b"hunter22" not in ran.stderr + ran.stdout
    assert ran.stderr.count(b"now ***") == 2 and ran.stderr.count(b"ValueError: then ***") == 3


# --- The line as a process ------------------------------------------------------------------------------------------


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


def test_the_command_line_keeps_its_length_and_its_other_arguments():
    program = "from realtime.secrets import hide_arguments; import sys; hide_arguments();"
    program += "sys.stdout.write(repr((sys.argv, open('/proc/self/cmdline', 'rb').read())))"
    given = ["-x", "--source=rtsp://user:p@ss@cam/x", "a://b@c", "ünï", ""]
    ran = subprocess.run(
        [sys.executable, "-c", program, *given], cwd=ROOT, capture_output=True, timeout=30, check=True, text=True
    )
    arguments, told = eval(ran.stdout)  # our own program's repr
    before = b"".join(os.fsencode(one) + b"\0" for one in [sys.executable, "-c", program, *given])
    assert len(told) == len(before)
    assert [piece.rstrip() for piece in told.split(b"\0")[3:]] == [
        b"-x", b"--source=rtsp://***@cam/x", b"a://***", "ünï".encode(), b"", b"",
    ]  # fmt: skip
    assert arguments[1:] == ["-x", "--source=rtsp://***@cam/x", "a://***@c", "ünï", ""]


def test_where_the_memory_cannot_be_written_one_line_says_what_to_do(monkeypatch, capsys):
    def refuse(shown: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(secrets, "_overwrite", refuse)
    monkeypatch.setattr(sys, "argv", ["run", "--source", "rtsp://u:pass@cam/x"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "run", "--source", "rtsp://u:pass@cam/x"])
    secrets.hide_arguments()
    said = capsys.readouterr().err
    assert "use --source-from" in said and said.count("\n") == 1 and "pass@" not in said
    assert sys.argv[2] == sys.orig_argv[3] == "rtsp://***@cam/x"
    assert source_of(sys.argv[2], None) == "rtsp://u:pass@cam/x"


def test_arguments_without_a_password_are_left_alone(monkeypatch):
    monkeypatch.setattr(secrets, "_overwrite", lambda shown: pytest.fail("written"))
    monkeypatch.setattr(sys, "argv", ["run", "--source", "rtsp://cam/x", "--events", "me@home.jsonl"])
    secrets.hide_arguments()
    assert sys.argv[2] == "rtsp://cam/x"


@pytest.mark.parametrize("stat", [b"1 (x) R", b"1 (a) b) R " + b"0 " * 50])
def test_a_kernel_that_does_not_tell_where_arguments_are_changes_nothing(monkeypatch, stat):
    import builtins
    import io

    real = builtins.open
    monkeypatch.setattr(
        "builtins.open", lambda path, *a, **k: io.BytesIO(stat) if path == "/proc/self/stat" else real(path, *a, **k)
    )
    with pytest.raises(ValueError):
        secrets._overwrite({b"x": b"y"})
