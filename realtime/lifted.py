"""A pose stage whose joints lie where the depth camera sees the body: any pose stage, with depth behind it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from realtime.errors import UsageError
from realtime.feed import SourceInfo
from realtime.lifting import Lifting, Placed, metre_px
from realtime.pipeline import Around, FindsPoses
from realtime.registration import Registration, without_flying
from realtime.rig import Rig
from realtime.schema import SECOND_NS, Frame, Pose
from realtime.skeleton import Layout
from realtime.smooth import OneEuro

LONGEST = 640  # pixels a side of the registered picture: a disc around a wrist is then some 10 pixels wide at 2 m
HELD_NS = SECOND_NS // 2  # a body without depth keeps its distance for so long
FORGOTTEN_NS = SECOND_NS  # a track that is not seen for so long begins anew
AROUND_M = 0.3  # of the landmarks: what belongs to the body, or hides it
# Quicker than the filter of a model's joints, which tremble more than measured ones; measured on a walking body.
MIN_CUTOFF, BETA = 1.0, 10.0  # Hz, Hz per m/s


def with_depth(pose: FindsPoses, info: SourceInfo, rig: Rig | None) -> tuple[FindsPoses, str]:
    """The pose stage that a source's depth asks for, and a line about it for people; without depth the stage itself.

    rig: what was measured at the site; it comes before what the source states. UsageError where nothing is known of
    how the cameras stand to each other, SourceError where they are not the measured ones.
    """
    if info.depth_size is None:
        return pose, "depth: --calib has a depth camera, but this source has none" if rig is not None else ""
    known = rig or info.rig
    if known is None:
        raise UsageError(
            f"{info.id} has depth, but nothing says how its two cameras stand to each other: measure it with "
            "python -m calib.depth, and name its file with --calib"
        )
    color = (info.width, info.height) if info.width and info.height else None
    known.fits(color, info.depth_size, f"source {info.id}")
    whose = "as measured (--calib)" if rig is not None else "as the source states"
    return Lifted(pose, known), f"depth: joints in metres from {info.depth_size[0]}x{info.depth_size[1]}, {whose}"


@dataclass
class _Body:
    """What is kept of one track."""

    smooth: OneEuro = field(default_factory=lambda: OneEuro(MIN_CUTOFF, BETA))
    seen_ns: int | None = None
    measured_ns: int | None = None
    body_m: float = 0.0


class Lifted(Around):
    """Poses of another stage, their joints placed in the colour camera's space by depth, with true translation.

    Where a frame has no depth, or none at a body, its last distance holds for half a second; then the pose comes as the
    stage gave it. confidence: the stage's, times 0.7 to 1 for measured joints (by how much of the disc agreed) and 0.6
    for those placed by the model's relative depth. image_joints and box stay.
    """

    def __init__(self, pose: FindsPoses, rig: Rig) -> None:
        super().__init__(pose)
        self._rig = rig
        self._bodies: dict[int, _Body] = {}
        self._lifting: dict[Layout, Lifting] = {}
        self._sizes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self._registration: Registration | None = None

    def find(self, frame: Frame) -> tuple[Pose, ...]:
        """The poses in this frame. Raises SourceError where its pictures are not of the rig's shapes."""
        poses = self._inner.find(frame)
        if frame.image is None or not poses:
            return poses
        now_ns = frame.captured_ns
        self._bodies = {  # who never had depth has nothing to be kept
            k: body
            for k, body in self._bodies.items()
            if body.seen_ns is not None and now_ns - body.seen_ns <= FORGOTTEN_NS
        }
        return tuple(self._lifted(frame, pose) for pose in poses)

    def reset(self) -> None:
        """Forgets whom it followed."""
        super().reset()
        self._bodies = {}

    def _lifted(self, frame: Frame, pose: Pose) -> Pose:
        if pose.image_joints is None or frame.image is None or not np.isfinite(pose.image_joints).all():
            return pose
        body = self._bodies.setdefault(pose.track, _Body())
        height, width = frame.image.shape[:2]
        rays = self._rig.color.rays(pose.image_joints * (width, height) - 0.5, width, height)
        lifting = self._lifting.setdefault(pose.layout, Lifting(pose.layout))
        placed = None
        if frame.depth is not None:
            placed = self._measured(lifting, pose, rays, frame.image, frame.depth)
        if placed is not None:
            body.body_m, body.measured_ns = placed.body_m, frame.captured_ns
        elif body.measured_ns is not None and frame.captured_ns - body.measured_ns <= HELD_NS:
            placed = lifting.guessed(pose, rays, body.body_m)
        else:
            body.measured_ns = None
            return pose
        if body.seen_ns is not None and frame.captured_ns <= body.seen_ns:
            body.smooth.reset()
        body.seen_ns = frame.captured_ns
        joints = body.smooth(placed.joints, frame.captured_ns)
        return replace(pose, joints=joints, confidence=placed.confidence)

    def _measured(
        self, lifting: Lifting, pose: Pose, rays: np.ndarray, image: np.ndarray, depth: np.ndarray
    ) -> Placed | None:
        registration = self._registered(image.shape, depth.shape)
        pixels = registration.straightened(rays)
        focal_px = registration.focal_px
        away_m = float(np.clip(focal_px / metre_px(pose, pixels), 0.3, 15.0))  # roughly
        seen = rays[pose.confidence > 0] if (pose.confidence > 0).any() else rays
        margin = AROUND_M / away_m
        corners = np.array((seen.min(axis=0) - margin, seen.max(axis=0) + margin))
        around = np.array([(x, y) for x in corners[:, 0] for y in corners[:, 1]])
        left, top, right, bottom = registration.box_around(around, 0.5 * away_m, 2 * away_m)
        part = np.zeros_like(depth)
        part[top:bottom, left:right] = without_flying(depth[top:bottom, left:right])
        return lifting(pose, rays, pixels, focal_px, registration(part, (left, top, right, bottom)))

    def _registered(self, image: tuple[int, ...], depth: tuple[int, ...]) -> Registration:
        """The registration of pictures of these sizes; a source may change them while it plays."""
        if self._registration is None or self._sizes != (image[:2], depth):
            color, size = (image[1], image[0]), (depth[1], depth[0])
            self._rig.fits(color, size, "this source")
            scale = min(LONGEST / max(color), 1.0)
            small = (max(round(color[0] * scale), 1), max(round(color[1] * scale), 1))
            self._registration = Registration(self._rig, small, size, straight=True)
            self._sizes = (image[:2], depth)
        return self._registration
