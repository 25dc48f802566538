"""A picture to judge a depth camera's calibration by: depth laid on the colours, its edges drawn. NumPy only."""

from __future__ import annotations

import numpy as np

from realtime.registration import Registration
from realtime.rig import Rig

STEP_MM, STEP_SHARE = 60, 0.03  # from one pixel to the next: the edge of a thing
YELLOW = np.array((0, 220, 255), np.float32)  # BGR
FAR_MM = 5000
# Near to far, as a thermometer: red, yellow, green, blue (BGR).
_SCALE = np.array(((40, 40, 220), (40, 200, 230), (80, 190, 60), (190, 110, 40), (120, 40, 60)), np.float32)


def which_lies_where(rig: Rig, image: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth (h, w) uint16 mm on a colour picture (H, W, 3) uint8 BGR: the drawn picture, and the depth laid (H, W)."""
    height, width = image.shape[:2]
    laid = Registration(rig, (width, height), (depth.shape[1], depth.shape[0]))(depth)
    shown = image.astype(np.float32)
    seen = laid > 0
    shown[seen] = 0.6 * shown[seen] + 0.4 * tinted(laid[seen])
    shown[edges(laid)] = YELLOW
    return np.clip(shown, 0, 255).astype(np.uint8), laid


def tinted(depth: np.ndarray) -> np.ndarray:
    """Colours (n, 3) BGR of depths (n,) in millimetres."""
    place = np.clip(depth.astype(np.float32) / FAR_MM, 0, 1) * (len(_SCALE) - 1)
    low = np.minimum(place.astype(int), len(_SCALE) - 2)
    share = (place - low)[:, None]
    return (1 - share) * _SCALE[low] + share * _SCALE[low + 1]


def edges(depth: np.ndarray) -> np.ndarray:
    """Which pixels (H, W) are nearer than a neighbour by a step, the near side of each edge."""
    z = depth.astype(np.int32)
    found = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        for step in (1, -1):
            other = np.roll(z, step, axis)
            found |= (z > 0) & (other > 0) & (other - z > STEP_MM + STEP_SHARE * z)
    found[[0, -1]] = found[:, [0, -1]] = False
    return found


def share_covered(depth: np.ndarray) -> float:
    """Which part of a depth picture was measured."""
    return float((depth > 0).mean())
