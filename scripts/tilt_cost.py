"""What a tilted camera costs the shipped model, and what calib.floor gives back: python -m scripts.tilt_cost --help.

Real poses of a set's held-out people are turned as a tilted camera would have them. The floor is found on its other
people before the same camera, by calib.floor's own code, and never on those who are scored.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from calib.floor_bodies import Gathering
from calib.floor_fit import Found, find_floor
from realtime.backends import open_engine
from realtime.bundle import default_bundle, load_bundle
from realtime.command import run_command
from realtime.floor import upright_turn
from realtime.schema import Pose
from train.augment import rotation
from train.checkpoint import write_json
from train.data import read, subject_key
from train.data.clip import Clip
from train.evaluate import clip_report, score_clips
from train.sources import parse_source

EXAMPLES = """examples:
  python -m scripts.tilt_cost --data nw_ucla:DIR --held-out 9 10
  python -m scripts.tilt_cost --data utd_mhad:DIR --held-out 7 8 --json tilt.json
"""
TILTS = ((0, 0), (15, 0), (30, 0), (45, 0), (0, 15), (30, 15))  # degrees down, degrees rolled


@dataclass(frozen=True)
class Config:
    """Accuracy of the shipped bundle on clips of a tilted camera: as they come, and upright by the floor found."""

    data: str
    """NAME:PATH, as of train.evaluate; of nw_ucla each view is a camera of its own."""
    held_out: tuple[str, ...]
    """Subjects that are scored; the floor is found on some of the others."""
    finders: tuple[str, ...] = ("1", "2", "3")
    """Subjects on whom the floor is found."""
    json: Path | None = None
    """Write the figures here."""


def tilt_matrix(down: float, roll: float) -> np.ndarray:
    """(3, 3) from a level camera's space, Kinect axes, to that of one that looks down and is rolled clockwise (°)."""
    one = np.radians(np.array([-down])), np.radians(np.array([-roll]))
    return rotation(np.zeros(1), one[0], one[1])[0].astype(float)


def tilted(clip: Clip, turn: np.ndarray, height_m: float = 0.0) -> Clip:
    """The clip as a camera has it that is turned so, and hangs so much higher than the one it was recorded by."""
    joints = (clip.joints - np.array((0, height_m, 0), np.float32)) @ turn.T.astype(np.float32)
    return replace(clip, joints=joints)


def camera_of(clip: Clip) -> str:
    """Which camera of the set recorded it."""
    return clip.name[-3:] if clip.data == "nw_ucla" else "the one"


def floor_of(clips: Sequence[Clip]) -> Found:
    """The floor that calib.floor finds from clips of one camera."""
    people = Gathering()
    for number, clip in enumerate(clips):
        for t, now in enumerate(clip.times_ns.tolist()):
            seen = [b for b in range(clip.joints.shape[1]) if (clip.confidence[t, b] > 0).any()]
            poses = (Pose(t, now, b + 1, clip.layout, clip.joints[t, b], clip.confidence[t, b]) for b in seen)
            people.add(number, now, tuple(poses))
    return find_floor(people.bodies())


def angle_deg(first: np.ndarray, second: np.ndarray) -> float:
    """Degrees between two directions."""
    return float(np.degrees(np.arccos(np.clip(first @ second / np.linalg.norm(first) / np.linalg.norm(second), -1, 1))))


def measure(
    clips: Sequence[Clip], held_out: Sequence[str], finders: Sequence[str], accuracy: Callable[[list[Clip]], float],
    tilts: Sequence[tuple[float, float]] = TILTS,
) -> list[dict[str, float]]:  # fmt: skip
    """A row for each tilt: accuracy as they come and brought upright, and how sure the floor was (worst camera)."""
    scored = [clip for clip in clips if subject_key(clip.subject) in held_out]
    others = [clip for clip in clips if subject_key(clip.subject) in finders]
    rows = []
    for down, roll in tilts:
        turn, upright, sure = tilt_matrix(down, roll), {}, 0.0
        for camera in sorted({camera_of(clip) for clip in scored}):
            found = floor_of([tilted(clip, turn) for clip in others if camera_of(clip) == camera])
            upright[camera], sure = upright_turn(found.up), max(sure, found.within_deg)
        seen = [tilted(clip, turn) for clip in scored]
        rows.append({
            "down": down, "roll": roll, "as_it_comes": accuracy(seen),
            "upright": accuracy([tilted(clip, upright[camera_of(clip)]) for clip in seen]), "within_deg": sure,
        })  # fmt: skip
    return rows


def shipped_accuracy() -> Callable[[list[Clip]], float]:
    """Scores clips by the bundle that ships, as train.evaluate does."""
    bundle = load_bundle(default_bundle())
    engine = open_engine(bundle, "ort", precision="fp32")

    def logits(skeleton: np.ndarray) -> np.ndarray:
        return engine.infer(skeleton)[0] / bundle.temperature

    def accuracy(clips: list[Clip]) -> float:
        scored = score_clips(logits, clips, bundle.classes, bundle.streams, bundle.window, bundle.fps)
        return float(clip_report("", scored, bundle.classes)["accuracy"])

    return accuracy


def run(config: Config, console: Console) -> int:
    """Reads, turns, scores and prints."""
    source = parse_source(config.data)
    held, finders = ({subject_key(one) for one in given} for given in (config.held_out, config.finders))
    wanted = tuple(sorted(held | finders))
    clips = [item for item in read(source.name, source.path, wanted) if isinstance(item, Clip)]
    rows = measure(clips, sorted(held), sorted(finders - held), shipped_accuracy())
    table = Table("looks down", "rolled", "as it comes", "floor found", "up known to", title=source.name)
    for row in rows:
        table.add_row(
            f"{row['down']:.0f}°", f"{row['roll']:.0f}°", f"{row['as_it_comes']:.1%}", f"{row['upright']:.1%}",
            f"±{row['within_deg']:.1f}°",
        )  # fmt: skip
    console.print(table)
    if config.json:
        write_json(
            config.json, {"data": source.name, "held_out": sorted(held), "finders": sorted(finders), "rows": rows}
        )
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "scripts.tilt_cost", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
