"""What the tests of depth share: two cameras with known truth, people before them, and a pose model's guess."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from realtime.depth_recording import DepthWriter
from realtime.generator.sight import body_of, seen_by_depth, seen_in_color, sensed
from realtime.rig import Rig
from realtime.schema import SECOND_NS, Frame, Pose
from scripts.bench_depth import COLOR, DEPTH, RIG, depth_of, guess, posture

__all__ = ["COLOR", "DEPTH", "RIG", "Knows", "depth_of", "guess", "posture", "write_recording"]


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
