"""Which way is up at this site, as calib.floor measured it, and poses brought upright."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from realtime.fields import Fields


@dataclass(frozen=True, slots=True)
class Floor:
    """The floor's plane in the camera's space, and how the camera is turned about its axis."""

    KEYS: ClassVar[tuple[str, ...]] = ("schema", "up", "height_m", "orientation", "measured")

    @classmethod
    def of(cls, fields: Fields) -> Floor:
        """From a file's fields; refuses what no floor has."""
        raise NotImplementedError
