"""How near joints lifted by depth come to the truth, and what that costs: `python -m scripts.bench_depth`.

Generated people of capsules before a generated pair of cameras (realtime/generator/sight.py); a pose model's guess of
them; and depth laid on colour against what the colour camera truly sees. Figures of docs/calibration/depth.md.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from calib.record_depth import synthetic_rig
from realtime.command import run_command
from realtime.errors import UsageError
from realtime.generator.perform import perform
from realtime.generator.sight import Faults, body_of, seen_by_depth, seen_in_color, sensed
from realtime.lifted import Lifted
from realtime.person import KINECT_AXES
from realtime.pose import PassThrough
from realtime.registration import Registration
from realtime.rig import Rig
from realtime.schema import Frame, Pose
from realtime.skeleton import KINECT_V2_25

EXAMPLES = """examples:
  python -m scripts.bench_depth
  python -m scripts.bench_depth --people 48 --landmarks-off-px 0.5 1 2 4
"""
RIG = synthetic_rig()
COLOR, DEPTH = (RIG.color.width, RIG.color.height), (RIG.depth.width, RIG.depth.height)
ACTIONS = ("wave", "walk:treadmill", "throw", "squat", "kick", "clap")
STEP_MM = 20  # depths that differ by less are of one place


@dataclass(frozen=True)
class Config:
    """Measure lifting and registration on generated people."""

    people: int = 24
    """How many, each in one posture."""
    landmarks_off_px: tuple[float, ...] = (1.0, 2.0)
    """Standard deviations of the landmarks, in pixels of a picture 640 wide."""


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


def scenes_of(people: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """True joints and depth pictures: limbs up to a fifth thinner or thicker, turned up to 40 degrees."""
    rng = np.random.default_rng(5)
    made = []
    for seed in range(people):
        action = ACTIONS[seed % len(ACTIONS)]
        joints = posture(action, seed, int(rng.integers(20, 60)), float(rng.uniform(-40, 40)))
        made.append((joints, depth_of(joints, rng.uniform(0.8, 1.2), seed=seed)))
    return made


def within_a_pixel(laid: np.ndarray, truth: np.ndarray) -> float:
    """Share of the measured pixels (H, W) mm whose depth the truth (H, W) metres has there or one pixel away."""
    off = np.full(laid.shape, np.inf)
    for row in (-1, 0, 1):
        for column in (-1, 0, 1):
            off = np.minimum(off, np.abs(laid - 1000 * np.roll(truth, (row, column), (0, 1))))
    seen = laid > 0
    return float((off[seen] < STEP_MM).mean())


def lift(scenes: list[tuple[np.ndarray, np.ndarray]], noise_px: float) -> tuple[np.ndarray, float]:
    """Errors (people, 25) in metres, and the milliseconds (median) that the stage takes for a person."""
    rng, errors, spent = np.random.default_rng(1), [], []
    image = np.zeros((COLOR[1], COLOR[0], 3), np.uint8)
    for joints, depth in scenes:
        stage = Lifted(PassThrough(), RIG)  # frames that bring picture, depth and poses
        frame = Frame(0, 0, image, (guess(joints, rng, noise_px),), depth)
        errors.append(np.linalg.norm(stage.find(frame)[0].joints - joints, axis=1))
        begun = time.perf_counter()
        stage.find(Frame(1, 10_000_000, image, frame.poses, depth))  # its tables are made by now
        spent.append(time.perf_counter() - begun)
    return np.array(errors), 1000 * float(np.median(spent))


def run(config: Config, console: Console) -> int:
    """Measures and prints."""
    if config.people < 1 or not all(0 <= px < 100 for px in config.landmarks_off_px):
        raise UsageError("--people must be at least 1 and --landmarks-off-px in [0, 100)")
    scenes = scenes_of(config.people)
    table = Table("landmarks off by, px of 640", "median, cm", "90 % within, cm", "ms a person")
    for px in config.landmarks_off_px:
        errors, spent_ms = lift(scenes, px)
        half, most = 100 * np.percentile(errors, (50, 90))
        table.add_row(f"{px:g}", f"{half:.2f}", f"{most:.2f}", f"{spent_ms:.1f}")
    console.print(table)
    person = [body_of(posture("wave:right", 1))]
    depth = np.rint(seen_by_depth(RIG, person) * 1000).astype(np.uint16)
    share = within_a_pixel(Registration(RIG, COLOR, DEPTH)(depth), seen_in_color(RIG, person)[1])
    console.print(f"registration: {share:.2%} of the pixels within one pixel of the truth")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "scripts.bench_depth", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
