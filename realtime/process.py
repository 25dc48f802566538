"""One camera's line as a process of its own: started, watched for progress, and started again when it fails."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Literal

from realtime.backoff import Backoff
from realtime.notify import FLEET, die_with_parent

State = Literal["waiting", "starting", "running", "ending", "ended", "given up"]
# What an exit code means (realtime/errors.py); those of FINAL come again however often a line is started.
MEANING = {
    0: "it ended",
    1: "internal error",
    2: "its settings are refused",
    3: "its bundle or engine is refused",
    4: "its source cannot be opened or was lost",
    5: "its address is in use",
    6: "the GPU or TensorRT that it demands is not there",
    130: "it was interrupted",
}
FINAL = (2, 3)
FAILING = 5  # failures in a row from which on a camera counts as failing
_LONGEST_LINE = 65_536
_CREDENTIALS = struct.Struct("3i")  # struct ucred: process, user, group


@dataclass(frozen=True)
class Pace:
    """Times in seconds: until READY, between signs of life, to end, between starts, and until a line counts as well."""

    ready_s: float = 60.0
    silence_s: float = 10.0
    drain_s: float = 3.0
    shortest_s: float = 0.2
    longest_s: float = 30.0
    healthy_s: float = 60.0


class LineProcess:
    """A process that tells READY=1, WATCHDOG=1 and STATUS= over a socket of ours, as a service tells systemd.

    Alive is what makes progress: a process that is there but silent is killed and started again. Between starts it
    waits a random time below a bound that doubles (full jitter), so that many do not come back in step.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        tell: Callable[[str, str, int], None],
        pass_on: Callable[[str, str], None],
        *,
        endless: bool,
        pace: Pace | None = None,
        backoff: Backoff | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """tell: takes (name, line, level of logging) of each change. pass_on: (name, line) of all that it says.

        endless: the source has no end, so an exit code 0 is no end. backoff: by default of the pace's times.
        """
        self.name, self.code = name, 0
        self.status, self.starts, self.failures = "", 0, 0
        self.state: State = "waiting"
        self._command, self._endless = list(command), endless
        self._tell, self._pass_on = tell, pass_on
        self._pace, self._now_s = pace or Pace(), now_s
        self._backoff = backoff or Backoff(self._pace.shortest_s, self._pace.longest_s, self._pace.healthy_s)
        self._process: subprocess.Popen[bytes] | None = None
        self._due_s = self._now_s()  # of the next start, of the next sign of life, or of the kill
        self._ready_s = 0.0
        self._line = b""
        self.socket, self._address = _listener()

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return self._process.pid if self._process is not None else None

    @property
    def output(self) -> IO[bytes] | None:
        """What the running process says."""
        return self._process.stderr if self._process is not None else None

    @property
    def over(self) -> bool:
        """Whether no process runs and none will be started."""
        return self._process is None and self.state in ("ended", "given up")

    @property
    def up_s(self) -> float:
        """How long it has been running without a break."""
        return self._now_s() - self._ready_s if self.state == "running" else 0.0

    def tend(self) -> None:
        """To be called several times a second: starts what is due, looks after what runs."""
        now_s = self._now_s()
        if self._process is None:
            if self.state == "waiting" and now_s >= self._due_s:
                self._start(now_s)
            return
        code = self._process.poll()
        if code is not None:
            self._ended(code)
        elif now_s >= self._due_s:
            self._overdue()
        elif self.failures:
            self._look_at_health()

    def hear(self) -> None:
        """Reads every datagram that has come. Only those of the running process itself count."""
        while True:
            try:
                text, more, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
            except BlockingIOError:
                return
            sender = [
                _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0]
                for level, kind, data in more
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
            ]
            if sender == [self.pid] and self.state in ("starting", "running"):
                self._take(text.decode(errors="replace").splitlines())

    def read(self) -> bool:
        """Passes on the lines that the process has said since; False where there is nothing more now."""
        if self.output is None:
            return False
        try:
            given = os.read(self.output.fileno(), _LONGEST_LINE)
        except BlockingIOError:
            return False
        *whole, self._line = (self._line + given).split(b"\n")
        if self._line and (not given or len(self._line) > _LONGEST_LINE):
            whole, self._line = [*whole, self._line], b""
        for line in whole:
            self._pass_on(self.name, line.decode(errors="replace"))
        return bool(given)

    def end(self) -> None:
        """Asks the process to end; it is killed if it is still there after the time to drain."""
        if self._process is None:
            self.state = "ended" if self.state != "given up" else self.state
        elif self.state != "ending":
            self.state, self._due_s = "ending", self._now_s() + self._pace.drain_s
            self._process.send_signal(signal.SIGTERM)
            self._process.send_signal(signal.SIGCONT)  # one that was stopped hears nothing

    def kill(self) -> None:
        """Ends the process at once."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """Kills what still runs and frees the socket."""
        self.kill()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel may hold it in a driver
                self._process.wait(1.0)
        self.socket.close()

    def _start(self, now_s: float) -> None:
        silence = str(int(self._pace.silence_s * 1e6))
        given = {"NOTIFY_SOCKET": self._address, "WATCHDOG_USEC": silence, FLEET: str(os.getpid())}
        try:
            self._process = subprocess.Popen(
                self._command,
                env={**os.environ, **given},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                preexec_fn=die_with_parent,  # it only calls prctl, so no lock of another thread can stop it
                start_new_session=True,  # Ctrl-C is ours to pass on
            )
        except OSError as error:
            self._again(f"cannot be started: {error.strerror}")
            return
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        self.state, self.status, self._line = "starting", "", b""
        self.starts += 1
        self._due_s = now_s + self._pace.ready_s
        self._tell(self.name, f"started (process {self._process.pid})", logging.INFO)

    def _take(self, lines: Sequence[str]) -> None:
        now_s = self._now_s()
        for line in lines:
            key, _, value = line.partition("=")
            if key == "STATUS":
                self.status = value
            elif (key, value) == ("READY", "1") and self.state == "starting":
                self.state, self._ready_s = "running", now_s
                self._due_s = now_s + self._pace.silence_s
                self._tell(self.name, "running", logging.INFO)
            elif line in ("WATCHDOG=1", "STOPPING=1") and self.state == "running":
                self._due_s = now_s + self._pace.silence_s

    def _overdue(self) -> None:
        if self.state == "ending":
            why = f"did not end within {self._pace.drain_s:g} s"
        elif self.state == "starting":
            why = f"was not ready within {self._pace.ready_s:g} s"
        else:
            why = f"made no progress for {self._pace.silence_s:g} s"
        self._tell(self.name, f"{why}: killed", logging.WARNING)
        self.kill()
        self._due_s = self._now_s() + self._pace.drain_s  # it is gone by the next look

    def _ended(self, code: int) -> None:
        assert self._process is not None
        while self.read():
            pass  # what it said last; its own children may hold the pipe, and then nothing more comes
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._look_at_health()
        self._process, was, self.code = None, self.state, code
        why = f"exit code {code}, {MEANING.get(code, 'unknown')}" if code >= 0 else f"died of {_signal_name(-code)}"
        if was == "ending":
            self.state = "ended"
            self._tell(self.name, f"ended ({why})", logging.INFO)
        elif code in FINAL:
            self.state = "given up"
            self._tell(self.name, f"{why}: given up; correct it, then start the fleet again", logging.ERROR)
        elif code == 0 and not self._endless:
            self.state = "ended"
            self._tell(self.name, "ended: its source is over", logging.INFO)
        else:
            self._again(why)

    def _look_at_health(self) -> None:
        if self.up_s >= self._pace.healthy_s:
            self.failures = 0
            self._backoff.was_healthy(self.up_s)

    def _again(self, why: str) -> None:
        wait_s = self._backoff.wait_s()
        self.failures += 1
        self.state, self._due_s = "waiting", self._now_s() + wait_s
        still = f"; {self.failures} failures in a row" if self.failures >= FAILING else ""
        self._tell(self.name, f"{why}: again in {wait_s:.1f} s{still}", logging.WARNING)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _listener() -> tuple[socket.socket, str]:
    """A socket for one process's datagrams, in no folder, so nothing is left behind; the kernel names each sender."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    listener.setblocking(False)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    name = f"pcle-live-{os.getpid()}-{secrets.token_hex(8)}"
    listener.bind(f"\0{name}")
    return listener, f"@{name}"
