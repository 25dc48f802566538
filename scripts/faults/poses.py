"""Faults of skeletons: nonsense numbers, ids that swap, more people than are followed."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from realtime.messages import Heartbeat, Status
from realtime.recording import read_recording
from scripts.faults.fault import Fault, Measured, expect
from scripts.faults.line import ROOT, RunningLine, run_to_end

DEMO = ROOT / "realtime" / "assets" / "demo.mcap"
GOOD_S = 6.0
NONSENSE = ("null", "1e39", "-1e30", "0", "NaN", "Infinity")


def demo_frames(seconds: float) -> list[list[list[float]]]:
    """Joints of the demo's person, frame by frame, repeated for so many seconds of 30 frames."""
    frames = [frame.poses[0].joints.round(3).tolist() for frame in read_recording(DEMO) if frame.poses]
    return [frames[i % len(frames)] for i in range(round(seconds * 30))]


def message(index: int, persons: list[tuple[int, str]]) -> bytes:
    """A pose message, one line; persons: track and its joints as JSON text, so that they may be no JSON."""
    people = ",".join(f'{{"track":{track},"joints":{joints}}}' for track, joints in persons)
    at_ns = 1_000_000_000 + index * 33_333_333
    head = f'{{"schema":"pose/1","session":"f","seq":{index},"source":"f","time":{{"mono_ns":{at_ns}}}'
    return f'{head},"frame":{index},"layout":"KINECT_V2_25","persons":[{people}]}}\n'.encode()


def _nonsense(number: str) -> Callable[[Path], Measured]:
    def run(folder: Path) -> Measured:
        joints = json.dumps([[0.0] * 3] * 25).replace("0.0", number)
        good = demo_frames(GOOD_S)
        lines = [message(i, [(1, json.dumps(frame))]) for i, frame in enumerate(good)]
        lines += [message(len(good) + i, [(1, joints)]) for i in range(300)]
        events = folder / "events.jsonl"
        code, said, _ = run_to_end("--source", "-", "--pub", "none", "--events", str(events), stdin=b"".join(lines))
        expect(code == 0, f"exit code {code}: {said[-300:]}")
        told = [json.loads(line) for line in events.read_text().splitlines()]
        turn_ns = 1_000_000_000 + len(good) * 33_333_333
        turn_ns += _shift(told)
        late = [e for e in told if e["phase"] == "start" and e["time"]["onset_mono_ns"] > turn_ns]
        return Measured(len(late), f"{len(told)} messages in all, exit code {code}")

    return run


def _shift(told: list[dict]) -> int:
    """Capture times of standard input are moved to the line's own clock; by how much is told by the first window."""
    first = told[0]["time"] if told else None
    if first is None or first["window"] is None:
        return 0
    return first["decided_mono_ns"] - round(first["window"]["end_s"] * 1e9) - 1_000_000_000


def swapped_ids(folder: Path) -> Measured:
    """Two people whose ids change places every second: what one did is never told of the other."""
    frames = demo_frames(24)
    still = json.dumps(frames[0])
    lines = []
    for i, frame in enumerate(frames):
        first, second = (1, 2) if (i // 30) % 2 == 0 else (2, 1)
        lines.append(message(i, [(first, json.dumps(frame)), (second, still)]))
    events = folder / "events.jsonl"
    code, said, _ = run_to_end("--source", "-", "--pub", "none", "--events", str(events), stdin=b"".join(lines))
    expect(code == 0, f"exit code {code}: {said[-300:]}")
    told = [json.loads(line) for line in events.read_text().splitlines()]
    tracks: dict[str, set[int]] = {}
    phases: dict[str, list[str]] = {}
    for event in told:
        tracks.setdefault(event["id"], set()).add(event["track"]["id"])
        phases.setdefault(event["id"], []).append(event["phase"])
    mixed = [one for one, found in tracks.items() if len(found) > 1]
    torn = [one for one, found in phases.items() if (found[0], found[-1], found.count("end")) != ("start", "end", 1)]
    return Measured(len(mixed) + len(torn), f"{len(tracks)} events, each of one id, with one start and one end")


def crowd(folder: Path) -> Measured:
    """Nobody, then twenty people at once, with eight followed: the action stage stays below a frame's time."""
    frames = [json.dumps(frame) for frame in demo_frames(20)]
    with RunningLine(folder, "-", "--persons", "8", stdin=subprocess.PIPE) as line:
        line.wait_state("online")
        begun = time.monotonic()
        assert line.process.stdin is not None
        for i in range(len(frames)):
            people = 0 if i < 60 else 20
            persons = [(k + 1, frames[(i + 37 * k) % len(frames)]) for k in range(people)]
            line.process.stdin.write(message(i, persons))
            line.process.stdin.flush()
            time.sleep(max(0.0, begun + i / 30 - time.monotonic()))
        beats = [b for b in line.of(Heartbeat) if b.persons]
        said = [s.reason or "" for s in line.of(Status)] + [line.log.read_text(errors="replace")]
        expect(any("8" in text and "follow" in text for text in said), f"nothing said of people beyond 8: {said}")
        line.process.stdin.close()
        line.process.wait(timeout=10)
    expect(len(beats) > 5, f"only {len(beats)} heartbeats with people")
    worst = [sum(b.stage_ms[name].p95 for name in ("window", "model", "decoder", "bus")) for b in beats]
    return Measured(sorted(worst)[len(worst) // 2], f"p95 of a frame, median of {len(beats)} s; 20 people, 8 followed")


def suspended(folder: Path) -> Measured:
    """The whole line stops for 10 s, as in a suspended machine, and goes on."""
    with RunningLine(folder, "synthetic", "--seed", "1") as line:
        line.wait_beat(fps=20)
        pids = [line.pid(), *_below(line.pid())]
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        time.sleep(10)
        begun = time.monotonic()
        for pid in pids:
            _signal(pid, signal.SIGCONT)
        back = line.wait_beat(since=begun + 0.05, fps=15, timeout_s=15)
        resets = [s for s in line.of(Status, begun) if s.state == "window_reset"]
        expect(len(resets) <= 1, f"{len(resets)} windows began anew: {[s.reason for s in resets]}")
        code, _ = line.stop()
        expect(code == 0, f"exit code {code}")
    return Measured(back - begun, f"{len(resets)} window began anew")


def _below(pid: int) -> Iterator[int]:
    from scripts.faults.line import children

    for child in children(pid):
        yield child
        yield from _below(child)


def _signal(pid: int, number: int) -> None:
    import os

    os.kill(pid, number)


FAULTS = (
    *(
        Fault(
            f"F14{letter}",
            f"joints that are {number}",
            "10 s of such joints after 6 s of a person on standard input",
            "actions that start from them",
            0,
            "events",
            _nonsense(number),
        )
        for letter, number in zip("abcdef", NONSENSE, strict=True)
    ),
    Fault(
        "F15a",
        "ids that swap",
        "two people's ids change places every second for 24 s",
        "events of two ids, or torn",
        0,
        "events",
        swapped_ids,
    ),
    Fault(
        "F15b",
        "a crowd",
        "from nobody to twenty people, `--persons 8`",
        "action stage of a frame, p95",
        33.3,
        "ms",
        crowd,
    ),
    Fault(
        "F13",
        "suspend and resume",
        "SIGSTOP of the line and its child for 10 s, then SIGCONT",
        "full rate again after",
        3,
        "s",
        suspended,
    ),
)
