"""Records a depth camera, pictures and all, into a folder: python -m calib.record_depth --help."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from calib.written import say
from realtime.calibration import load_calibration
from realtime.command import run_command
from realtime.depth_recording import DepthWriter
from realtime.depth_source import Sight
from realtime.errors import LineError, SourceError, UsageError
from realtime.generator.perform import perform
from realtime.generator.sight import body_of, seen_by_depth, seen_in_color, sensed
from realtime.lens import Lens
from realtime.rig import Rig, make_rig
from realtime.schema import SECOND_NS, Frame
from realtime.slot import Change
from realtime.source import open_source

EXAMPLES = """examples:
  python -m calib.record_depth --source depth:realsense --seconds 20 --out hall
  python -m calib.record_depth --source synthetic --seconds 4 --out made    a generated person; needs no camera
  python -m realtime.run --source depth:hall                                play it

A recording holds PICTURES OF PEOPLE, unlike --record of realtime.run, which keeps skeletons only: ask them, and keep it
where only those may read it who need it.

exit codes: 0 ok, 1 internal error or a full disk, 2 usage, 4 source cannot be opened, 130 interrupted (Ctrl-C): what
  was recorded until then can be played
"""
SCRIPT = ("wave:right", "walk:treadmill", "squat", "clap")  # what the generated person does, 3 s each
MADE_FPS = 10.0


@dataclass(frozen=True)
class Config:
    """Record a depth camera, pictures and all, into a folder that --source depth:FOLDER plays."""

    source: Annotated[str, tyro.conf.arg(metavar="depth:SOURCE|synthetic")]
    """A depth camera (depth:orbbec, depth:realsense, depth:oak), or synthetic."""
    out: Path
    """The new folder."""
    seconds: float = 20.0
    """How long."""
    calib: Path | None = None
    """A file of calib.depth, whose lenses are stated in the recording instead of the device's own."""
    picture: Literal["jpg", "png"] = "jpg"
    """How colour pictures are kept: png loses nothing and takes four times the space."""
    seed: int = 1
    """Of the generated person."""


def run(config: Config, console: Console) -> int:
    """Records until the time is up or the source ends."""
    if not 0 < config.seconds < 1e6:
        raise UsageError(f"--seconds must be above 0, got {config.seconds:g}")
    if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise UsageError(f"--out {config.out} is there already and not empty; name a new folder")
    measured = None if config.calib is None else load_calibration(config.calib).rig
    if config.calib is not None and measured is None:
        raise UsageError(f"--calib {config.calib} is no file of calib.depth; measure it with python -m calib.depth")
    if config.source == "synthetic":
        if measured is not None:
            raise UsageError("--source synthetic has cameras of its own; leave --calib out")
        rig = synthetic_rig()
        _write(config, rig, MADE_FPS, made(rig, config.seconds, config.seed), console)
        return 0
    if not config.source.startswith("depth:"):
        raise UsageError(f"--source must begin with depth:, such as depth:oak, or be synthetic, got {config.source}")
    with closing(open_source(config.source, fast=True)) as source:
        info = source.info
        known = measured or info.rig
        if known is not None:  # before it records pictures that no line could use
            size = (info.width, info.height) if info.width and info.height else None
            known.fits(size, info.depth_size, config.source)
        _write(config, known, info.fps or 30.0, _sights(source), console)
    return 0


def _sights(source: Iterable[Frame | Change | None]) -> Iterator[Sight]:
    for item in source:
        if isinstance(item, Change) and item.state == "reconnecting":
            raise SourceError(f"the camera was lost ({item.reason}); what was recorded until now can be played")
        if isinstance(item, Frame) and item.image is not None:
            yield Sight(item.captured_ns, item.image, item.depth)


def _write(config: Config, rig: Rig | None, fps: float, sights: Iterator[Sight], console: Console) -> None:
    counted = TextColumn("{task.fields[frames]} frames")
    columns = (TextColumn("{task.description}"), BarColumn(), counted, TimeRemainingColumn())
    begin_ns, deep = None, 0
    with (
        DepthWriter(config.out, rig, fps, f".{config.picture}") as writer,
        Progress(*columns, console=console, transient=True) as progress,
    ):
        task = progress.add_task("recording", total=config.seconds, frames=0)
        for sight in sights:
            begin_ns = sight.captured_ns if begin_ns is None else begin_ns
            passed_s = (sight.captured_ns - begin_ns) / SECOND_NS
            if passed_s >= config.seconds:
                break
            writer.write(sight.captured_ns - begin_ns, sight.image, sight.depth)
            deep += sight.depth is not None
            progress.update(task, completed=passed_s, frames=writer.count)
    if not writer.count:
        raise LineError(f"{config.source} gave no picture; try python -m realtime.run --source {config.source} --check")
    how = "its lenses stated in it" if rig is not None else "nothing is known of its lenses: measure with calib.depth"
    say(console, f"written: {config.out}, {writer.count} frames, {deep} with depth, {how}")
    say(console, f"play it: python -m realtime.run --source depth:{config.out}")


def synthetic_rig() -> Rig:
    """Two cameras as they are in one housing: 5 cm apart, a little turned, a little bent lenses."""
    color = Lens(640, 480, 545.0, 546.0, 322.5, 237.0, (0.06, -0.12, 0.001, -0.0007, 0.03), "pinhole", 0.0)
    depth = Lens(320, 240, 262.0, 262.0, 158.0, 121.5, (-0.08, 0.05, -0.0005, 0.0004, 0.0), "pinhole", 0.0)
    x, y = np.radians((1.5, -1.0))
    about_x = np.array(((1, 0, 0), (0, np.cos(x), -np.sin(x)), (0, np.sin(x), np.cos(x))))
    about_y = np.array(((np.cos(y), 0, np.sin(y)), (0, 1, 0), (-np.sin(y), 0, np.cos(y))))
    return make_rig(color, depth, about_y @ about_x, np.array((0.05, -0.002, 0.003)))


def made(rig: Rig, seconds: float, seed: int) -> Iterator[Sight]:
    """What the two cameras see of a generated person, 10 frames a second, with a sensor's noise, holes and edges."""
    script = [(SCRIPT[number % len(SCRIPT)], 3.0) for number in range(int(seconds // 3) + 1)]
    motion = perform(script, seed=seed, fps=MADE_FPS, noise=False)
    rng = np.random.default_rng(seed)
    for captured_ns, joints in zip(motion.times_ns, motion.joints, strict=True):
        body = body_of(joints)
        image, _ = seen_in_color(rig, [body])
        grain = rng.integers(-3, 4, image.shape, np.int16)  # no two pictures of a camera are alike
        yield Sight(
            int(captured_ns), np.clip(image + grain, 0, 255).astype(np.uint8), sensed(seen_by_depth(rig, [body]), rng)
        )


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "calib.record_depth", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
