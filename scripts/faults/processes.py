"""Faults of processes: the child with the sockets, the line itself, a fleet and its cameras are killed or stopped."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from realtime.messages import Heartbeat
from scripts.faults.fault import Failed, Fault, Measured, expect
from scripts.faults.following import Following
from scripts.faults.hostile import free_port
from scripts.faults.line import ROOT, RunningLine, alive, children, environment

KILLS = 5


def child_of(line: RunningLine) -> int:
    """The process that holds the line's sockets."""
    below = children(line.pid())
    expect(len(below) == 1, f"the line has {len(below)} children, not one")
    return below[0]


def killed_child(folder: Path) -> Measured:
    """kill -9 of the child with the sockets, again and again at any moment: no event is missed."""
    worst, rng = 0.0, random.Random(1)
    address = f"tcp://127.0.0.1:{free_port()}"
    with (
        RunningLine(folder, "synthetic", "--seed", "3", "--publish-poses", address=address) as line,
        Following(address) as following,
    ):
        line.wait_beat(fps=20)
        for _ in range(KILLS):
            time.sleep(rng.uniform(1.0, 3.0))
            old = child_of(line)
            os.kill(old, signal.SIGKILL)
            begun = time.monotonic()
            served = line.wait(lambda _: True, "message", 10, since=begun + 0.02)  # poses come 30 times a second
            worst = max(worst, served - begun)
            expect(not alive(old), "the killed child is still there")
        time.sleep(2)
        expect(line.process.poll() is None, f"the line ended: {line.tail()}")
        slow = [b.fps for b in line.of(Heartbeat)[3:] if (b.fps or 0) < 20]
        expect(not slow, f"the line itself slowed down to {slow} fps")
        lost, recovered = following.lost, following.recovered
        numbers = following.numbers("action")
    expect(lost == 0, f"{lost} messages were lost for good")
    holes = sorted(set(range(min(numbers), max(numbers) + 1)) - set(numbers)) if numbers else []
    expect(not holes, f"event numbers missing: {holes}")
    return Measured(worst, f"{KILLS} kills; {recovered} messages recovered, none lost; {len(numbers)} events in order")


def stopped_child(folder: Path) -> Measured:
    """The child hangs: SIGSTOP, never continued."""
    address = f"tcp://127.0.0.1:{free_port()}"
    with RunningLine(folder, "synthetic", "--seed", "3", "--publish-poses", address=address) as line:
        line.wait_beat(fps=20)
        old = child_of(line)
        os.kill(old, signal.SIGSTOP)
        begun = time.monotonic()
        back = line.wait_beat(since=begun + 1.1, timeout_s=20) - begun
        expect(not alive(old), "the hung child is still there")
        late = line.of(Heartbeat, begun)
        slow = [b.fps for b in late if (b.fps or 0) < 20]
        expect(not slow, f"the line itself slowed down to {slow} fps")
    return Measured(back, "killed and replaced; the line kept its rate")


def killed_line(folder: Path) -> Measured:
    """kill -9 of the line: the child goes too, and the port is free for the next one."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    with RunningLine(folder, "synthetic", address=address) as line:
        line.wait_beat(fps=20)
        child = child_of(line)
        line.process.kill()
        line.process.wait()
        begun = time.monotonic()
        while alive(child):
            if time.monotonic() - begun > 10:
                raise Failed("the child is still there 10 s after the line was killed")
            time.sleep(0.01)
        gone = time.monotonic() - begun
    again = folder / "again"
    again.mkdir()
    with RunningLine(again, "synthetic", address=address) as line:
        line.wait_beat(fps=20, timeout_s=15)
    return Measured(gone, "the next line has the same port")


def _fleet(folder: Path, cameras: int) -> tuple[subprocess.Popen[bytes], list[str]]:
    addresses = [f"ipc://{folder}/camera{k}" for k in range(cameras)]
    text = "".join(
        f'[camera.cam{k}]\nsource = "synthetic"\nseed = {k}\npub = "{address}"\n' for k, address in enumerate(addresses)
    )
    return _fleet_of(folder, text), addresses


def _fleet_of(folder: Path, cameras: str) -> subprocess.Popen[bytes]:
    """A fleet of the cameras in this TOML text; it prints to fleet.log."""
    (folder / "cameras.toml").write_text(cameras)
    with (folder / "fleet.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "realtime.fleet", str(folder / "cameras.toml")],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def killed_camera(folder: Path) -> Measured:
    """One camera's process of a fleet of two is killed: it is started again, the other one is not touched."""
    process, addresses = _fleet(folder, 2)
    try:
        with Following(addresses[0]) as first, Following(addresses[1]) as second:
            first.wait_session(30)
            second.wait_session(30)
            before, other = first.session, second.session
            lines = [pid for pid in children(process.pid) if b"cam0" in _command(pid)]
            expect(len(lines) == 1, f"{len(lines)} processes for cam0")
            os.kill(lines[0], signal.SIGKILL)
            begun = time.monotonic()
            back = first.wait_session(20, other_than=before) - begun
            time.sleep(2)
            expect(second.session == other, "the other camera was started again too")
    finally:
        process.terminate()
        process.wait(timeout=15)
    return Measured(back, "with the load of model and libraries; the other camera was not touched")


