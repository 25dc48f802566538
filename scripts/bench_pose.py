"""Measures the LiteRT pose stage beside MediaPipe's: python -m scripts.bench_pose --help

Both see the same pictures of the same videos in turns, one person wanted:
landmarks  what both networks' runners say before any smoothing of ours, frame by frame: pixels and millimetres apart;
jitter     how far wrists, knees and ankles step from frame to frame in the poses of both stages, after the One-Euro
           filter, while they rest: in the tenth of the frames in which MediaPipe's moves least over half a second;
cost       milliseconds a frame of each stage: elapsed, and of all cores together (which other programs disturb less).
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

from realtime.command import run_command
from realtime.errors import UsageError
from realtime.finder import Follower
from realtime.image import SmallRgb
from realtime.litert_pose import LiteRtPose
from realtime.person import KINECT_AXES
from realtime.pipeline import FindsPoses
from realtime.pose import MediaPipePose
from realtime.schema import SECOND_NS, Frame, Pose
from realtime.skeleton import KINECT_V2_25
from realtime.source import open_source

VIDEOS = Path(__file__).resolve().parent.parent.parent / "shared" / "videos"
NAMES = ("treadmill_walk.mp4", "weightlifting.mp4", "office_fall_from_chair.mp4")
JOINTS = [KINECT_V2_25.index(f"{side}_{joint}") for side in ("left", "right") for joint in ("wrist", "knee", "ankle")]
STEP_NS = 33_333_000  # MediaPipe filters on this clock, whatever the pictures' times
WARM = 5  # frames at the start whose cost does not count
T = TypeVar("T")

EXAMPLES = """examples:
  python -m scripts.bench_pose                       three videos of the research material
  python -m scripts.bench_pose --videos A.mp4 B.mp4  others, each with one person in view
"""


@dataclass(frozen=True)
class Config:
    """Compare the LiteRT pose stage with MediaPipe's: agreement, jitter, cost."""

    videos: tuple[Path, ...] = ()
    """Video files with one person in view. Default: three of ../shared/videos."""
    frames: int = 200
    """Frames of each video, at most."""
    threads: int = 2
    """CPU threads of LiteRT."""


class Clock:
    """Adds up what a stage costs."""

    def __init__(self) -> None:
        self.elapsed_ms: list[float] = []
        self.cpu_ms: list[float] = []

    def __call__(self, work: Callable[[], T]) -> T:
        """What the work gives; its time is kept."""
        cpu, begun = time.process_time(), time.perf_counter()
        done = work()
        self.elapsed_ms.append(1000 * (time.perf_counter() - begun))
        self.cpu_ms.append(1000 * (time.process_time() - cpu))
        return done

    def middle(self) -> str:
        """Medians, elapsed and of all cores."""
        return f"{np.median(self.elapsed_ms[WARM:]):.1f} / {np.median(self.cpu_ms[WARM:]):.1f}"


@dataclass
class Found:
    """What both said of one video."""

    apart_px: list[float]
    apart_mm: list[float]
    joints: tuple[list[np.ndarray], list[np.ndarray]]  # (25, 3) about the hips; MediaPipe's, ours
    cost: tuple[Clock, Clock]


def pictures(video: Path, frames: int) -> Iterator[Frame]:
    """The first frames of a video, on MediaPipe's clock."""
    source = open_source(str(video), fast=True)
    try:
        count = 0
        for frame in source:
            if isinstance(frame, Frame) and count < frames:
                count += 1
                yield Frame(frame.index, count * STEP_NS, frame.image)
            if count == frames:
                return
    finally:
        source.close()


def compare(video: Path, frames: int, threads: int) -> Found:
    """Runs both over one video."""
    theirs, ours, graph = MediaPipePose(), LiteRtPose(1, threads), MediaPipePose()
    stages: tuple[FindsPoses, ...] = (theirs, ours)
    follower, small = Follower(1, threads), SmallRgb()
    found = Found([], [], ([], []), (Clock(), Clock()))
    for frame in pictures(video, frames):
        assert frame.image is not None
        rgb = small(frame.image)
        size = (rgb.shape[1], rgb.shape[0])
        result, bodies = graph._landmarks(rgb), follower.find(rgb, frame.captured_ns)
        for body in bodies:
            body.judge(True, frame.captured_ns)
            if result is not None and body.found is not None:
                mine = body.found.landmarks(*size, KINECT_AXES)
                found.apart_px.append(float(np.linalg.norm((mine.image - result.image) * size, axis=1).mean()))
                found.apart_mm.append(1000 * float(np.linalg.norm(mine.world - result.world, axis=1).mean()))
        poses = [clock(partial(stage.find, frame)) for clock, stage in zip(found.cost, stages, strict=True)]
        if all(poses):
            for kept, (pose, *_) in zip(found.joints, poses, strict=True):
                kept.append(about_hips(pose))
    for one in (theirs, ours, graph, follower):
        one.close()
    return found


def about_hips(pose: Pose) -> np.ndarray:
    """Joints (25, 3) in metres from the hips."""
    return pose.joints - pose.joints[KINECT_V2_25.root]


def jitter_mm(theirs: list[np.ndarray], ours: list[np.ndarray]) -> tuple[float, float]:
    """Rms step from frame to frame of joints at rest, mm: in the same frames of both."""
    tracks = [np.stack(joints)[:, JOINTS] * 1000 for joints in (theirs, ours)]  # (T, joints, 3)
    half = round(0.25 * SECOND_NS / STEP_NS)
    windows = np.lib.stride_tricks.sliding_window_view(tracks[0], 2 * half + 1, axis=0)  # (T', joints, 3, window)
    moved = windows.std(axis=-1).max(axis=-1)  # (T', joints)
    rest = moved <= np.quantile(moved, 0.1)
    steps = [np.linalg.norm(np.diff(track, axis=0), axis=2)[half : half + len(rest)] for track in tracks]
    return tuple(float(np.sqrt((step[rest[: len(step)]] ** 2).mean())) for step in steps)  # type: ignore[return-value]


def bench(config: Config, console: Console) -> int:
    """Measures and prints."""
    videos = config.videos or tuple(VIDEOS / name for name in NAMES)
    absent = [str(video) for video in videos if not video.is_file()]
    if absent:
        raise UsageError(f"there is no video {absent[0]}; name others with --videos")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    title = f"{platform.machine()}, {os.cpu_count()} CPUs, LiteRT on {config.threads} threads, load before: {load}"
    table = Table("video", "frames", "apart px: mean, p95", "apart mm: mean, p95", title=title, title_justify="left")
    for column in ("jitter mm: MediaPipe, LiteRT", "ms elapsed / CPU: MediaPipe", "LiteRT", "CPU ratio"):
        table.add_column(column)
    for video in videos:
        found = compare(video, config.frames, config.threads)
        if len(found.joints[0]) < 60:
            raise UsageError(f"a person was seen in {len(found.joints[0])} frames of {video}; name another video")
        before, after = jitter_mm(*found.joints)
        theirs, ours = found.cost
        table.add_row(
            video.name,
            str(len(found.apart_px)),
            f"{np.mean(found.apart_px):.2f}, {np.percentile(found.apart_px, 95):.2f}",
            f"{np.mean(found.apart_mm):.1f}, {np.percentile(found.apart_mm, 95):.1f}",
            f"{before:.2f}, {after:.2f}",
            theirs.middle(),
            ours.middle(),
            f"{np.median(theirs.cpu_ms) / np.median(ours.cpu_ms):.2f}",
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "scripts.bench_pose", EXAMPLES, bench)


if __name__ == "__main__":
    sys.exit(main())
