"""Cameras mounted on their side or upside down: pictures are turned before people are looked for, poses turned back.

What comes out is in the picture and the camera's space as they came, so drawing, boxes, lens and depth need not know.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from realtime.calibration import Calibration
from realtime.errors import UsageError
from realtime.floor import TURNS, Upright
from realtime.lens import Lens
from realtime.pipeline import Around, FindsPoses
from realtime.schema import Frame, Pose


def turn_of(degrees: int) -> np.ndarray:
    """(3, 3) float32: what turning the picture clockwise makes of column vectors of the camera's space, Kinect axes."""
    angle = np.radians(degrees)
    cos, sin = np.round(np.cos(angle)), np.round(np.sin(angle))
    return np.array(((cos, -sin, 0), (sin, cos, 0), (0, 0, 1)), np.float32)


def places_back(places: np.ndarray, degrees: int) -> np.ndarray:
    """Places (..., 2), in units of the turned picture's width and height, in those of the picture as it came."""
    u, v = places[..., 0], places[..., 1]
    back = {0: (u, v), 90: (v, 1 - u), 180: (1 - u, 1 - v), 270: (1 - v, u)}[degrees]
    return np.stack(back, axis=-1)


def box_back(box: tuple[float, float, float, float], degrees: int) -> tuple[float, float, float, float]:
    """A box x, y, width, height of the turned picture, in the picture as it came; both in the pictures' units."""
    x, y, width, height = box
    corners = places_back(np.array(((x, y), (x + width, y + height))), degrees)
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return left, top, right - left, bottom - top


class Turned(Around):
    """A pose stage that is shown each picture turned clockwise by `degrees`; its poses are turned back.

    The lens of the stage inside is that of the turned picture. Frames without a picture go in as they are. Raises
    UsageError for other turns than 0, 90, 180 and 270.
    """

    def __init__(self, inner: FindsPoses, degrees: int) -> None:
        from realtime.image import TurnPicture  # here, so that skeleton sources do without cv2

        if degrees not in TURNS:
            raise UsageError(f"orientation must be 0, 90, 180 or 270 degrees, got {degrees}")
        super().__init__(inner)
        self._degrees = degrees
        self._picture = TurnPicture(degrees)
        self._turn = turn_of(degrees)  # its transpose turns back; rows times it, the same

    def find(self, frame: Frame) -> tuple[Pose, ...]:
        """The poses in this BGR frame, in its own picture and the camera's own space."""
        image = frame.image
        if isinstance(image, np.ndarray) and image.ndim == 3 and image.size:  # what is none, the stage inside refuses
            frame = replace(frame, image=self._picture(image))
        return tuple(self._back(pose) for pose in self._inner.find(frame))

    def _back(self, pose: Pose) -> Pose:
        places, box = pose.image_joints, pose.box
        return replace(
            pose,
            joints=pose.joints @ self._turn,
            image_joints=None if places is None else places_back(places, self._degrees),
            box=None if box is None else box_back(box, self._degrees),
        )


def turned_pictures(pose: FindsPoses, site: Calibration) -> FindsPoses:
    """The pose stage for pictures of a camera that hangs as `site` says; it was opened with `turned_lens`."""
    turn = site.floor.orientation if site.floor is not None else 0
    return Turned(pose, turn) if turn else pose


def turned_lens(site: Calibration) -> Lens | None:
    """The lens of the pictures that the pose stage is shown."""
    turn = site.floor.orientation if site.floor is not None else 0
    return site.lens.turned(turn) if site.lens is not None and turn else site.lens


def upright(pose: FindsPoses, site: Calibration) -> FindsPoses:
    """The pose stage, its poses brought upright where the floor is known."""
    return Upright(pose, site.floor) if site.floor is not None else pose
