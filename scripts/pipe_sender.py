"""Sends a stamped MPEG-TS video into a named pipe or to a tcp:// address, until told to stop.

Encoding and sending run in a thread of this process through PyAV, so no other program is needed.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import av

from scripts.mjpeg_server import stamped


class PipeSender:
    """One sender; each picture carries the milliseconds of the monotonic clock at which it was made."""

    def __init__(self, target: str, fps: int = 30) -> None:
        """target: the path of a named pipe, or tcp://HOST:PORT?listen=1, at which the sender waits for a reader."""
        self.target, self._fps = target, fps
        self.silent = threading.Event()  # set: nothing is sent, and the connection stays
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def _send(self) -> None:
        with suppress(av.error.FFmpegError, OSError), av.open(self.target, "w", format="mpegts") as container:
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
