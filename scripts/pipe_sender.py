"""Sends a stamped MPEG-TS video into a named pipe, until told to stop.

Encoding and sending run in a thread of this process through PyAV, so no other program is needed.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import av

from scripts.mjpeg_server import stamped


class _Plain:
    """A file without the means to seek, which a pipe only seems to have."""

    def __init__(self, file: BinaryIO) -> None:
        self.write = file.write


class PipeSender:
    """One sender; each picture carries the milliseconds of the monotonic clock at which it was made."""

    def __init__(self, pipe: Path, fps: int = 30) -> None:
        self._pipe, self._fps = pipe, fps
        self.silent = threading.Event()  # set: nothing is sent, and the pipe stays open
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def _send(self) -> None:
        # Opened here and not by PyAV, which would hold up every thread until somebody reads.
        with suppress(av.error.FFmpegError, OSError), self._pipe.open("wb", buffering=0) as file:
            self._write(_Plain(file))

    def _write(self, file: _Plain) -> None:
        with av.open(file, "w", format="mpegts") as container:  # type: ignore[call-overload]
            stream = container.add_stream("libx264", rate=self._fps)
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            stream.options = {"tune": "zerolatency", "preset": "ultrafast", "g": "15"}
            while not self._stopping.wait(1 / self._fps):
                if self.silent.is_set():
                    continue
                stamp = time.monotonic_ns() // 1_000_000 & 0xFFFF
                container.mux(stream.encode(av.VideoFrame.from_ndarray(stamped(stamp), format="bgr24")))

    def __enter__(self) -> PipeSender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(timeout=2.0)
