"""What the tests of depth share: two cameras with known truth, people before them, and a pose model's guess."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from calib.record_depth import synthetic_rig
from realtime.depth_recording import DepthWriter
from realtime.generator.perform import perform
from realtime.generator.sight import Faults, body_of, seen_by_depth, seen_in_color, sensed
from realtime.person import KINECT_AXES
from realtime.rig import Rig
from realtime.schema import SECOND_NS, Frame, Pose
from realtime.skeleton import KINECT_V2_25

RIG = synthetic_rig()
COLOR, DEPTH = (RIG.color.width, RIG.color.height), (RIG.depth.width, RIG.depth.height)


def posture(action: str, seed: int, frame: int = 40, yaw_deg: float = 0.0) -> np.ndarray:
    """True joints (25, 3) of a generated person in the middle of an action."""
    return perform([(action, 3.0)], seed=seed, noise=False, yaw_deg=yaw_deg).joints[frame]


def depth_of(joints: np.ndarray, girth: float = 1.0, faults: Faults | None = None, seed: int = 0) -> np.ndarray:
    """What the depth camera of RIG gives of one person: (h, w) uint16 millimetres."""
    return sensed(seen_by_depth(RIG, [body_of(joints, girth)]), np.random.default_rng(seed), faults)


def guess(
    joints: np.ndarray, rng: np.random.Generator, noise_px: float, track: int = 1, captured_ns: int = 0, rig: Rig = RIG
) -> Pose:
    """What a pose model makes of true joints: landmarks off by noise_px, a body of generic size about the hips.

    Its relative depth is off by 5 cm, its size by up to a tenth.
    """
    pixels = rig.color.pixels(joints.astype(float) * KINECT_AXES) + rng.normal(size=(25, 2)) * noise_px
    model = (joints - joints[0]) * rng.uniform(0.9, 1.1) + rng.normal(size=(25, 3)) * (0.01, 0.01, 0.05)
    places = (pixels + 0.5) / (rig.color.width, rig.color.height)
    sure = np.full(25, 0.9, np.float32)
    return Pose(0, captured_ns, track, KINECT_V2_25, model.astype(np.float32), sure, places.astype(np.float32))


class Knows:
    """A pose stage that knows the truth of each frame by its time; rendered capsules are no people for a network."""

    refused = gated = crowded = 0

    def __init__(self, poses: dict[int, Pose]) -> None:
        self.poses, self.first_ns = poses, None

    def find(self, frame: Frame) -> tuple[Pose, ...]:
        self.first_ns = frame.captured_ns if self.first_ns is None else self.first_ns
        pose = self.poses.get(round((frame.captured_ns - self.first_ns) / SECOND_NS * 1000))
        return () if pose is None else (Pose(frame.index, frame.captured_ns, *_rest(pose)),)

    def reset(self) -> None:
        pass

    close = reset


def _rest(pose: Pose) -> tuple:
    return pose.track, pose.layout, pose.joints, pose.confidence, pose.image_joints


def write_recording(folder: Path, truth: list[np.ndarray], fps: float, rig: Rig | None = RIG) -> Path:
    """A recording of one person, a frame for each posture."""
    rng = np.random.default_rng(3)
    with DepthWriter(folder, rig, fps) as writer:
        for number, joints in enumerate(truth):
            image, _ = seen_in_color(RIG, [body_of(joints)])
            image[: number + 1, :4] = 255  # so that no two pictures are the same
            depth = sensed(seen_by_depth(RIG, [body_of(joints)]), rng)
            writer.write(round(number / fps * SECOND_NS), image, depth)
    return folder
