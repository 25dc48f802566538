"""What ends a program from outside: Ctrl-C, SIGTERM and SIGHUP, in time whatever the program is just doing."""

from __future__ import annotations

import os
import select
import signal
import threading
from types import FrameType

DRAIN_S = 2.5  # from the first signal on; two seconds are promised
AT_ONCE_S = 0.5  # from the second on
INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed
_mouths: set[int] = set()  # what the C handler of signals writes to, while somebody of this file listens


def leave_while_loading() -> None:
    """Until a `Stop` takes over a signal ends the process at once: nothing is open yet.

    A thread does it, since a library that hangs while it is loaded keeps the main thread from hearing of signals.
    """
    ear = _listen()
    for number in _SIGNALS:
        signal.signal(number, lambda number, frame: None)
    threading.Thread(target=_leave_at_once, args=(ear,), name="stop-loading", daemon=True).start()


def _leave_at_once(ear: int) -> None:
    select.select([ear], [], [])
    given = os.read(ear, 64)
    if given:
        os._exit(INTERRUPTED if given[0] == signal.SIGINT else 0)
    os.close(ear)


def _listen() -> int:
    """A descriptor that gives the number of each signal as it comes; who listened before reads an end."""
    ear, mouth = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    if before in _mouths:
        _mouths.remove(before)
        os.close(before)
    _mouths.add(mouth)
    return ear


class Stop:
    """The first signal lets the program end its events, a second one ends it at once.

    While parts are still being opened nothing is worth waiting for: the signal raises SystemExit, so that what is open
    is closed. From `running` on it sets `code`, which the loop looks at. A second one raises KeyboardInterrupt. A
    thread ends the process where the main thread hangs in a library and so never learns of the signal.
    """

    def __init__(self, drain_s: float = DRAIN_S) -> None:
        self.code: int | None = None
        self._signalled = False
        self._opening, self._drain_s = True, drain_s
        self._ear = _listen()
        for number in _SIGNALS:
            signal.signal(number, self._hear)
        threading.Thread(target=self._watch, name="stop", daemon=True).start()

    def running(self) -> None:
        """Everything is open and the loop begins; SystemExit where a signal came before."""
        if self.code is not None:
            raise SystemExit(self.code)
        self._opening = False

    def end(self) -> None:
        """As SIGTERM does, but without its hurry: asked for by a command, after which nothing hangs."""
        self.code = self.code or 0

    def close(self) -> None:
        """Takes the thread away, for programs that go on; not where a signal has come, for then the end must come."""
        if self.code is None:
            mouth = signal.set_wakeup_fd(-1)
            if mouth in _mouths:
                _mouths.remove(mouth)
                os.close(mouth)  # the thread reads an end and closes the other side

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            raise KeyboardInterrupt
        self._signalled = True
        self.code = INTERRUPTED if number == signal.SIGINT else 0
        if self._opening:
            raise SystemExit(self.code)

    def _watch(self) -> None:
        heard: list[int] = []
        limit_s: float | None = None
        while True:
            ready, _, _ = select.select([self._ear], [], [], limit_s)
            if not ready:
                self._leave(heard)
            given = os.read(self._ear, 64)
            if not given:
                os.close(self._ear)
                return
            heard += [number for number in given if number in _SIGNALS]
            if heard:
                limit_s = self._drain_s if len(heard) == 1 else AT_ONCE_S

    def _leave(self, heard: list[int]) -> None:
        """Nothing is lost while opening; otherwise the open events had no end, which is a fault."""
        code = INTERRUPTED if len(heard) > 1 or heard[0] == signal.SIGINT else 0
        if not self._opening and len(heard) == 1:
            os.write(2, b"error: something hangs, so the program was left before everything was closed\n")
            code = 1
        os._exit(code)
