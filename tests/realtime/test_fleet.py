"""Several lines under one roof: what fails starts again, what hangs is killed, and nobody is left behind."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live

from realtime.backoff import Backoff
from realtime.config import read_cameras
from realtime.fleet import Fleet, command_of, is_endless, picture
from realtime.notify import Notifier
from realtime.process import LineProcess, Pace
from tests.realtime.hands import ROOT, free_address

# A line in miniature: it tells how it is as the real one does, and then does what a test asks for.
TOLD = """
import os, signal, socket, sys, time
def tell(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text.encode(), "\\0" + os.environ["NOTIFY_SOCKET"][1:])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
"""
LIVES = TOLD + "tell('READY=1\\nSTATUS=12 fps')\nwhile True:\n    time.sleep(0.05); tell('WATCHDOG=1')\n"
HANGS = TOLD + "tell('READY=1')\ntime.sleep(60)\n"
NEVER_READY = TOLD + "time.sleep(60)\n"
DEAF = TOLD + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntell('READY=1')\n" + LIVES.partition("fps')\n")[2]
QUICK = Pace(ready_s=2.0, silence_s=0.6, drain_s=0.4, shortest_s=0.05, longest_s=0.2, healthy_s=30.0)


class Kept:
    """A child with what it told; tend it until something holds."""

    def __init__(self, program: str, pace: Pace = QUICK, endless: bool = True, backoff: Backoff | None = None) -> None:
        self.told: list[str] = []
        self.said: list[str] = []
        self.child = LineProcess(
            "door", [sys.executable, "-S", "-c", program], lambda _, text, level: self.told.append(text),
            lambda _, line: self.said.append(line), endless=endless, pace=pace, backoff=backoff,
        )  # fmt: skip

    def until(self, holds: Callable[[], bool], limit_s: float = 10.0) -> None:
        deadline = time.monotonic() + limit_s
        while not holds():
            assert time.monotonic() < deadline, self.told
            self.child.tend()
            self.child.hear()
            self.child.read()
            time.sleep(0.01)


@pytest.fixture
def keep() -> Iterator[Callable[..., Kept]]:
    made: list[Kept] = []

    def make(*given, **named) -> Kept:
        made.append(Kept(*given, **named))
        return made[-1]

    yield make
    for kept in made:
        kept.child.close()


def gone(pid: int) -> bool:
    """Whether a process is no more, or only waits for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_line_that_makes_progress_is_left_alone(keep):
    kept = keep(LIVES)
    kept.until(lambda: kept.child.state == "running")
    begun = time.monotonic()
    kept.until(lambda: time.monotonic() - begun > 2 * QUICK.silence_s)
    assert kept.child.starts == 1 and kept.child.state == "running" and kept.child.status == "12 fps"
    kept.child.end()
    kept.until(lambda: kept.child.over)
    assert kept.told[-1] == "ended (exit code 0, it ended)"


@pytest.mark.parametrize(
    ("program", "why"), [(HANGS, "made no progress for 0.6 s"), (NEVER_READY, "was not ready within 2 s")]
)
def test_a_line_that_is_there_but_silent_is_killed_and_started_again(keep, program, why):
    kept = keep(program)
    kept.until(lambda: kept.child.starts == 2)
    assert f"{why}: killed" in kept.told
    assert any(text.startswith("died of SIGKILL: again in 0.") for text in kept.told)


def test_a_line_that_was_stopped_is_killed_too(keep):
    kept = keep(LIVES)
    kept.until(lambda: kept.child.state == "running")
    first = kept.child.pid
    os.kill(first, signal.SIGSTOP)
    kept.until(lambda: kept.child.starts == 2 and kept.child.state == "running")
    assert gone(first)


@pytest.mark.parametrize("ends", ["sys.exit(1)", "sys.exit(4)", "sys.exit(5)", "sys.exit(0)", "os.abort()"])
def test_a_line_that_fails_or_ends_without_a_reason_never_stays_away(keep, ends):
    kept = keep(TOLD + ends)
    kept.until(lambda: kept.child.starts == 7)
    assert any("failures in a row" in text for text in kept.told)


@pytest.mark.parametrize("code", [2, 3])
def test_a_line_that_is_refused_is_given_up_and_said(keep, code):
    kept = keep(TOLD + f"print('error: no', file=sys.stderr); sys.exit({code})")
    kept.until(lambda: kept.child.over)
    assert (kept.child.state, kept.child.code, kept.child.starts) == ("given up", code, 1)
    assert kept.said == ["error: no"]
    assert kept.told[-1].startswith(f"exit code {code}") and "correct it" in kept.told[-1]


