"""What a service manager is told: over a real socket, and by the line as a process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from realtime.notify import Notifier
from tests.realtime.hands import ROOT


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket and its NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        name = str(tmp_path / "notify") if request.param == "path" else f"@pcle-live-test-{os.getpid()}"
        listener.bind(name.replace("@", "\0") if name[0] == "@" else name)
        listener.settimeout(5)
        yield listener, name


def test_everything_is_told_as_systemd_reads_it(manager):
    listener, name = manager
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": name})
    notifier.ready("camera 0")
    notifier.status("12.0 fps\nsecond line")
    notifier.stopping()
    notifier.close()
    notifier.status("after the end")
    assert listener.recv(1000) == b"READY=1\nSTATUS=camera 0"
    assert listener.recv(1000) == b"STATUS=12.0 fps second line"
    assert listener.recv(1000) == b"STOPPING=1"
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.recv(1000)


def test_the_watchdog_hears_of_progress_twice_in_its_time_and_only_of_progress(manager):
    listener, name = manager
    now = [100.0]
    notifier = Notifier(name, watchdog_s=10.0, now_s=lambda: now[0])
    notifier.ready()
    assert listener.recv(1000) == b"READY=1"
    for _ in range(110):  # a loop that turns ten times a second for eleven seconds
        now[0] += 0.1
        notifier.alive()
    listener.setblocking(False)
    pings = 0
    while True:
        try:
            assert listener.recv(1000) == b"WATCHDOG=1"
            pings += 1
        except BlockingIOError:
            break
    assert pings == 2
    now[0] += 60  # the loop hangs: nobody calls, nothing is sent
    with pytest.raises(BlockingIOError):
        listener.recv(1000)


def test_no_child_speaks_for_this_process(manager):
    _, name = manager
    environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    assert Notifier.from_environment(environment).watchdog_s == 3.0
    assert environment == {"HOME": "/"}


@pytest.mark.parametrize("usec", ["0", "", "many", "-5"])
def test_no_watchdog_is_no_watchdog(usec):
    assert Notifier.from_environment({"WATCHDOG_USEC": usec}).watchdog_s is None


def test_another_process_s_watchdog_is_not_ours():
    assert Notifier.from_environment({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}).watchdog_s is None


def test_without_a_manager_nothing_happens():
    notifier = Notifier.from_environment({})
    notifier.ready()
    notifier.alive()
    notifier.stopping()


def test_a_manager_that_is_gone_or_full_stops_nothing(tmp_path, caplog):
    Notifier(str(tmp_path / "nobody"), 1.0).ready()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "full"))
        notifier = Notifier(str(tmp_path / "full"), 1.0)
        begun = time.monotonic()
        for number in range(2000):
            notifier.status(f"{number}")
        assert time.monotonic() - begun < 2
    assert len([record for record in caplog.records if "service manager" in record.getMessage()]) == 2


def test_a_child_hears_of_its_parent_s_death_however_it_came():
    child = (
        "import signal, time\nsignal.signal(15, lambda *_: print('told', flush=True) or exit())\n"
        "print('begun', flush=True)\ntime.sleep(20)"
    )
    reading, writing = os.pipe()
    parent = (
        "import os, subprocess, sys, time; from realtime.notify import die_with_parent\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], preexec_fn=die_with_parent, stdout={writing})\n"
        "time.sleep(1); os.kill(os.getpid(), 9)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT, pass_fds=(writing,))
    os.close(writing)
    assert process.wait(10) == -9
    with os.fdopen(reading) as told:
        assert told.read().split() == ["begun", "told"]


def test_the_line_tells_its_manager_and_is_silent_when_it_hangs(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(20)
        told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000"}
        process = subprocess.Popen(
            [sys.executable, "-m", "realtime.run", "--source", "synthetic", "--fps", "10", "--pub", "none", "--quiet"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **told},
        )
        try:
            assert listener.recv(1000).startswith(b"READY=1\nSTATUS=synthetic on ")
            seen = [listener.recv(1000) for _ in range(6)]
            assert seen.count(b"WATCHDOG=1") >= 3 and any(b" fps, 1 in view" in one for one in seen)
            process.send_signal(signal.SIGSTOP)
            listener.settimeout(0.1)
            with pytest.raises(TimeoutError):
                while True:
                    listener.recv(1000)  # what was under way
            listener.settimeout(1.5)
            with pytest.raises(TimeoutError):
                listener.recv(1000)
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
            listener.settimeout(10)
            while not listener.recv(1000).startswith(b"STOPPING=1"):
                pass
            assert process.wait(10) == 0
        finally:
            process.kill()
            process.wait()
