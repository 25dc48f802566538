"""Faults of files and of the machine: full disks, refused settings, taken ports, a starved CPU, no network at all."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from realtime.messages import Heartbeat
from scripts.faults.fault import Failed, Fault, Measured, expect
from scripts.faults.line import ROOT, RunningLine, command, environment, run_to_end
from scripts.rtsp_server import RtspServer

VIDEO = ROOT.parent / "shared" / "videos" / "treadmill_walk.mp4"
STEP = (
    "import sys, time; real = time.time_ns; begun = time.monotonic()\n"
    "time.time_ns = lambda: real() + (0 if time.monotonic() - begun < 6 else {step} * 1_000_000_000)\n"
    "from realtime.run import main; sys.exit(main())"
)


def full_events(folder: Path) -> Measured:
    """--events on a full disk, of a live source: the line goes on and says so once."""
    path = "/dev/full"
    with RtspServer(video=VIDEO) as server, RunningLine(folder, server.url, "--events", path) as line:
        line.wait_beat(fps=10)
        begun = time.monotonic()
        while time.monotonic() - begun < 40 and not line.events():
            time.sleep(0.2)
        time.sleep(2)
        expect(line.process.poll() is None, f"the line ended with {line.process.returncode}: {line.tail()}")
        lost = [b.fps for b in line.of(Heartbeat, begun + 1) if (b.fps or 0) < 15]
        said = line.log.read_text(errors="replace").count(path)
        expect(said >= 1, f"nothing said of {path}: {line.tail()}")
        expect(bool(line.events()), "no event came")
    return Measured(float(len(lost)), f"said {said} times, {len(line.events())} events told all the same")


def limited_files(folder: Path) -> Measured:
    """A recording and a journal that meet a limit of file size: both stop, the line goes on."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    address = f"ipc://{folder}/bus"
    record, journal = folder / "a.mcap", folder / "journal.jsonl"
    arguments = ["--source", "synthetic", "--seed", "3", "--pub", address, "--fast", "--duration", "300"]
    arguments += ["--record", str(record), "--journal", str(journal), "--quiet"]
    done = subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        timeout=120,
        preexec_fn=limit,
        check=False,
    )
    said = done.stderr.decode(errors="replace")
    expect(done.returncode in (0, 1), f"exit code {done.returncode}: {said[-300:]}")
    expect(str(record) in said, f"nothing said of {record}: {said[-300:]}")
    expect(not record.exists(), "a recording that is not whole has its own name")
    return Measured(said.count("Traceback"), f"exit code {done.returncode}")


def wrong_configs(folder: Path) -> Measured:
    """Configuration files that cannot be meant so: each is refused with exit code 2 and one line."""
    texts = {
        "typo": 'sorce = "synthetic"\n',
        "type": "persons = 'two'\n",
        "empty": "",
        "not TOML": "source = = 1\n",
        "BOM only": "\ufeff",
        "10 MB": "# " + "x" * 10_000_000,
        "binary": "\0\1\2",
        "twice": "persons = 1\npersons = 2\n",
        "duplicate camera": '[camera.a]\nsource="0"\n[camera.a]\nsource="1"\n',
    }
    bad = []
    for name, text in texts.items():
        file = folder / "line.toml"
        file.write_text(text)
        code, said, _ = run_to_end("--config", str(file), "--print-config")
        if name == "empty" or name == "BOM only":  # an empty file says nothing; either answer is a clear one
            continue
        if code != 2 or "Traceback" in said or str(file) not in said:
            bad.append(f"{name}: {code} {said[-120:]!r}")
    expect(not bad, "; ".join(bad))
    return Measured(len(bad), f"{len(texts)} files")