def test_the_end_of_a_file_is_an_end(keep):
    kept = keep(TOLD + "tell('READY=1')", endless=False)
    kept.until(lambda: kept.child.over)
    assert kept.child.state == "ended" and kept.told[-1] == "ended: its source is over"


def test_waits_grow_at_random_up_to_a_bound_and_begin_anew_after_health(keep):
    failing = keep("pass", backoff=Backoff(chance=lambda: 1.0)).child
    waits = []
    for _ in range(10):
        failing._again("it failed")
        waits.append(round(failing._due_s - time.monotonic(), 1))
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    healthy = keep(LIVES, Pace(silence_s=5, healthy_s=0.3), backoff=Backoff(10.0, 80.0, 0.3, chance=lambda: 1.0))
    for _ in range(5):
        healthy.child._again("it failed")
    healthy.child._due_s = 0.0
    healthy.until(lambda: healthy.child.state == "running")
    healthy.until(lambda: healthy.child.failures == 0)
    os.kill(healthy.child.pid, signal.SIGKILL)
    healthy.until(lambda: healthy.child.state == "waiting")
    assert healthy.told[-1] == "died of SIGKILL: again in 10.0 s"


def test_who_does_not_hear_is_killed_after_the_time_to_drain(keep):
    kept = keep(DEAF)
    kept.until(lambda: kept.child.state == "running")
    kept.child.end()
    begun = time.monotonic()
    kept.until(lambda: kept.child.over)
    assert QUICK.drain_s <= time.monotonic() - begun < QUICK.drain_s + 2
    assert "did not end within 0.4 s: killed" in kept.told


def test_nobody_else_speaks_for_a_line(keep):
    kept = keep(NEVER_READY)
    kept.until(lambda: kept.child.starts == 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"READY=1\nSTATUS=all is well", kept.child._address.replace("@", "\0"))
        kept.child.hear()
    assert (kept.child.state, kept.child.status) == ("starting", "")


def test_a_flood_of_words_and_an_endless_line_are_passed_on_in_pieces(keep):
    kept = keep(TOLD + "sys.stderr.write('x' * 300_000); sys.stderr.flush(); sys.exit(3)")
    kept.until(lambda: kept.child.over)
    assert sum(map(len, kept.said)) == 300_000 and max(map(len, kept.said)) <= 140_000


def test_the_fleet_gives_up_when_all_are_refused_and_tells_the_worst(keep):
    refused = [keep(TOLD + f"sys.exit({code})").child for code in (3, 2)]
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        assert Fleet(refused, Notifier()).run() == 3
        assert Fleet([keep(TOLD + "sys.exit(0)", endless=False).child], Notifier()).run() == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


CAMERAS = """
quiet = false
fps = 5
[camera.door]
source = "synthetic"
pub = "{0}"
events = "{2}/door.jsonl"
[camera.hall]
source = "synthetic"
pub = "{1}"
[camera.gone]
source = "/dev/video77"
[camera.wrong]
source = "synthetic"
bundle = "{2}/no-bundle"
"""


@pytest.fixture
def cameras(tmp_path) -> Path:
    path = tmp_path / "cameras.toml"
    path.write_text(CAMERAS.format(free_address(), free_address(), tmp_path))
    return path


def start_fleet(path: Path, *flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "realtime.fleet", str(path), *flags],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def hear(process: subprocess.Popen[str], *wanted: str) -> list[str]:
    """What the fleet says until each of these was said."""
    said: list[str] = []
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line.strip())
        if all(any(re.search(one, text) for text in said) for one in wanted):
            return said
    raise AssertionError(said)


def pids(said: list[str], name: str) -> list[int]:
    return [int(found[1]) for text in said if (found := re.match(rf"{name}: started \(process (\d+)\)", text))]


