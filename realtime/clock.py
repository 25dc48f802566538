"""Wall-clock time as it is reported, worked out from monotonic capture time, and the breaks of both clocks.

One pair of readings is taken at the start and kept, so a wall clock that is set while the line runs changes neither a
decision nor the order of times. Only what is reported follows it: `Clock.checked`, asked once a second, takes a new
pair where the two have drifted apart by more than a second, and says so. The monotonic clock stands still while the
machine sleeps: frames from before and after would look like neighbours, so `Sleep` tells how long it slept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

MILLISECOND_NS = 1_000_000
DRIFT_NS = 1_000_000_000  # reported time that is off by more than this is put right
SLEPT_NS = 1_000_000_000  # less is the jitter of reading two clocks


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

    def checked(self, now: Clock | None = None) -> tuple[Clock, str | None]:
        """This clock and None, or one that agrees with the wall clock again and a sentence that says why.

        now: a fresh reading of both clocks; it is taken here where none is given. The zero of `seconds` stays.
        """
        now = now or Clock.now()
        drift_ns = now.utc_ns - (self.utc_ns + now.mono_ns - self.mono_ns)
        if abs(drift_ns) <= DRIFT_NS:
            return self, None
        way = "forward" if drift_ns > 0 else "back"
        said = f"the wall clock went {way} by {abs(drift_ns) / 1e9:.1f} s; reported UTC follows it, decisions do not"
        return Clock(self.mono_ns, self.utc_ns + drift_ns), said

    def utc(self, mono_ns: int) -> str:
        """RFC 3339 in UTC with milliseconds, rounded down: 2026-10-01T12:00:03.120Z."""
        milliseconds = (self.utc_ns + mono_ns - self.mono_ns) // MILLISECOND_NS
        day = datetime.fromtimestamp(milliseconds // 1000, tz=timezone.utc)
        return f"{day:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"

    def seconds(self, mono_ns: int) -> float:
        """Seconds since this clock's zero; media time where that is a file's first frame."""
        return (mono_ns - self.mono_ns) / 1e9


def awake_behind_ns() -> int:
    """How far the clock that stands still in sleep lies behind the one that does not; 0 where there is only one."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return 0 if boot is None else time.clock_gettime_ns(boot) - time.monotonic_ns()


class Sleep:
    """Notices that the machine was suspended and resumed."""

    def __init__(self, behind_ns: Callable[[], int] = awake_behind_ns) -> None:
        self._behind_ns, self._last_ns = behind_ns, behind_ns()

    def slept_s(self) -> float:
        """Seconds that the machine slept since this was last asked; 0.0 where it did not."""
        behind_ns = self._behind_ns()
        slept_ns, self._last_ns = behind_ns - self._last_ns, behind_ns
        return slept_ns / 1e9 if slept_ns > SLEPT_NS else 0.0
