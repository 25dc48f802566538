"""Where people stand before the camera, told from a picture: what pairs need and a pose stage does not say.

A pose from a picture is in metres about the person's own hips. Its joints in the picture say where it must be, if the
camera's angle of view is known: the place is the one at which the joints, seen by a pinhole camera, fall nearest to
where they are in the picture. Bodies are taken for the size that the pose stage gives them (1.7 m), so a child is
placed too far away, by as much as it is smaller.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from realtime.pipeline import FindsPoses
from realtime.schema import Frame, Pose
from realtime.smooth import OneEuro

VIEW_DEG = 65.0  # along the picture's longer side; webcams have 55 to 80
LEAST_JOINTS = 4  # seen inside the picture; fewer say nothing of the distance
NEAREST_M, FURTHEST_M = 0.3, 20.0


def place(pose: Pose, width: int, height: int, view_deg: float = VIEW_DEG) -> np.ndarray | None:
    """What to add to a pose's joints so that they stand where the picture shows them: (3,) metres, Kinect axes.

    width, height: of the picture in pixels. None where too few joints are in the picture, or the place is no place.
    """
    if pose.image_joints is None:
        return None
    inside = (np.abs(pose.image_joints - 0.5) <= 0.5).all(axis=1)  # False for NaN
    seen = inside & (pose.confidence > 0)
    if np.count_nonzero(seen) < LEAST_JOINTS:
        return None
    focal = 0.5 * max(width, height) / math.tan(math.radians(view_deg) / 2)  # pixels
    joints = pose.joints[seen].astype(np.float64)  # (S, 3)
    # A joint falls at pixel p from the middle where p z = -focal x (Kinect's x and y grow to the left and up).
    pixels = (pose.image_joints[seen] - 0.5) * (width, height)
    rows = np.zeros((2, len(joints), 3))
    rows[0, :, 0] = rows[1, :, 1] = focal
    rows[..., 2] = pixels.T
    wanted = -(focal * joints[:, :2] + pixels * joints[:, 2:]).T  # (2, S)
    weight = np.sqrt(pose.confidence[seen].astype(np.float64))
    found = np.linalg.lstsq((rows * weight[:, None]).reshape(-1, 3), (wanted * weight).reshape(-1), rcond=None)[0]
    good = np.isfinite(found).all() and NEAREST_M <= found[2] <= FURTHEST_M
    return found.astype(np.float32) if good else None


class Placed:
    """A pose stage whose people stand where the picture shows them; one filter per track."""

    def __init__(self, inner: FindsPoses, view_deg: float = VIEW_DEG) -> None:
        if not 10 <= view_deg <= 170:
            raise ValueError(f"view_deg must be in [10, 170], got {view_deg}")
        self._inner, self._view_deg = inner, view_deg
        self._known: dict[int, tuple[OneEuro, np.ndarray]] = {}

    @property
    def refused(self) -> int:
        """As the inner stage's."""
        return self._inner.refused

    @property
    def gated(self) -> int:
        """As the inner stage's."""
        return self._inner.gated

    def find(self, frame: Frame) -> tuple[Pose, ...]:
        """The inner stage's poses, each moved to its place; one that has none yet is left out."""
        found = self._inner.find(frame)
        if frame.image is None or not found:
            return found
        height, width = frame.image.shape[:2]
        self._known = {track: self._known[track] for track in (p.track for p in found) if track in self._known}
        return tuple(moved for pose in found if (moved := self._moved(pose, width, height)) is not None)

    def _moved(self, pose: Pose, width: int, height: int) -> Pose | None:
        here = place(pose, width, height, self._view_deg)
        known = self._known.get(pose.track)
        if here is None:
            return None if known is None else replace(pose, joints=pose.joints + known[1])
        smooth = known[0] if known else OneEuro(min_cutoff=0.7, beta=1.0)
        at = smooth(here, pose.captured_ns)
        self._known[pose.track] = smooth, at
        return replace(pose, joints=pose.joints + at)

    def reset(self) -> None:
        """Forgets everybody."""
        self._known.clear()
        self._inner.reset()

    def close(self) -> None:
        """Closes the inner stage."""
        self._inner.close()