@pytest.mark.slow
@pytest.mark.faults
def test_a_fleet_of_real_lines(cameras):
    fleet = start_fleet(cameras)
    try:
        said = hear(fleet, "^door: running", "^hall: running", "^gone: exit code 4.*again", "^wrong: exit code 3.*up")
        door, hall = pids(said, "door")[0], pids(said, "hall")[0]
        arguments = Path(f"/proc/{door}/cmdline").read_bytes().split(b"\0")
        assert arguments[1:-1] == [os.fsencode(one) for one in command_of(cameras, "door")[1:]]
        os.kill(door, signal.SIGKILL)
        said += hear(fleet, "^door: died of SIGKILL: again", "^door: running")
        assert pids(said, "hall") == [hall]  # nobody else was disturbed
        begun = time.monotonic()
        fleet.send_signal(signal.SIGTERM)
        _, rest = fleet.communicate(timeout=10)
        assert time.monotonic() - begun < 4
        assert fleet.returncode == 0, rest
        assert "door: ended (exit code 0" in rest and "hall: ended (exit code 0" in rest
        assert all(gone(pid) for name in ("door", "hall", "gone") for pid in pids(said, name))
    finally:
        fleet.kill()
        fleet.communicate()


@pytest.mark.slow
@pytest.mark.faults
def test_no_orphan_is_left_when_the_fleet_is_killed(cameras):
    fleet = start_fleet(cameras)
    try:
        said = hear(fleet, "^door: running", "^hall: running")
        fleet.kill()
        fleet.wait()
        os.kill(pids(said, "hall")[0], signal.SIGSTOP)  # cannot hear that it is to end
        begun = time.monotonic()
        while not gone(pids(said, "door")[0]):
            assert time.monotonic() - begun < 4
            time.sleep(0.05)
    finally:
        fleet.kill()
        os.kill(pids(said, "hall")[0], signal.SIGCONT)
        fleet.communicate()
    while not gone(pids(said, "hall")[0]):
        assert time.monotonic() - begun < 10
        time.sleep(0.05)
    events = (cameras.parent / "door.jsonl").read_text().splitlines()
    assert sum('"phase":"start"' in line for line in events) == sum('"phase":"end"' in line for line in events)


def test_a_file_without_cameras_or_with_a_fault_starts_nobody(tmp_path):
    path = tmp_path / "none.toml"
    path.write_text('source = "synthetic"\n')
    fleet = start_fleet(path)
    assert "names no camera" in fleet.communicate(timeout=20)[1]
    assert fleet.returncode == 2
    path.write_text('[camera.a]\nsource = "synthetic"\npersons = 900\n')
    fleet = start_fleet(path)
    assert "camera a: --persons must be in [1, 64]" in " ".join(fleet.communicate(timeout=20)[1].split())
    assert fleet.returncode == 2
    path.write_text('[camera.a]\nsource = "synthetic"\nwait-subscriber = 90\n')
    fleet = start_fleet(path)
    assert "must be below 60 s in a fleet" in " ".join(fleet.communicate(timeout=20)[1].split())


def test_with_json_lines_everything_is_json_also_what_is_not_from_the_line(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(f'[camera.a]\nsource = "synthetic"\nbundle = "{tmp_path}"\n')
    fleet = start_fleet(path, "--log-json", "--quiet")
    said = [json.loads(line) for line in fleet.communicate(timeout=30)[1].splitlines()]
    assert fleet.returncode == 3
    assert {one["level"] for one in said} == {"error"}
    assert "given up" in said[-1]["message"] and "bundle" in said[0]["message"]


def test_print_config_of_a_fleet_is_a_fleet_s_file(cameras, tmp_path):
    fleet = start_fleet(cameras, "--print-config")
    printed, _ = fleet.communicate(timeout=20)
    assert fleet.returncode == 0
    again = tmp_path / "again.toml"
    again.write_text(printed)
    one, other = read_cameras(cameras), read_cameras(again)
    assert [s.values for s in one] == [s.values for s in other]


@pytest.mark.parametrize(
    ("setting", "endless"),
    [('"0"', True), ('"rtsp://host/x"', True), ('"a.mp4"', False), ('"a.mp4"\nloop = true', True)],
)
def test_what_has_an_end_and_what_has_none(tmp_path, setting, endless):
    path = tmp_path / "c.toml"
    path.write_text(f"[camera.a]\nsource = {setting}\n")
    assert is_endless(read_cameras(path)[0]) is endless


def test_the_table_shows_each_camera_as_it_is(keep):
    kept = keep(LIVES.replace("12 fps", "12 fps, [odd] 3/2"))
    kept.until(lambda: kept.child.state == "running" and bool(kept.child.status))
    out = io.StringIO()
    console = Console(file=out, width=100)
    with Live(picture([kept.child]), console=console, auto_refresh=False) as live:
        console.print("a line above it", markup=False)
        live.update(picture([kept.child]), refresh=True)
    row = next(line for line in out.getvalue().splitlines() if "door" in line)
    assert row.split()[:3] == ["door", "running", str(kept.child.pid)] and "[odd] 3/2" in row
