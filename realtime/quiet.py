"""Start-up lines of MediaPipe and LiteRT, kept out of stderr."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CHATTER = re.compile(
    rb"^(INFO: Created TensorFlow Lite|WARNING: All log messages before absl"
    rb"|[WI]\d{4} .*(inference_feedback_manager|landmark_projection_calculator|gl_context)\w*\.cc:\d+\])"
)

_stderr_lock = threading.Lock()


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Takes those start-up lines out of stderr; every other line comes through when the block ends.

    Their C++ side knows no log level, so file descriptor 2 itself is turned away, for the whole process, one block
    at a time.
    """
    with _stderr_lock:
        try:
            sys.stderr.flush()
            real = os.dup(2)
        except (OSError, ValueError, AttributeError):  # a program with no stderr has nothing to keep quiet
            real = None
        if real is None:
            yield
            return
        with open(os.memfd_create("stderr"), "w+b") as caught:
            os.dup2(caught.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(real, 2)
                os.close(real)
                caught.seek(0)
                rest = b"".join(line for line in caught if not CHATTER.match(line))
                with suppress(OSError):
                    os.write(2, rest)
