"""The doctor's rows about what the system grants: open files, ports, a right clock; and that nothing is sent away."""

from __future__ import annotations

import ctypes
import os
import resource
import time
from collections.abc import Callable, Iterator

from realtime.listener import listening_port
from realtime.probe import Check, Probe

FEWEST_FILES = 256  # a line has about 60 open, and each subscriber one more
_LITERT = "import realtime, ai_edge_litert.interpreter; print('loads')"
_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)
_OLDEST_YEAR = 2025
# The first mediapipe with an uploader; the packages' rows refuse it anyway.
_SENDS_FROM = (0, 10, 35)


def litert(ask: Probe) -> Check:
    """The second of the ways to find skeletons in pictures; without it the first, for one person, stays."""
    good, said = ask(_LITERT, "")
    advice = "" if good else "--pose auto takes MediaPipe, which follows one person; for several: run `make install`"
    return Check("pose", "LiteRT", "ok" if good else "note", said, advice)


def files() -> Check:
    """How many files and sockets a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "no limit" if soft == resource.RLIM_INFINITY else str(soft)
    few = soft != resource.RLIM_INFINITY and soft < FEWEST_FILES
    most = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    advice = f"too few for many subscribers: ulimit -n 1024 (at most {most} here)" if few else ""
    return Check("machine", "open files", "note" if few else "ok", shown, advice)


def clock(synchronised: Callable[[], bool | None] | None = None) -> Check:
    """Whether the wall clock is kept right. Decisions go by another clock; only the times that are told go by this."""
    known = (synchronised or _synchronised)()
    said = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if time.gmtime().tm_year < _OLDEST_YEAR:
        return Check(
            "machine", "clock", "note", said, "events would carry this time; set it: sudo timedatectl set-ntp true"
        )
    if known is None:
        return Check("machine", "clock", "ok", f"{said}, unknown whether synchronised")
    if not known:
        advice = "times of several machines may differ; decisions do not depend on it: sudo timedatectl set-ntp true"
        return Check("machine", "clock", "note", f"{said}, not synchronised", advice)
    return Check("machine", "clock", "ok", f"{said}, synchronised")


def ports(port: int) -> Iterator[Check]:
    """The port for events and the next one, for replays."""
    for number, use in ((port, ""), (port + 1, " (replays)")):
        if not 0 <= number <= 65535:
            yield Check("output", f"port {number}{use}", "note", "ports are 0 to 65535", "use --pub with another port")
            continue
        yield _port(number, use, port)


def telemetry(version_of: Callable[[str], str | None]) -> Check:
    """Whether anything that is installed for the line reports to its makers."""
    told = []
    if os.environ.get("ORT_DISABLE_TELEMETRY") != "1":
        told.append("ONNX Runtime's is not switched off")
    mediapipe = version_of("mediapipe")
    if mediapipe and tuple(int(part) for part in mediapipe.split(".")[:3] if part.isdecimal()) >= _SENDS_FROM:
        told.append(f"mediapipe {mediapipe} sends metrics")
    advice = "nothing should leave this machine: run `make install` in the project's folder" if told else ""
    return Check("output", "telemetry", "note" if told else "ok", "; ".join(told) or "none", advice)


def _port(number: int, use: str, first: int) -> Check:
    try:
        listening_port(f"127.0.0.1:{number}").close()
    except OSError as error:
        other = first + 2 if 0 < first < 65533 else 5558
        advice = f"a line may be running already; stop it or use --pub tcp://127.0.0.1:{other}"
        return Check("output", f"port {number}{use}", "note", error.strerror or str(error), advice)
    return Check("output", f"port {number}{use}", "ok", "free")


def _synchronised() -> bool | None:
    """What the kernel says of its clock; None where it says nothing."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))  # modes 0: read only
    except AttributeError:
        return None
    return None if state < 0 else state != _UNSYNCHRONISED
