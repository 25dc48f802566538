"""The seam of depth cameras: what a device or a recording gives the line, and how a device's library is loaded."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple, Protocol

import numpy as np

from realtime.errors import SourceError
from realtime.feed import Tally
from realtime.lens import Lens
from realtime.rig import Rig


class Sight(NamedTuple):
    """What two cameras saw at one moment.

    captured_ns: monotonic clock at the grab (devices), or any clock that goes on evenly (recordings). image: (H, W, 3)
    uint8 BGR. depth: (h, w) uint16 millimetres along the depth camera's axis, 0 where it saw nothing; None where no
    depth picture belongs to this image.
    """

    captured_ns: int
    image: np.ndarray
    depth: np.ndarray | None


class DepthSource(Protocol):
    """A depth camera or a recording of one.

    named: what messages call it. id: for topics. kind: as in SourceInfo. fps: nominal. rig: what it states about its
    two cameras, None where it states nothing.
    """

    named: str
    id: str
    kind: str
    live: bool
    fps: float | None
    rig: Rig | None
    tally: Tally

    def read(self) -> Sight | None:
        """The next sight; None at the end of a recording. SourceError where nothing comes for 3 s, or it is lost."""

    def close(self) -> None:
        """Frees the device or file; a second call does nothing."""


def loaded(load: Callable[[], ModuleType], device: str, install: str) -> ModuleType:
    """A device's library; SourceError with the command that installs it where it is not there or does not load."""
    try:
        return load()
    except ModuleNotFoundError:
        raise SourceError(f"depth:{device} needs a library that is not installed; run {install}") from None
    except (ImportError, OSError) as error:
        raise SourceError(f"depth:{device}: its library does not load ({error}); run {install} again") from error


def pinhole(size: tuple[int, int], focal: tuple[float, float], middle: tuple[float, float], bent: list[float]) -> Lens:
    """A lens as a maker states it: pixels, and OpenCV's k1 k2 p1 p2 k3 [k4 k5 k6]; without an error of its own."""
    numbers = tuple(float(one) for one in bent)
    count = 8 if any(numbers[5:8]) else 5
    fx, fy, cx, cy = (float(one) for one in (*focal, *middle))
    return Lens(*size, fx, fy, cx, cy, numbers[:count], "pinhole", 0.0)
