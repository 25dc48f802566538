"""Where a depth camera stands to its colour camera, as calib.depth measured it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from realtime.fields import Fields


@dataclass(frozen=True, slots=True)
class Rig:
    """Both lenses, and the motion from the depth camera's space to the colour camera's."""

    KEYS: ClassVar[tuple[str, ...]] = ("schema", "color", "depth", "rotation", "translation_m", "measured")

    @classmethod
    def of(cls, fields: Fields) -> Rig:
        """From a file's fields; refuses what no pair of cameras has."""
        raise NotImplementedError
