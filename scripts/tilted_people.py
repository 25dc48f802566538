"""Writes a recording of generated people who walk about before a tilted camera: python -m scripts.tilted_people --help.

To try calib.floor without a camera, and for the pictures of docs/calibration/floor.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console

from realtime.clock import Clock
from realtime.command import run_command
from realtime.generator.crowd import CAMERA_HEIGHT_M, crowd
from realtime.recording import RecordingWriter
from realtime.schema import SECOND_NS, Pose
from realtime.skeleton import KINECT_V2_25
from realtime.wire import pose_message
from scripts.tilt_cost import tilt_matrix

EXAMPLES = """examples:
  python -m scripts.tilted_people walkers.mcap --down 30 --roll 10
  python -m calib.floor --source walkers.mcap --picture side.png
"""
SCENES = ("pass", "turn_back", "around", "three", "overtake", "behind")
FPS = 15.0
NOISE_M = 0.01


@dataclass(frozen=True)
class Config:
    """Write a recording of generated people who walk about before a camera that looks down and is rolled."""

    out: Annotated[Path, tyro.conf.Positional]
    """The MCAP file to write."""
    down: float = 30.0
    """Degrees by which the camera looks down."""
    roll: float = 0.0
    """Degrees by which it is rolled clockwise."""
    height_m: float = 2.0
    """Of the camera above the floor."""
    seed: int = 5
    """The same seed, the same people."""


def walkers(down: float, roll: float, height_m: float, seed: int = 5) -> Iterator[tuple[int, list[Pose]]]:
    """Capture times in ns and the poses of each frame, as such a camera has them; a minute and more of people."""
    rng, turn = np.random.default_rng(seed), tilt_matrix(down, roll)
    lift, index, later_ns, before = np.array((0, CAMERA_HEIGHT_M - height_m, 0)), 0, 0, 0
    sure = np.ones(len(KINECT_V2_25), np.float32)
    for scene in SCENES:
        made = crowd(scene, seed, FPS)
        for frame, now_ns in enumerate(made.times_ns.tolist()):
            poses = []
            for person, joints in enumerate(made.joints[:, frame], before + 1):
                seen = (joints + lift + rng.normal(0, NOISE_M, joints.shape)) @ turn.T
                poses.append(Pose(index, later_ns + now_ns, person, KINECT_V2_25, seen.astype(np.float32), sure))
            yield later_ns + now_ns, poses
            index += 1
        before += len(made.joints)
        later_ns += int(made.times_ns[-1]) + SECOND_NS


def record(path: Path, frames: Iterator[tuple[int, list[Pose]]]) -> None:
    """Writes the frames as a recording."""
    with RecordingWriter(path) as writer:
        for number, (now_ns, poses) in enumerate(frames):
            message = pose_message(
                poses, frame=number, captured_ns=now_ns, layout=KINECT_V2_25, session="generated", seq=number,
                source="walkers", clock=Clock(0, 0),
            )  # fmt: skip
            writer.write(message)


def run(config: Config, console: Console) -> int:
    """Writes it and says so."""
    record(config.out, walkers(config.down, config.roll, config.height_m, config.seed))
    console.print(f"written: {config.out}")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "scripts.tilted_people", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