def killed_fleet(folder: Path) -> Measured:
    """kill -9 of a fleet of two: every process below it is gone."""
    process, addresses = _fleet(folder, 2)
    with Following(addresses[0]) as first, Following(addresses[1]) as second:
        first.wait_session(30)
        second.wait_session(30)
        below = _all_below(process.pid)
        expect(len(below) >= 4, f"only {len(below)} processes below a fleet of two")
        process.kill()
        process.wait()
        begun = time.monotonic()
        while any(alive(pid) for pid in below):
            if time.monotonic() - begun > 15:
                raise Failed(f"still there after 15 s: {[pid for pid in below if alive(pid)]}")
            time.sleep(0.02)
        return Measured(time.monotonic() - begun, f"{len(below)} processes")


def hung_camera(folder: Path) -> Measured:
    """One camera's process of a fleet hangs (SIGSTOP): noticed for want of progress, and replaced."""
    process, addresses = _fleet(folder, 1)
    try:
        with Following(addresses[0]) as first:
            first.wait_session(30)
            time.sleep(2)
            before = first.session
            lines = [pid for pid in children(process.pid) if b"cam0" in _command(pid)]
            os.kill(lines[0], signal.SIGSTOP)
            begun = time.monotonic()
            back = first.wait_session(40, other_than=before) - begun
    finally:
        process.terminate()
        process.wait(timeout=15)
    return Measured(back, "killed and started again")


def bad_camera_in_a_fleet(folder: Path) -> Measured:
    """One of two cameras can never work (a damaged bundle): it is given up with a word, the other one runs."""
    address = f"ipc://{folder}/good"
    process = _fleet_of(
        folder,
        f'[camera.bad]\nsource = "synthetic"\nbundle = "{folder}/none"\npub = "ipc://{folder}/bad"\n'
        f'[camera.good]\nsource = "synthetic"\npub = "{address}"\n',
    )
    try:
        with Following(address) as good:
            good.wait_session(30)
            time.sleep(8)
            said = (folder / "fleet.log").read_text(errors="replace")
            expect("bad" in said, f"nothing said of the camera that cannot work: {said[-300:]}")
            expect(process.poll() is None, "the fleet ended")
            return Measured(good.silences, f"{len(good.sessions)} session in 8 s")
    finally:
        process.terminate()
        process.wait(timeout=15)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _all_below(pid: int) -> list[int]:
    found = []
    for child in children(pid):
        found += [child, *_all_below(child)]
    return found


FAULTS = (
    Fault(
        "F01",
        "child killed",
        "`kill -9` of the process with the sockets, five times",
        "served again after, longest",
        2,
        "s",
        killed_child,
    ),
    Fault("F03", "child hangs", "SIGSTOP of the process with the sockets", "served again after", 8, "s", stopped_child),
    Fault("F02a", "line killed", "`kill -9` of the line", "its child is gone after", 2, "s", killed_line),
    Fault(
        "F02b",
        "fleet killed",
        "`kill -9` of a fleet of two cameras",
        "everything below is gone after",
        3,
        "s",
        killed_fleet,
    ),
    Fault(
        "F01b",
        "camera's process killed",
        "`kill -9` of one of two in a fleet",
        "publishes again after",
        6,
        "s",
        killed_camera,
    ),
    Fault("F03b", "camera's process hangs", "SIGSTOP of one in a fleet", "publishes again after", 20, "s", hung_camera),
    Fault(
        "F35",
        "camera that can never work",
        "one of two cameras of a fleet has no bundle",
        "times the other one was silent for 3 s",
        0,
        "times",
        bad_camera_in_a_fleet,
    ),
)
