"""A camera's lens as calib.camera measured it: from pixels to rays, and where a body stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from realtime.fields import Fields


@dataclass(frozen=True, slots=True)
class Lens:
    """Intrinsics in pixels of a width x height picture, and OpenCV's distortion coefficients."""

    KEYS: ClassVar[tuple[str, ...]] = (
        *("schema", "width", "height", "fx", "fy", "cx", "cy", "distortion", "model", "rms_px", "measured"),
    )

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...]  # k1 k2 p1 p2 k3 (pinhole), k1 k2 k3 k4 (fisheye)
    model: str  # pinhole or fisheye
    rms_px: float

    @classmethod
    def of(cls, fields: Fields) -> Lens:
        """From a file's fields; refuses what no lens has."""
        raise NotImplementedError
