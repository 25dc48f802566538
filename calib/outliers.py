"""A fit without what contradicts the rest of what it stands on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

WORSE = 3.0  # times the middle one
MOST = 5  # one of so many is left out at most


class Judged(Protocol):
    """A fit that tells the error of each thing it stands on."""

    @property
    def errors(self) -> np.ndarray:
        """(n,) pixels."""


Item = TypeVar("Item")
Found = TypeVar("Found", bound=Judged)


def without_outliers(
    items: Sequence[Item], fit: Callable[[list[Item]], Found], least: int, worst_px: float
) -> tuple[Found, list[Item], list[tuple[Item, float]]]:
    """The fit, the items it stands on, and those left out, the worst first, each with its error.

    An item is left out while its error is over worst_px and WORSE times the middle one; at least `least` are kept.
    """
    kept, out = list(items), []
    found = fit(kept)
    for _ in range(min(len(items) // MOST, len(items) - least)):
        worst = int(np.argmax(found.errors))
        error = float(found.errors[worst])
        if error < max(worst_px, WORSE * float(np.median(found.errors))):
            break
        out.append((kept.pop(worst), error))
        found = fit(kept)
    return found, kept, out
