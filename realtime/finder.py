"""Bodies in pictures by MediaPipe's two networks: found by one, followed by the other. No ids, no judgement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from realtime.blazepose import (
    CROP_SIZE,
    DETECTOR_SIZE,
    Found,
    Region,
    SteadyRegion,
    crop_matrix,
    decode_detections,
    decode_landmarks,
    in_picture,
    region,
    views,
    whole,
)
from realtime.image import SquareCrop
from realtime.litert import DETECTOR, LANDMARKS, Network, read_network
from realtime.schema import SECOND_NS

LOOK_EVERY_NS = SECOND_NS * 15 // 100  # every fifth frame of 30 a second, while somebody is followed
LOOK_AGAIN_NS = SECOND_NS  # what has been no body for so long is let go of
SPARE = 1  # how many more things than people wanted are followed, while some are not believed
PRESENT = 0.5  # the landmark network's own word that there is a body
SMALLEST_PART = 112.0  # pixels a side; smaller ones, in parts of the picture, were sandals, and no real body
SAME_PLACE = 0.15  # regions whose centres are nearer than this part of a side: no need to look twice
SAME_BODY = 0.04  # landmarks nearer than this part of the region's side, on average: one body followed twice


class BodyDetector:
    """Where bodies are in a picture, by the detector network."""

    def __init__(self, threads: int) -> None:
        self._network = Network(read_network(DETECTOR), threads, "detector")
        self._crop = SquareCrop(DETECTOR_SIZE, -1.0, 1.0, spread=False)

    def __call__(self, rgb: np.ndarray, square: Region) -> list[Region]:
        """The regions of interest in a square of this (H, W, 3) uint8 RGB picture, the surest first."""
        raw, logits = self._network(self._crop(rgb, crop_matrix(square, DETECTOR_SIZE)))
        points = in_picture(decode_detections(raw[0], logits[0, :, 0]).points, square)
        return [one for one in (region(hips, top) for hips, top, *_ in points) if one.side >= 1]

    def close(self) -> None:
        """Frees the network."""
        self._network.close()


class Lookout:
    """When and where to look for up to `persons` bodies that are not followed yet.

    The detector runs in every frame while nobody is followed, and every 0.15 s while fewer than wanted are: on the
    whole picture where one body is wanted, as MediaPipe does, else also on parts of it in turn.
    """

    def __init__(self, persons: int, threads: int) -> None:
        self._persons = persons
        self._detect = BodyDetector(threads)
        self._looked_ns: int | None = None
        self._looks = 0

    def new(
        self, rgb: np.ndarray, captured_ns: int, followed: Sequence[Region], believed: int
    ) -> list[tuple[Region, bool]]:
        """The regions of bodies to follow from now on, each with whether it was found in a part of the picture.

        rgb: (H, W, 3) uint8. followed: the regions that are followed, so many of them `believed` bodies.
        """
        since_ns = LOOK_EVERY_NS if self._looked_ns is None else captured_ns - self._looked_ns
        if followed and (believed >= self._persons or since_ns < LOOK_EVERY_NS):
            return []
        self._looked_ns = captured_ns
        height, width = rgb.shape[:2]
        squares = views(width, height) if self._persons > 1 else (whole(width, height),)
        turn, self._looks = self._looks % len(squares), self._looks + 1
        room = min(self._persons - believed, self._persons + SPARE - len(followed))
        new = [one for one in self._detect(rgb, squares[turn]) if not any(_near(one, other) for other in followed)]
        return [(one, turn > 0) for one in new[:room]]

    def forget(self) -> None:
        """Begins with the whole picture again."""
        self._looked_ns, self._looks = None, 0

    def close(self) -> None:
        """Frees the detector."""
        self._detect.close()


@dataclass(eq=False)
class Followed:
    """Something that the networks take for a body. `believed` and `known` are for the follower's user to say."""

    region: Region  # where to look for it in the next frame
    believed_ns: int  # when it was last believed
    found: Found | None = None
    part: bool = False  # found in a part of the picture, not in the whole
    steady: SteadyRegion = field(default_factory=SteadyRegion)
    believed: bool = True
    known: bool = False  # it has a track id

    def judge(self, believed: bool, captured_ns: int) -> None:
        """Takes in whether this frame's find is believed a body."""
        self.believed = believed
        if believed:
            self.believed_ns = captured_ns


class Follower:
    """Finds and follows up to `persons` bodies, and one thing more while some are not believed to be bodies."""

    def __init__(self, persons: int, threads: int) -> None:
        self._persons = persons
        self._lookout = Lookout(persons, threads)
        self._network = Network(read_network(LANDMARKS), threads, "landmark")
        self._crop = SquareCrop(CROP_SIZE, 0.0, 1.0, spread=True)
        self._bodies: list[Followed] = []

    def find(self, rgb: np.ndarray, captured_ns: int) -> list[Followed]:
        """The bodies in this (H, W, 3) uint8 RGB picture, those followed longest first, each with its `found`."""
        bodies = self._without_surplus(captured_ns)
        regions, believed = [one.region for one in bodies], sum(one.believed for one in bodies)
        new = self._lookout.new(rgb, captured_ns, regions, believed)
        self._bodies = []
        for body in (*bodies, *(Followed(one, captured_ns, part=part) for one, part in new)):
            raw, presence, heat, world = self._network(self._crop(rgb, crop_matrix(body.region, CROP_SIZE)))
            found = decode_landmarks(raw[0], presence[0, 0], heat[0], world[0], body.region)
            if _is_there(found, body.part) and not any(_same(found, body.region.side, one) for one in self._bodies):
                body.found, body.region = found, body.steady(found.circle, captured_ns)
                self._bodies.append(body)
        return self._bodies

    def _without_surplus(self, captured_ns: int) -> list[Followed]:
        """Those to go on with: nothing that has long been no body, and nobody new beyond the people wanted."""
        bodies = [one for one in self._bodies if captured_ns - one.believed_ns < LOOK_AGAIN_NS]
        if sum(one.believed for one in bodies) <= self._persons:
            return bodies
        return sorted(bodies, key=lambda one: (not one.known, not one.believed))[: self._persons]

    def forget(self) -> None:
        """Follows nobody."""
        self._bodies = []
        self._lookout.forget()

    def close(self) -> None:
        """Frees the networks."""
        self._lookout.close()
        self._network.close()


def _is_there(found: Found, part: bool) -> bool:
    numbers = np.isfinite(found.circle).all() and np.isfinite(found.pixels).all()
    return bool(found.presence > PRESENT and numbers and region(*found.circle).side >= (SMALLEST_PART if part else 1.0))


def _near(one: Region, other: Region) -> bool:
    return float(np.hypot(*(one.centre - other.centre))) < SAME_PLACE * min(one.side, other.side)


def _same(found: Found, side: float, other: Followed) -> bool:
    assert other.found is not None
    apart = np.linalg.norm(found.pixels - other.found.pixels, axis=1).mean()
    return float(apart) < SAME_BODY * side
