"""How fast the line runs: frames, ages and time per stage, told once a second."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from realtime.pipeline import STAGES

_MOST = 1024  # frames kept of one second; more are counted, not kept
_MS = 1e-6
BUS = len(STAGES)


@dataclass(frozen=True, slots=True)
class Reading:
    """One second of the line. Pairs are the median and the 95th percentile in milliseconds.

    frame_age_ms: from capture to told; None where captured_ns is no clock's time, or nothing came. stage_ms: by stage;
    "queue", from capture until the line took the frame, only where ages are told.
    """

    fps: float
    frame_age_ms: tuple[float, float] | None
    stage_ms: dict[str, tuple[float, float]]


class Meter:
    """Collects a row per frame in a fixed buffer; `read` gives the second's figures and starts anew."""

    def __init__(self) -> None:
        self._rows = np.zeros((_MOST, BUS + 3))  # stages, bus, queue, age; ns
        self._count = 0
        self._since = time.monotonic()
        self.frames = 0
        self.fps = 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the last reading."""
        return time.monotonic() - self._since

    def add(self, stage_ns: tuple[int, ...], bus_ns: int, age_ns: int) -> None:
        """Takes in one frame. age_ns: from capture to told, all of its stages included."""
        row = self._rows[self._count % _MOST]
        row[:BUS], row[BUS] = stage_ns, bus_ns
        # A file's frame can be taken a hair before it is due.
        row[BUS + 1 :] = max(0, age_ns - sum(stage_ns) - bus_ns), max(0, age_ns)
        self._count += 1
        self.frames += 1

    def read(self, paced: bool) -> Reading:
        """The figures since the last reading. paced: frame ages mean something (not so for a file at full speed)."""
        kept = self._rows[: min(self._count, _MOST)] * _MS
        self.fps = self._count / max(self.seconds, 1e-9)
        self._since, self._count = time.monotonic(), 0
        if not len(kept):
            return Reading(0.0, None, {})
        middle, high = np.percentile(kept, [50, 95], axis=0).tolist()
        names = (*STAGES, "bus", "queue") if paced else (*STAGES, "bus")
        stages = {name: (middle[i], high[i]) for i, name in enumerate(names)}
        return Reading(self.fps, (middle[-1], high[-1]) if paced else None, stages)
