"""Wall-clock time as it is reported, worked out from monotonic capture time.

One pair of readings is taken at the start and kept, so a wall clock that is set or slewed while the line runs
changes neither a decision nor the order of reported times.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone

MILLISECOND_NS = 1_000_000


@dataclass(frozen=True, slots=True)
class Clock:
    """The same instant on both clocks: monotonic ns, and ns since 1970 in UTC."""

    mono_ns: int
    utc_ns: int

    @classmethod
    def now(cls) -> Clock:
        """Reads both clocks, one right after the other."""
        return cls(time.monotonic_ns(), time.time_ns())

    def zeroed(self, mono_ns: int) -> Clock:
        """The same pairing of the two clocks, with the seconds counted from another instant."""
        return Clock(mono_ns, self.utc_ns + mono_ns - self.mono_ns)

    def utc(self, mono_ns: int) -> str:
        """RFC 3339 in UTC with milliseconds, rounded down: 2026-10-01T12:00:03.120Z."""
        milliseconds = (self.utc_ns + mono_ns - self.mono_ns) // MILLISECOND_NS
        day = datetime.fromtimestamp(milliseconds // 1000, tz=timezone.utc)
        return f"{day:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"

    def seconds(self, mono_ns: int) -> float:
        """Seconds since this clock's zero; media time where that is a file's first frame."""
        return (mono_ns - self.mono_ns) / 1e9
