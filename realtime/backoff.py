"""How long to wait before a lost thing is tried again: longer each time, and never the same for two machines."""

from __future__ import annotations

import random
from collections.abc import Callable

LOW_S = 0.2
HIGH_S = 30.0
HEALTHY_S = 60.0


class Backoff:
    """Exponential back-off with full jitter: attempt n waits between 0 and min(high, low * 2^n) seconds.

    Many lines that lost the same switch so come back spread over time. Only `healthy_s` of health begin the row anew:
    what comes back for a moment and is lost again is tried ever more slowly, up to `high_s`.
    """

    def __init__(
        self,
        low_s: float = LOW_S,
        high_s: float = HIGH_S,
        healthy_s: float = HEALTHY_S,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """chance: gives a number in [0, 1)."""
        self._low_s, self._high_s, self._healthy_s, self._chance = low_s, high_s, healthy_s, chance
        self._row = 0  # waits since it was last healthy for long

    def wait_s(self) -> float:
        """Seconds to wait before the next attempt."""
        # The exponent is bounded: 2.0 ** 1100 overflows, and a camera may be away for a year.
        most_s = min(self._high_s, self._low_s * 2.0 ** min(self._row, 64))
        self._row += 1
        return most_s * self._chance()

    def was_healthy(self, seconds: float) -> None:
        """Says for how long it worked before it was lost."""
        if seconds >= self._healthy_s:
            self._row = 0
