"""Which way is up at this site, as calib.floor measured it, and poses brought upright.

A model trained on level cameras takes a person whom a camera sees from a shelf for one who leans. What it sees is
root-relative and turned to face the sensor (features.py), so turning poses is what counts; they are also lifted, where
the height is known, so that y = 0 is the floor in what is recorded and published.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from realtime.fields import Fields
from realtime.pipeline import Around, FindsPoses
from realtime.schema import Frame, Pose

TURNS = (0, 90, 180, 270)
LOWEST_M, HIGHEST_M = -2.0, 20.0  # a camera above the floor; poses that are upright already have it at 0
_UNIT = 0.01  # by so much the length of `up` may differ from 1: people round
_STEEP = 0.17  # of the view's unit vector, what must be level (10 degrees off the vertical) to say where forward is
_FLAT = 0.35  # of `up`, what must lie in the picture to say how the picture is turned


@dataclass(frozen=True, slots=True)
class Floor:
    """The floor in the camera's space, and how its pictures are turned before people are looked for.

    up: unit vector against gravity, in Kinect axes of the camera as it hangs (a picture's own left, top and depth).
    height_m: of the camera above the floor; None where it is not known. orientation: degrees clockwise (0, 90, 180 or
    270) by which a picture is turned to stand upright.
    """

    KEYS: ClassVar[tuple[str, ...]] = ("schema", "up", "height_m", "orientation", "measured")

    up: tuple[float, float, float] = (0.0, 1.0, 0.0)
    height_m: float | None = None
    orientation: int = 0

    @classmethod
    def of(cls, fields: Fields) -> Floor:
        """From a file's fields; refuses what no floor has."""
        up, height = fields.values["up"], fields.values["height_m"]
        good = isinstance(up, list) and len(up) == 3 and all(_number(one) for one in up)
        length = float(np.linalg.norm(up)) if good else 0.0
        fields.need(abs(length - 1) <= _UNIT, "up", "a list of 3 numbers, a vector of length 1")
        if height is not None:
            height = fields.number("height_m", LOWEST_M, HIGHEST_M)
        turn = fields.values["orientation"]
        fields.need(type(turn) is int and turn in TURNS, "orientation", "0, 90, 180 or 270")
        fields.need(isinstance(fields.values["measured"], dict), "measured", "an object")
        x, y, z = (float(one) / length for one in up)
        return cls((x, y, z), height, int(turn))

    @property
    def turn(self) -> np.ndarray:
        """(3, 3) float64 rotation from the camera's space to the upright one (see `upright_turn`)."""
        return upright_turn(np.array(self.up))

    @property
    def pitch(self) -> float:
        """Degrees by which the camera looks down; negative: up."""
        return float(np.degrees(np.arcsin(np.clip(-self.up[2], -1, 1))))

    @property
    def roll(self) -> float:
        """Degrees clockwise, seen from behind the camera, by which it is turned about its axis; in (-180, 180]."""
        return float(np.degrees(np.arctan2(self.up[0], self.up[1])))


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 2


def upright_turn(up: np.ndarray) -> np.ndarray:
    """(3, 3) rotation R of column vectors with R @ up = +y, and the camera's view in the plane of y and z, z > 0.

    So heading stays the camera's: what is straight ahead of a pitched camera is straight ahead. Of a camera that looks
    straight down or up, ahead is where the picture's top points (down) or its bottom (up). up: (3,) of any length.
    """
    up = np.asarray(up, np.float64) / np.linalg.norm(up)
    view = np.array((0.0, 0.0, 1.0))
    ahead = view - (view @ up) * up
    if np.linalg.norm(ahead) < _STEEP:
        top = np.array((0.0, -np.sign(up[2]), 0.0))
        ahead = top - (top @ up) * up
    ahead /= np.linalg.norm(ahead)
    return np.stack((np.cross(up, ahead), up, ahead))


def orientation_of(up: np.ndarray) -> int:
    """How many degrees clockwise (one of TURNS) a picture must be turned for `up` (3,) to point to its top at best.

    0 where the camera looks so steeply that its picture has no top.
    """
    if np.hypot(up[0], up[1]) < _FLAT * np.linalg.norm(up):
        return 0
    return TURNS[round(float(np.degrees(np.arctan2(up[0], up[1]))) / 90) % 4]


class Upright(Around):
    """A pose stage whose poses stand upright: +y is up, +z away as the camera looks, y = 0 the floor where known.

    Tracks, confidence, image_joints and box are untouched.
    """

    def __init__(self, inner: FindsPoses, floor: Floor) -> None:
        super().__init__(inner)
        self._turn = floor.turn.T.astype(np.float32)  # for row vectors
        self._lift = np.array((0.0, floor.height_m or 0.0, 0.0), np.float32)

    def find(self, frame: Frame) -> tuple[Pose, ...]:
        """The frame's poses, upright."""
        return tuple(self._upright(pose) for pose in self._inner.find(frame))

    def _upright(self, pose: Pose) -> Pose:
        return replace(pose, joints=pose.joints @ self._turn + self._lift)
