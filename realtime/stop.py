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


class Stop:
    """The first signal lets the program end its events, a second one ends it at once.

    While parts are still being opened nothing is worth waiting for: the signal raises SystemExit, so that what is open
    is closed. From `running` on it sets `code`, which the loop looks at. A second one raises KeyboardInterrupt. A
    thread ends the process where the main thread hangs in a library and so never learns of the signal.
    """

    def __init__(self, drain_s: float = DRAIN_S) -> None:
        self.code: int | None = None
        self._opening, self._drain_s = True, drain_s
        self._ear, mouth = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._mouth = mouth
        self._before = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)  # written to by the C handler, at once
        signal.signal(signal.SIGINT, self._hear)
        for quietly in (signal.SIGTERM, signal.SIGHUP):  # SIGHUP: the terminal was closed
            signal.signal(quietly, self._hear)
        threading.Thread(target=self._watch, name="stop", daemon=True).start()

    def running(self) -> None:
        """Everything is open and the loop begins; SystemExit where a signal came before."""
        if self.code is not None:
            raise SystemExit(self.code)
        self._opening = False

    def close(self) -> None:
        """Takes the thread away, for programs that go on; not where a signal has come, for then the end must come."""
        if self.code is None:
            signal.set_wakeup_fd(self._before)
            os.close(self._mouth)  # the thread reads the end and closes the other one

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.code is not None:
            raise KeyboardInterrupt
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
            heard += [number for number in given if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
            if heard:
                limit_s = self._drain_s if len(heard) == 1 else AT_ONCE_S

    def _leave(self, heard: list[int]) -> None:
        """Nothing is lost while opening; otherwise the open events had no end, which is a fault."""
        code = INTERRUPTED if len(heard) > 1 or heard[0] == signal.SIGINT else 0
        if not self._opening and len(heard) == 1:
            os.write(2, b"error: something hangs, so the program was left before everything was closed\n")
            code = 1
        os._exit(code)
