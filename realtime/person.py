"""One person's landmarks made a pose: joints of Kinect v2 in metres, steady, and where the person stands."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np

from realtime.body import HIPS, Landmarks
from realtime.lens import Lens
from realtime.schema import Frame, Pose
from realtime.skeleton import BLAZEPOSE_33, KINECT_V2_25, convert, mapping
from realtime.smooth import OneEuro

UNSEEN = 0.1  # below this visibility the place of a joint is a guess
STANDING_M = 1.7  # MediaPipe's world landmarks are those of a body of about this height, whoever is seen
KINECT_AXES = np.array([-1, -1, 1], np.float32)  # from x right, y down, z away: a rotation, left stays left
FIELD_OF_VIEW = np.radians(60.0)  # of the whole width, assumed: webcams have 55 to 80 degrees
NEAREST_M, FARTHEST_M = 0.2, 50.0  # where a body can be
PLACE_MIN_CUTOFF, PLACE_BETA = 0.5, 1.0  # Hz, Hz per m/s; distance is noisy, so quieter than the joints' filter


def is_picture(image: np.ndarray | None) -> TypeGuard[np.ndarray]:
    """Whether this is an (H, W, 3) uint8 picture with something in it; an empty one breaks MediaPipe for good."""
    return (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and image.size > 0
    )


def box_around(places: np.ndarray) -> tuple[float, float, float, float]:
    """x, y, width, height around places (n, 2), cut to the picture."""
    low, high = np.clip(places.min(axis=0), 0, 1), np.clip(places.max(axis=0), 0, 1)
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])


def standing(found: Landmarks, width: int, height: int) -> tuple[np.ndarray, float]:
    """The middle of the hips (2,) and the height of the standing body, in pixels of a picture of this size."""
    pixels = found.image * np.array((width, height), np.float32)
    # The picture's spread over the body's own spread is the scale, whatever the posture.
    scale = float(np.ptp(pixels, axis=0).sum() / max(np.ptp(found.world[:, :2], axis=0).sum(), 1e-3))
    return (pixels[HIPS[0]] + pixels[HIPS[1]]) / 2, STANDING_M * scale


def scale_of(found: Landmarks, width: int, height: int) -> float:
    """Pixels in a metre at the body: the scale that lays its joints on the picture best, each as far as it is seen."""
    weights = found.visibility / max(float(found.visibility.sum()), 1e-6)
    flat = found.world[:, :2] * KINECT_AXES[:2]  # x right, y down again
    flat = flat - weights @ flat
    pixels = found.image * np.array((width, height), np.float32)
    pixels = pixels - weights @ pixels
    spread = float(weights @ (flat * flat).sum(axis=1))
    return max(float(weights @ (flat * pixels).sum(axis=1)) / max(spread, 1e-6), 1e-3)


def place_of(hips: np.ndarray, scale: float, width: int, height: int) -> np.ndarray:
    """Where a body is in camera space, (3,) float32 metres, by weak perspective.

    hips: (2,) pixels; scale: pixels in a metre at the body. The distance rests on FIELD_OF_VIEW and on a body of
    generic height: it is wrong in proportion for other lenses and for children, but alike for all people in view.
    """
    focal = width / 2 / np.tan(FIELD_OF_VIEW / 2)  # pixels
    x, y = (hips - (width / 2, height / 2)) / scale
    return np.array((x, y, focal / scale), np.float32) * KINECT_AXES


def place_seen(found: Landmarks, lens: Lens, width: int, height: int) -> np.ndarray:
    """Where a body is in camera space, (3,) float32 metres, from its undistorted landmarks and the size of its limbs.

    The move t that lays the joints X, Y, Z (right, down, away) on their rays a, b best, each as far as it is seen: the
    linear least squares of a (Z + tz) = X + tx and b (Z + tz) = Y + ty. The lens leaves one thing unknown: how tall the
    body is. Landmarks are those of a body of STANDING_M, so somebody of 1.2 m is put 1.4 times too far away.
    """
    rays = lens.rays(found.image * np.array((width, height), np.float32) - 0.5, width, height).astype(np.float64)
    joints = found.world.astype(np.float64) * KINECT_AXES  # x right, y down again
    weights = found.visibility.astype(np.float64) / max(float(found.visibility.sum()), 1e-6)
    known = rays * joints[:, 2:] - joints[:, :2]  # (n, 2)
    middle, mean = weights @ rays, weights @ known
    spread = float(weights @ ((rays - middle) ** 2).sum(axis=1))
    away = -float(weights @ ((rays - middle) * (known - mean)).sum(axis=1)) / max(spread, 1e-12)
    if not NEAREST_M <= away <= FARTHEST_M:  # too few landmarks are seen to tell: their scale is all there is
        pixels = scale_of(found, width, height) * lens.width / width
        away = float(np.clip(lens.fx / pixels, NEAREST_M, FARTHEST_M))
    return np.array((*(mean + middle * away), away), np.float32) * KINECT_AXES


class Person:
    """One track's filters, and what is known of the lens.

    Joints about the hips and the place of the hips are smoothed apart and then added, so that a trembling distance does
    not reach the posture.
    """

    def __init__(self, track: int, lens: Lens | None = None) -> None:
        self.track = track
        self._lens = lens
        self._joints = OneEuro()
        self._place = OneEuro(PLACE_MIN_CUTOFF, PLACE_BETA)

    def steady(self, joints: np.ndarray, place: np.ndarray, captured_ns: int) -> np.ndarray:
        """Joints (V, 3) about the hips and their place (3,), smoothed and added: (V, 3) metres in camera space."""
        return self._joints(joints, captured_ns) + self._place(place, captured_ns)

    def pose(self, frame: Frame, found: Landmarks, width: int, height: int) -> Pose:
        """The pose of this frame in KINECT_V2_25; width and height: of the picture that the landmarks are of.

        Joints are metres in camera space. confidence is the visibility, 0 below 0.1. image_joints and box are not
        smoothed.
        """
        seen = found.visibility >= UNSEEN
        if self._lens is None:
            hips = standing(found, width, height)[0]
            place = place_of(hips, scale_of(found, width, height), width, height)
        else:
            place = place_seen(found, self._lens, width, height)
        world = self.steady(found.world, place, frame.captured_ns)
        joints, confidence = convert(world, found.visibility * seen, BLAZEPOSE_33, KINECT_V2_25)
        places = mapping(BLAZEPOSE_33, KINECT_V2_25) @ found.image  # (25, 2)
        box = box_around(found.image[seen] if seen.any() else found.image)
        return Pose(frame.index, frame.captured_ns, self.track, KINECT_V2_25, joints, confidence, places, box)
