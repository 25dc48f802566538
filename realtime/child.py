"""The line's end of the child that holds its sockets: starts it, talks to it without ever waiting, and ends it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from realtime.outlet_wire import FrameError, Reader

BACKLOG_SPARE = 8 << 20  # bytes that wait for a slow child; beyond, what may be missed is dropped
BACKLOG_FULL = 16 << 20  # beyond, the child is taken for hung
_LONGEST_TURN_S = 0.25  # time in which nobody looked does not count as silence
_AT_ONCE = 64  # frames handed over by one system call
_LAST_WORDS = 2000
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Child:
    """One run of `python -m realtime.outlet_child`.

    silent_s: how long nothing was heard of it while somebody listened. dropped: frames that were let go because
    it was slow. fault: what it said that cannot be understood.
    """

    def __init__(self, memory_mb: int, descriptors: Sequence[int]) -> None:
        """descriptors: what it inherits, by the same numbers. Returns before it has begun to load.

        Errors: OSError where there is no memory, file or process to spare; then nothing is left open.
        """
        self._reader = Reader()
        self._backlog: deque[memoryview] = deque()
        self.backlog = self.dropped = 0
        self.ended, self.silent_s = False, 0.0
        self.hung = False  # it was ended because it did not answer
        self.fault: str | None = None
        self._looked_s = time.monotonic()
        with ExitStack() as opening:
            self._socket, theirs = socket.socketpair()
            opening.callback(self._socket.close)
            opening.callback(theirs.close)
            self._socket.setblocking(False)
            self._words = os.memfd_create("pcle-live-words", os.MFD_CLOEXEC)  # a pipe would block who fills it
            opening.callback(os.close, self._words)
            self._process = self._run(theirs, memory_mb, descriptors)
            opening.pop_all()
        theirs.close()
        self.pid = self._process.pid

    def _run(self, theirs: socket.socket, memory_mb: int, descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-m", "realtime.outlet_child", str(theirs.fileno()), str(os.getpid())]
        # The child begins with these signals blocked: a Ctrl-C that comes while it loads must not end it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            return subprocess.Popen(
                [*command, str(memory_mb)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._words,
                pass_fds=(theirs.fileno(), *descriptors),
                env={**os.environ, "PYTHONPATH": path, "MALLOC_ARENA_MAX": "2"},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def fileno(self) -> int:
        """For polling."""
        return self._socket.fileno()

    def send(self, frame: bytes, *, spare: bool = False) -> None:
        """Hands one frame over, or keeps it until the child takes it. spare: it may be missed where too much waits."""
        if self.ended:
            return
        if self.backlog:
            if spare and self.backlog > BACKLOG_SPARE:
                self.dropped += 1
                return
            self._keep(memoryview(frame))
            self.flush()
            return
        try:
            taken = self._socket.send(frame)
        except BlockingIOError:
            taken = 0
        except OSError:
            self.ended = True
            return
        if taken < len(frame):
            self._keep(memoryview(frame)[taken:])

    def flush(self) -> None:
        """Hands over what waits, as far as the child takes it."""
        while self.backlog and not self.ended:
            try:
                taken = self._socket.sendmsg([self._backlog[i] for i in range(min(_AT_ONCE, len(self._backlog)))])
            except BlockingIOError:
                return
            except OSError:
                self.ended = True
                return
            self.backlog -= taken
            while taken:
                first = self._backlog.popleft()
                if taken < len(first):
                    self._backlog.appendleft(first[taken:])
                taken -= min(taken, len(first))

    def listen(self) -> list[tuple[int, bytes]]:
        """The frames that came, without waiting; sets `ended` where the child is gone."""
        now_s = time.monotonic()
        self.silent_s += min(now_s - self._looked_s, _LONGEST_TURN_S)
        self._looked_s = now_s
        found: list[tuple[int, bytes]] = []
        while not self.ended:
            try:
                piece = self._socket.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:
                piece = b""
            if not piece:
                self.ended = True
                break
            self.silent_s = 0.0
            try:
                found += self._reader.feed(piece)
            except FrameError as error:
                self.spoilt(error)
        return found

    def spoilt(self, error: Exception) -> None:
        """Says that what it told cannot be understood: the conversation is over."""
        self.ended, self.fault = True, f"it said what no child of ours says: {error!r:.100}"

    def kill(self) -> None:
        """Ends it at once; `gone` tells when it is."""
        self.hung = self.hung or not self.ended
        self.ended = True
        with suppress(ProcessLookupError):
            self._process.kill()

    def gone(self, within_s: float = 0.0) -> bool:
        """Whether the process has ended; waits for it a while."""
        if within_s:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(within_s)
        return self._process.poll() is not None

    @property
    def code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def last_words(self) -> str:
        """The last line that it wrote to standard error."""
        size = os.fstat(self._words).st_size
        text = os.pread(self._words, _LAST_WORDS, max(0, size - _LAST_WORDS)).decode("utf-8", "replace")
        return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")

    def close(self) -> None:
        """Frees what is left of an ended child."""
        self._socket.close()
        if self._words >= 0:
            os.close(self._words)
        self._words = -1

    def _keep(self, rest: memoryview) -> None:
        self._backlog.append(rest)
        self.backlog += len(rest)
