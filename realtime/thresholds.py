"""When actions start and end at this site, as calib.thresholds measured it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from realtime.fields import Fields


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Temperature, on and off of each action, and what is rejected, for one bundle."""

    KEYS: ClassVar[tuple[str, ...]] = ("schema", "bundle", "model_sha256", "temperature", "actions", "measured")

    @classmethod
    def of(cls, fields: Fields) -> Thresholds:
        """From a file's fields; refuses what does not fit a bundle."""
        raise NotImplementedError
