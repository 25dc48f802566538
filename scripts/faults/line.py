"""The real line as a process, with a subscriber that notes when each message came, and a look at what it holds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO

from realtime.client import Subscriber
from realtime.messages import ActionEvent, AnyMessage, Heartbeat, MessageError, Status
from realtime.zap import security
from scripts.faults.fault import Failed

ROOT = Path(__file__).resolve().parents[2]
START_S = 30.0  # a bare machine loads the libraries from disk first


def environment() -> dict[str, str]:
    """What a line started here needs: this checkout's code."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def command(*arguments: str) -> list[str]:
    """The line as a command, without a window."""
    return [sys.executable, "-m", "realtime.run", "--headless", *arguments]


def run_to_end(*arguments: str, stdin: bytes | None = None, timeout_s: float = 60.0) -> tuple[int, str, float]:
    """Runs a line to its end: exit code, what it printed on standard error, seconds."""
    begun = time.monotonic()
    done = subprocess.run(
        command(*arguments),
        input=stdin,
        capture_output=True,
        cwd=ROOT,
        env=environment(),
        timeout=timeout_s,
        check=False,
    )
    return done.returncode, done.stderr.decode(errors="replace"), time.monotonic() - begun


class RunningLine(AbstractContextManager["RunningLine"]):
    """A line on its own bus, watched. `seen` has every message with the time.monotonic() at which it came.

    lost: messages that its subscriber missed; refused: those that broke their schema; counted: for whoever empties
    seen.
    """

    def __init__(
        self,
        folder: Path,
        source: str,
        *flags: str,
        address: str | None = None,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        program: Sequence[str] | None = None,
        keys: Path | None = None,
        listen: bool = True,
    ) -> None:
        """folder: for its socket and log. program: what to start instead of the line, given the same flags.

        keys: a client's file, where the line has keys. listen: whether anybody subscribes at all.
        """
        self.address = address or f"ipc://{folder}/bus"
        self.log = folder / "line.log"
        self.seen: list[tuple[float, AnyMessage]] = []
        self.refused = self.lost = self.counted = 0
        self._done = threading.Event()
        self._subscriber = Subscriber(self.address, ("",), security(keys))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        if listen:
            self._thread.start()
            flags = ("--wait-subscriber", "20", *flags)
        arguments = ["--source", source, "--pub", self.address, *flags]
        self._log = self.log.open("wb")
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            [*(program or command()), *arguments], cwd=ROOT, env=environment(), stdin=stdin,
            stdout=subprocess.DEVNULL, stderr=self._log, start_new_session=True,
        )  # fmt: skip

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._done.set()
        if self._thread.is_alive():
            self._thread.join(timeout=3)
        self._subscriber.close()
        self._log.close()

    def _listen(self) -> None:
        while not self._done.is_set():
            try:
                received = self._subscriber.receive(0.1)
            except MessageError:
                self.refused += 1
                continue
            if received is not None:
                self.lost += received.lost
                self.seen.append((time.monotonic(), received.message))

    def wait(self, wanted: Callable[[AnyMessage], bool], what: str, timeout_s: float, since: float = 0.0) -> float:
        """The time.monotonic() at which the first such message after `since` came; Failed where none does in time."""
        deadline, looked = time.monotonic() + timeout_s, 0
        while True:
            while looked < len(self.seen):
                at, message = self.seen[looked]
                looked += 1
                if at >= since and wanted(message):
                    return at
            if self.process.poll() is not None and time.monotonic() > deadline - timeout_s + 1:
                raise Failed(f"the line ended with {self.process.returncode} before {what}: {self.tail()}")
            if time.monotonic() > deadline:
                raise Failed(f"no {what} within {timeout_s:g} s; statuses: {self.states()}; {self.tail()}")
            time.sleep(0.01)

    def wait_state(self, *states: str, timeout_s: float = START_S, since: float = 0.0) -> float:
        """When the source was told to be in one of these states."""
        return self.wait(
            lambda m: isinstance(m, Status) and m.state in states, f"status {' or '.join(states)}", timeout_s, since
        )

    def wait_beat(self, timeout_s: float = START_S, since: float = 0.0, fps: float = 0.0) -> float:
        """When a heartbeat with at least this many frames a second came."""
        return self.wait(
            lambda m: isinstance(m, Heartbeat) and (m.fps or 0.0) >= fps, f"heartbeat of {fps:g} fps", timeout_s, since
        )

    def of(self, kind: type, since: float = 0.0) -> list:
        """The messages of one kind that came after `since`."""
        return [message for at, message in self.seen if at >= since and isinstance(message, kind)]

    def states(self, since: float = 0.0) -> list[str]:
        """The states told, in order, window_reset left out."""
        return [one.state for one in self.of(Status, since) if one.state != "window_reset"]

    def events(self, since: float = 0.0) -> list[ActionEvent]:
        """The action events."""
        return self.of(ActionEvent, since)

    def tail(self) -> str:
        """The last lines that it printed."""
        return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-3:])

    def pid(self) -> int:
        """Of the line's own process."""
        return self.process.pid

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 10.0) -> tuple[int, float]:
        """Sends a signal; returns exit code and seconds until it ended."""
        begun = time.monotonic()
        self.process.send_signal(number)
        try:
            code = self.process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise Failed(f"still alive {timeout_s:g} s after signal {number}") from None
        return code, time.monotonic() - begun


def children(pid: int) -> list[int]:
    """Direct children of a process."""
    with suppress(OSError):
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def memory_mb(pid: int) -> float:
    """Resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def descriptors(pid: int) -> int:
    """Open files and sockets."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    """Threads."""
    return len(os.listdir(f"/proc/{pid}/task"))