def taken_port(folder: Path) -> Measured:
    """A second line on the same port, and an ipc file left by a dead one."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        begun = time.monotonic()
        code, said, _ = run_to_end("--source", "synthetic", "--pub", f"tcp://127.0.0.1:{port}", "--duration", "1")
        seconds = time.monotonic() - begun
    expect(code == 5, f"exit code {code}, not 5: {said[-300:]}")
    stale = folder / "stale"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    code, said, _ = run_to_end("--source", "synthetic", "--fast", "--pub", f"ipc://{stale}", "--duration", "1")
    expect(code == 0, f"a stale ipc file: exit code {code}: {said[-300:]}")
    return Measured(seconds, "exit code 5; a stale ipc file is taken over")


def starved(folder: Path) -> Measured:
    """Four busy processes beside the line: frames are dropped, not queued."""
    burners = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=lambda: os.nice(0) and None)
        for _ in range(4)
    ]
    try:
        with RunningLine(folder, "synthetic", "--seed", "1") as line:
            line.wait_beat(timeout_s=60)
            time.sleep(15)
            beats = [b for b in line.of(Heartbeat)[3:] if b.frame_age_ms is not None]
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    expect(len(beats) >= 8, f"only {len(beats)} heartbeats in 15 s")
    ages = sorted(b.frame_age_ms.p95 for b in beats)
    return Measured(ages[len(ages) // 2], f"median of {len(ages)} s; worst {ages[-1]:.0f} ms")


def stepped_clock(folder: Path) -> Measured:
    """The wall clock jumps an hour on, and an hour back, while the line runs."""
    worst = 0.0
    for step in (3600, -3600):
        here = folder / f"{step}"
        here.mkdir()
        program = [sys.executable, "-c", STEP.format(step=step), "--headless"]
        with RunningLine(here, "synthetic", "--seed", "1", program=program) as line:
            line.wait_beat(fps=20)
            time.sleep(10)
            bad = [s for s in line.states() if s not in ("online",)]
            expect(not bad, f"step {step}: states {line.states()}")
            slow = [b.fps for b in line.of(Heartbeat)[2:] if (b.fps or 0) < 20]
            resets = [s for s in line.of(type(line.seen[0][1])) if getattr(s, "state", "") == "window_reset"]
            worst = max(worst, len(resets), len(slow))
    return Measured(worst, "windows that began anew or slow seconds")


def stopped_early(folder: Path) -> Measured:
    """SIGTERM at many moments of start and run, while recording."""
    worst, codes = 0.0, []
    for k, delay in enumerate((0.05, 0.15, 0.3, 0.5, 0.8, 1.2, 2.0, 3.0)):
        record = folder / f"{k}.mcap"
        process = subprocess.Popen(
            command("--source", "synthetic", "--pub", "none", "--record", str(record)),
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(delay)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            codes.append(process.wait(timeout=10))
        except subprocess.TimeoutExpired:
            process.kill()
            raise Failed(f"still alive 10 s after SIGTERM sent {delay} s after the start") from None
        worst = max(worst, time.monotonic() - begun)
        if record.exists():
            code, said, _ = run_to_end("--source", str(record), "--fast", "--pub", "none")
            expect(code == 0, f"a recording stopped after {delay} s does not play: {said[-200:]}")
    # Before Python itself has set a handler the signal ends the process in the kernel's way.
    expect(set(codes) <= {0, -signal.SIGTERM} and codes[-1] == 0, f"exit codes {codes}")
    return Measured(worst, f"exit codes {codes}")


def no_network(folder: Path) -> Measured:
    """In a network namespace of its own with nothing in it, not even loopback."""
    if shutil.which("unshare") is None:
        raise Failed("unshare is not installed (apt-get install util-linux)")
    events = folder / "events.jsonl"
    arguments = ["--source", "synthetic", "--seed", "3", "--fast", "--duration", "120", "--events", str(events)]
    arguments += ["--pub", f"ipc://{folder}/bus"]
    done = subprocess.run(
        ["unshare", "--net", *command(*arguments)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    said = done.stderr.decode(errors="replace")
    expect(done.returncode == 0, f"exit code {done.returncode}: {said[-300:]}")
    told = [json.loads(line) for line in events.read_text().splitlines()]
    expect(bool(told), "no event was told")
    return Measured(done.returncode, f"{len(told)} event messages")


FAULTS = (
    Fault("F27a", "disk full: events", "`--events /dev/full`", "seconds below 15 fps after it", 0, "s", full_events),
    Fault("F27b", "disk full: recording and journal", "a limit of 150 kB a file", "tracebacks", 0, "", limited_files),
    Fault(
        "F26",
        "wrong configuration",
        "typos, wrong types, no TOML, 10 MB, binary, twice the same",
        "files not refused by name with exit code 2",
        0,
        "files",
        wrong_configs,
    ),
    Fault(
        "F33",
        "port taken",
        "another program on the port; an ipc file of a dead line",
        "refused after",
        5,
        "s",
        taken_port,
    ),
    Fault("F29", "starved CPU", "four busy processes on this machine", "frame age p95", 250, "ms", starved),
    Fault(
        "F12",
        "wall clock steps",
        "an hour on, an hour back, while it runs",
        "windows begun anew or slow seconds",
        0,
        "",
        stepped_clock,
    ),
    Fault(
        "F34",
        "SIGTERM at any moment",
        "0.05 to 3 s after the start, while recording",
        "longest until it ended",
        2,
        "s",
        stopped_early,
    ),
    Fault("F36", "no network at all", "`unshare --net`, not even loopback", "exit code", 0, "", no_network),
)
