"""What ends the line from outside: its duration, Ctrl-C, SIGTERM and readers that go away."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from realtime.line import Deadline
from realtime.schema import SECOND_NS, Frame
from tests.realtime.hands import RAISED, ROOT, ended, frames, free_address, lines, start, story, write_hands


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="the tiny model is made with the onnx package, which is not installed")
    return write_hands(tmp_path_factory.mktemp("stop") / "hands")


@contextmanager
def raising(hands: Path, folder: Path, *flags: object) -> Iterator[subprocess.Popen[bytes]]:
    """A line of its own process that reads standard input and has just told that the hand went up."""
    events = folder / "events.jsonl"
    process = start("--bundle", hands, "--source", "-", "--events", events, *flags, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"".join(lines(frames()[:RAISED])))
    process.stdin.flush()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (events.exists() and b'"start"' in events.read_bytes()):
        assert process.poll() is None
        time.sleep(0.02)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("spoken", [0, 30])
def test_duration_ends_a_silent_standard_input(hands, spoken):
    flags = ("--bundle", hands, "--source", "-", "--pub", "none", "--duration", 1.5)
    process = start(*flags, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"".join(lines(frames()[:spoken])))
    process.stdin.flush()
    try:
        assert process.wait(timeout=15) == 0  # its input stays open
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("waits", "captured_s", "over"),
    [
        (False, [5.0, None, None, 7.5], [False, False, False, True]),
        (True, [None, None], [False, True]),  # not a word
        (True, [5.0, 5.5, None, None], [False, False, False, True]),
        (True, [5.0, 5.2, 5.4, 5.6], [False] * 4),  # what is late is not silent
    ],
)
def test_silence_counts_where_a_source_waits(monkeypatch, waits, captured_s, over):
    clock = itertools.count(100 * SECOND_NS, 1 * SECOND_NS)  # a second passes from one to the next
    monkeypatch.setattr("time.monotonic_ns", lambda: next(clock))
    deadline = Deadline(2.0, waits)
    given = [None if at is None else Frame(0, round(at * SECOND_NS)) for at in captured_s]
    assert [deadline.over(frame) for frame in given] == over


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_the_open_event_and_gives_its_code(hands, tmp_path, number, code):
    with raising(hands, tmp_path, "--pub", "none", "--record", tmp_path / "kept.mcap") as process:
        process.send_signal(number)
        assert ended(process)[0] == code
    assert story(tmp_path / "events.jsonl")[-1] == ("end", "right_up", "shutdown")
    assert (tmp_path / "kept.mcap").exists()  # finished: under its own name


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)])
def test_a_signal_while_modules_load_ends_without_a_traceback(tmp_path, number, code):
    (tmp_path / "tyro.py").write_text("import sys, time\nprint('loading', file=sys.stderr, flush=True)\ntime.sleep(30)")
    process = start("--source", "synthetic", first=tmp_path)
    assert process.stderr is not None
    assert process.stderr.readline() == b"loading\n"
    process.send_signal(number)
    assert ended(process) == (code, "")


def test_nobody_who_reads_what_it_says_is_no_error(hands):
    process = start("--bundle", hands, "--source", "synthetic", "--fast", "--pub", "none", "--duration", 30)
    assert process.stderr is not None
    process.stderr.readline()
    process.stderr.close()
    assert process.wait(timeout=30) == 0


def test_a_signal_before_the_first_subscriber_ends_the_wait(hands, tmp_path):
    process = start("--bundle", hands, "--source", "synthetic", "--pub", free_address(), "--wait-subscriber", 60)
    assert process.stderr is not None
    process.stderr.readline()  # what was opened
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 0
    assert time.monotonic() - begun < 5


def stand_in(folder: Path, module: str, body: str) -> Path:
    """A module that is loaded in the place of another."""
    (folder / f"{module}.py").write_text(body)
    return folder


SLOW = "import sys, time\nprint('loading', file=sys.stderr, flush=True)\ntime.sleep(30)"
HANGS = """import ctypes, sys
print('loading', file=sys.stderr, flush=True)
mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
lock(mutex)
lock(mutex)  # waits for itself in C, for ever, and signals do not wake it
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
@pytest.mark.parametrize("loads", [SLOW, HANGS], ids=["slow", "hangs"])
@pytest.mark.parametrize("module", ["onnxruntime", "av"])  # loaded with the program, and once the line is put together
def test_a_signal_while_the_line_loads_ends_it_in_time(tmp_path, number, code, loads, module):
    first = stand_in(tmp_path, module, loads)
    (tmp_path / "a.mp4").write_bytes(b"never read")
    flags = ("--source", tmp_path / "a.mp4", "--pub", "none", "--record", tmp_path / "kept.mcap")
    process = start(*flags, first=first)
    assert process.stderr is not None
    assert process.stderr.readline() == b"loading\n"
    time.sleep(0.3)  # it hangs now
    begun = time.monotonic()
    process.send_signal(number)
    assert ended(process) == (code, "")
    assert time.monotonic() - begun < 3.5
    assert not list(tmp_path.glob("kept*"))  # nothing half made


def test_a_silent_camera_does_not_delay_the_end(hands, tmp_path):
    with raising(hands, tmp_path, "--pub", free_address(), "--record", tmp_path / "kept.mcap") as process:
        time.sleep(0.6)  # it says nothing more, and stays open
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 0
        assert time.monotonic() - begun < 2.0
    assert story(tmp_path / "events.jsonl")[-1] == ("end", "right_up", "shutdown")


def test_what_hangs_at_the_end_is_left_and_told(tmp_path):
    program = (
        "import os, signal, time; from realtime.stop import Stop; stop = Stop(drain_s=0.3); stop.running()\n"
        "os.kill(os.getpid(), signal.SIGTERM); time.sleep(20)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=10, check=False)
    assert done.returncode == 1 and b"something hangs" in done.stderr


def test_a_second_signal_ends_it_at_once_also_where_the_first_hangs():
    program = (
        "import os, signal, time; from realtime.stop import Stop; stop = Stop(drain_s=60); stop.running()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "try:\n    os.kill(os.getpid(), signal.SIGTERM); time.sleep(20)\n"
        "except KeyboardInterrupt:\n    print('told', flush=True); time.sleep(20)"
    )
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=10, check=False)
    assert (done.returncode, done.stdout) == (130, b"told\n")
    assert time.monotonic() - begun < 5


def test_a_signal_between_opening_and_the_loop_is_not_lost():
    program = (
        "import os, signal; from realtime.stop import Stop; stop = Stop()\n"
        "try:\n    os.kill(os.getpid(), signal.SIGTERM)\nexcept SystemExit:\n    pass\n"
        "stop.running(); print('never')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=10, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


def test_after_a_shutdown_that_was_asked_for_the_first_signal_is_the_first():
    program = (
        "import os, signal; from realtime.stop import Stop; stop = Stop(drain_s=60); stop.running()\n"
        "stop.end(); os.kill(os.getpid(), signal.SIGTERM); print(stop.code)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=10, check=False)
    assert (done.returncode, done.stdout) == (0, b"0\n")
