"""Plays the embedded recording through the whole line and prints the events that a ZeroMQ subscriber receives.

The recording was made by our own generator (realtime/generator), so what happens in it is known. Both are
printed: what the script says and what was recognised. Run it with `make demo`.

Exit codes: 0 every action of the script got a start and its end · 1 one did not, or the line failed ·
130 interrupted.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from realtime.generator import DEMO_SCRIPT, Script
from realtime.messages import ActionEvent, MessageError, Status
from realtime.subscriber import Subscriber

ROOT = Path(__file__).resolve().parent.parent
RECORDING = ROOT / "realtime" / "assets" / "demo.mcap"
SLACK_S = 1.5  # an event may lie this far outside its action's time: smoothing and minimum durations shift it
SILENCE_S = 60.0  # a line that says nothing for so long hangs
FLUSH_S = 1.0  # messages on their way when the line has ended


@dataclass(frozen=True)
class Truth:
    """What the script does from start_s to end_s, in seconds of the recording."""

    action: str
    start_s: float
    end_s: float


@dataclass
class Occurrence:
    """One event id: when it began, was known and ended, in seconds of the recording."""

    action: str
    onset_s: float
    known_s: float
    end_s: float | None = None


@dataclass
class Heard:
    """What the subscriber received. odd: messages that break the rules of starts and ends."""

    occurrences: dict[str, Occurrence] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)
    zero_ns: int = 0  # capture time at which the recording began
    messages: int = 0

    def add(self, event: ActionEvent) -> str:
        """Takes one event; returns the line to print."""
        self.messages += 1
        when, now_ns = event.time, event.time.decided_mono_ns
        at, onset = (now_ns - self.zero_ns) / 1e9, (when.onset_mono_ns - self.zero_ns) / 1e9
        note = ""
        if event.phase == "start":
            if event.id in self.occurrences:
                self.odd.append(f"a second start of {event.action.id}, id {event.id}")
            self.occurrences[event.id] = Occurrence(event.action.id, onset, at)
            note = f"began at {onset:.1f} s"
        elif event.id not in self.occurrences:
            self.odd.append(f"an {event.phase} of {event.action.id} without a start, id {event.id}")
        elif event.phase == "end":
            known = self.occurrences[event.id]
            if known.end_s is not None:
                self.odd.append(f"a second end of {event.action.id}, id {event.id}")
            known.end_s = ((when.offset_mono_ns or now_ns) - self.zero_ns) / 1e9
            note = f"lasted {known.end_s - onset:.1f} s ({event.end_reason})"
        return f"{at:6.1f} s  {event.phase:6}  {event.action.name:16} {event.score.value:.2f}  {note}".rstrip()


def truths(script: Script) -> list[Truth]:
    """The script's actions, "nothing" left out."""
    found, at = [], 0.0
    for entry, seconds in script:
        action = entry.partition(":")[0]
        if action != "nothing":
            found.append(Truth(action, at, at + seconds))
        at += seconds
    return found


def match(expected: Iterable[Truth], occurrences: Iterable[Occurrence]) -> tuple[list[Occurrence | None], int]:
    """The occurrence of each truth (same action, about the same time, ended), or None; and how many were left over."""
    free, matched = list(occurrences), []
    for truth in expected:
        fits = [
            one
            for one in free
            if one.action == truth.action
            and one.end_s is not None
            and one.onset_s < truth.end_s + SLACK_S
            and one.end_s > truth.start_s - SLACK_S
        ]
        best = min(fits, key=lambda one: abs(one.onset_s - truth.start_s)) if fits else None
        matched.append(best)
        if best is not None:
            free.remove(best)
    return matched, len(free)


@contextmanager
def line(address: str, log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The line as its own process, as a device runs it; it is ended with the block."""
    command = [sys.executable, "-m", "realtime.run", "--source", str(RECORDING), "--pub", address]
    command += ["--fast", "--headless", "--quiet", "--wait-subscriber", "30"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def listen(subscriber: Subscriber, process: subprocess.Popen[bytes]) -> Heard:
    """Prints each event until the line has ended and nothing more comes."""
    heard, last = Heard(), time.monotonic()
    while True:
        ended = process.poll() is not None
        try:
            received = subscriber.receive(FLUSH_S if ended else 0.2)
        except MessageError as error:
            heard.odd.append(str(error))
            continue
        if received is not None:
            last = time.monotonic()
            if isinstance(received.message, ActionEvent):
                print(heard.add(received.message), flush=True)
            elif isinstance(received.message, Status):
                if received.message.state == "online":  # told right before the first frame
                    heard.zero_ns = received.message.time.mono_ns
                if received.message.reason:
                    print(f"{'':10}{received.message.state}: {received.message.reason}", flush=True)
        elif ended:
            return heard
        elif time.monotonic() - last > SILENCE_S:
            heard.odd.append(f"the line said nothing for {SILENCE_S:.0f} s")
            return heard


def summary(expected: list[Truth], heard: Heard) -> bool:
    """Prints the script beside what was recognised; whether every action of it was."""
    matched, left_over = match(expected, heard.occurrences.values())
    print("\nin the recording             recognised")
    for truth, one in zip(expected, matched, strict=True):
        told = "missed"
        if one is not None:
            told = f"{one.onset_s:5.1f} to {one.end_s:5.1f} s, known {one.known_s - truth.start_s:.1f} s after it began"
        print(f"{truth.action:10} {truth.start_s:5.1f} to {truth.end_s:5.1f} s   {told}")
    count = sum(one is not None for one in matched)
    print(f"\n{count} of {len(expected)} actions recognised, {left_over} events besides; {heard.messages} messages")
    return count == len(expected)


def free_address() -> str:
    """A loopback address that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def demo() -> int:
    """Runs the line with a subscriber connected; returns the exit code."""
    address, expected = free_address(), truths(DEMO_SCRIPT)
    print(f"playing {RECORDING.relative_to(ROOT)} through realtime.run, listening at {address}\n", flush=True)
    with tempfile.TemporaryFile() as log:
        with Subscriber(address, ("action.", "status.")) as subscriber, line(address, log) as process:
            heard = listen(subscriber, process)
            lost = subscriber.lost
        good = summary(expected, heard)
        problems = [*heard.odd, *([f"{lost} messages lost"] if lost else [])]
        if process.returncode != 0:
            log.seek(0)
            said = log.read().decode(errors="replace").strip() or "nothing"
            problems.append(f"realtime.run ended with exit code {process.returncode} and said:\n{said}")
    for problem in problems:
        print(f"demo: {problem}", file=sys.stderr)
    return 0 if good and not problems else 1


def main() -> int:
    """The command line: no options."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return demo()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
