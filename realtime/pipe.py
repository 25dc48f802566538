"""A named pipe as a file that can be waited for: reads end in bounded time, also where nobody writes."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

CHUNK_BYTES = 65536


class Pipe:
    """What PyAV needs of a file (`read`, `close`), on a named pipe.

    Opening a pipe in the usual way waits until somebody writes to it, for ever and without any way to be woken.
    A read waits `silence_s` at most and raises TimeoutError; it gives b"" when the last writer has gone. Before the
    first bytes came it waits until `first_s` after the opening.
    """

    def __init__(self, path: Path, silence_s: float, first_s: float) -> None:
        """OSError where it cannot be opened."""
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._silence_s, self._until_s = silence_s, time.monotonic() + first_s
        self._heard = False
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        """At most size bytes, as soon as there are any."""
        left_s = self._silence_s if self._heard else self._until_s - time.monotonic()
        if not self._poll.poll(max(left_s, 0.0) * 1000):
            raise TimeoutError("nobody wrote to the pipe")
        chunk = os.read(self._descriptor, min(size, CHUNK_BYTES))
        self._heard = True
        return chunk

    def close(self) -> None:
        """Frees the pipe; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
