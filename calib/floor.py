"""Finds which way is up and how high the camera hangs, from people or depth: python -m calib.floor --help."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from calib import written
from calib.floor_bodies import Gathering
from calib.floor_depth import find_floor_in_depth
from calib.floor_fit import Found, find_floor
from calib.floor_orientation import TRIED_FPS, TRIED_S, best_turn, smaller
from calib.floor_picture import side_view
from calib.floor_words import verdict
from calib.written import say
from realtime.calibration import Calibration, load_calibration
from realtime.command import run_command
from realtime.errors import UsageError
from realtime.feed import PLACED, UPRIGHT, Source
from realtime.floor import Floor, orientation_of
from realtime.lifted import with_depth
from realtime.orientation import turn_of, turned_lens, turned_pictures
from realtime.person import KINECT_AXES
from realtime.pipeline import FindsPoses
from realtime.pose import PassThrough
from realtime.pose_choice import open_pose
from realtime.rig import Rig
from realtime.schema import SECOND_NS, Frame
from realtime.secrets import source_of
from realtime.settings import PERSONS_IN_PICTURES
from realtime.source import open_source
from realtime.stage import marks_of

EXAMPLES = """examples:
  python -m calib.floor --camera 0 --out floor.json                walk and stand before the camera for a minute
  python -m calib.floor --camera 0 --calib cam.json --out floor.json
                                                                   with its lens known, places are better
  python -m calib.floor --source today.mcap --picture side.png     from a recording; and draw what was found
  python -m calib.floor --source a01_s01_e00_v01.json a01_s02_e00_v01.json
                                                                   several clips of one camera, taken together
  python -m calib.floor --source depth:realsense --from depth      from the depth picture; nobody need be there
  python -m calib.floor --camera 0 --orientation 90                the camera lies on its side: turn pictures clockwise
  python -m calib.floor --source synthetic --out floor.json        a generated person; needs no camera
  python -m realtime.run --camera 0 --calib floor.json             use it

exit codes: 0 ok, 1 internal error, 2 usage, or people who do not show which way is up, 4 source cannot be opened,
  130 interrupted (Ctrl-C)
"""
LONGEST_S = 3600.0  # of one file
PATIENCE = 5  # a live source is given up after so many times --seconds
DEPTH_PICTURES, DEPTH_EVERY_NS = 30, SECOND_NS // 5


@dataclass(frozen=True)
class Config:
    """Find which way is up and how high the camera hangs, from a minute of people who walk and stand, or depth."""

    source: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--camera",), metavar="SOURCE [SOURCE ...]")] = ("0",)
    """Where people walk and stand: any source of realtime.run; several files of one camera count together."""
    evidence: Annotated[Literal["people", "depth"], tyro.conf.arg(aliases=("--from",))] = "people"
    """What to find it from. depth: the floor's plane in the pictures of a depth source; nobody need be there."""
    orientation: Literal["auto", "0", "90", "180", "270"] = "auto"
    """Degrees clockwise by which pictures must be turned for people to stand in them. auto: try, and see."""
    seconds: float = 60.0
    """Stop once people stood and walked for so long (live sources; files are read to their end, or an hour)."""
    out: Path = Path("floor.json")
    """The file to write."""
    replace: bool = False
    """Write over files that are there."""
    picture: Annotated[Path | None, tyro.conf.arg(aliases=("--show",))] = None
    """Also draw people and floor from the side, as found, to this PNG file (needs matplotlib)."""
    calib: Path | None = None
    """What was measured before: the lens, the depth camera. A floor in it is left aside."""
    pose: Annotated[str, tyro.conf.arg(metavar="auto|litert|mediapipe|FILE.onnx")] = "auto"
    """What finds people in pictures, as --pose of realtime.run."""
    persons: int = PERSONS_IN_PICTURES
    """People to follow in pictures at most."""
    mirror: bool = False
    """The camera gives mirrored pictures, as --mirror of realtime.run."""
    fps: float | None = None
    """Frames a second of files that tell none, as --fps of realtime.run."""


@dataclass
class _Seen:
    """What the sources gave."""

    people: Gathering = field(default_factory=Gathering)
    depth: list[np.ndarray] = field(default_factory=list)
    rig: Rig | None = None
    turn: int | None = None  # of the pictures, as said or tried; None where nothing was said and there were none


def run(config: Config, console: Console) -> int:
    """Gathers, finds, writes and says; LineError says what is lacking."""
    _check(config)
    site = replace(load_calibration(config.calib), floor=None)
    seen = _gather(config, site, console)
    console.print("looking for the floor", style="dim")
    bodies = seen.people.bodies()
    found = _from_depth(seen) if config.evidence == "depth" else find_floor(bodies)
    orientation = _orientation(config, seen, found)
    words = verdict(found, orientation)
    written.write_document(config.out, document(found, orientation, words))
    if config.picture is not None:
        written.write(config.picture, side_view(bodies, found, words[0]), "--picture")
        say(console, f"written: {config.picture}")
    for line in words:
        say(console, line, "bold" if line is words[0] else "")
    first = config.source[0]
    camera = f"--source {first}" if first.startswith("depth:") else f"--camera {first if first.isdigit() else 0}"
    mirror = " --mirror" if config.mirror else ""
    say(console, f"written: {config.out}; use it: python -m realtime.run {camera}{mirror} --calib {config.out}")
    return 0


def document(found: Found, orientation: int, words: list[str]) -> dict[str, Any]:
    """The file's content; `measured` is for people."""
    floor = Floor((float(found.up[0]), float(found.up[1]), float(found.up[2])), found.height_m, orientation)
    return {
        "schema": "calib-floor/1",
        "up": [round(one, 6) for one in floor.up],
        "height_m": None if found.height_m is None else round(found.height_m, 3),
        "orientation": orientation,
        "measured": {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "verdict": " ".join(words),
            "pitch_down_deg": round(floor.pitch, 2),
            "roll_clockwise_deg": round(floor.roll, 2),
            "up_within_deg": round(found.within_deg, 2),
            "height_within_m": None if found.height_within_m is None else round(found.height_within_m, 3),
            "people": found.people,
            "seen_s": round(found.seen_s, 1),
            "upright_s": round(found.upright_s, 1),
            "evidence": {
                one.name: {"off_deg": round(one.off_deg, 2), "within_deg": round(one.within_deg, 2)}
                for one in found.evidence
            },
        },
    }


def _check(config: Config) -> None:
    """UsageError where flags are out of range or a file could not be written, before any work."""
    written.check_free(config.out, config.replace)
    if config.picture is not None:
        written.check_free(config.picture, config.replace, "--picture")
    if not 5 <= config.seconds <= LONGEST_S:
        raise UsageError(f"--seconds must be in [5, {LONGEST_S:.0f}], got {config.seconds:g}")
    if not 1 <= config.persons <= 64:
        raise UsageError(f"--persons must be in [1, 64], got {config.persons}")


def _gather(config: Config, site: Calibration, console: Console) -> _Seen:
    """Reads every source, with a bar of how long people stood and walked."""
    seen = _Seen(turn=_said(config))
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        of = DEPTH_PICTURES if config.evidence == "depth" else config.seconds
        task = progress.add_task("looking for people", total=of, told="")

        def tell(what: str) -> None:
            done = len(seen.depth) if config.evidence == "depth" else seen.people.upright_s
            told = f"{len(seen.depth)} pictures" if config.evidence == "depth" else f"{done:.0f} s upright"
            progress.update(task, completed=min(done, of), told=told, description=what)

        for number, spec in enumerate(config.source):
            source = open_source(source_of(spec, None), fast=True, mirror=config.mirror, fps=config.fps)
            with closing(source):
                if config.evidence == "depth":
                    _depth_of(source, site.rig, seen, tell)
                else:
                    endless = source.info.live or source.info.kind == "synthetic" or spec == "-"
                    _people_of(number, source, endless, config, site, seen, tell)
    return seen


def _depth_of(source: Source, rig: Rig | None, seen: _Seen, tell: Callable[[str], None]) -> None:
    """A few depth pictures of a source, a fifth of a second apart."""
    if source.info.depth_size is None:
        raise UsageError(f"{source.info.id} has no depth; leave --from depth out, or name one such as depth:FOLDER")
    seen.rig, last_ns = rig or source.info.rig, -DEPTH_EVERY_NS
    if seen.rig is not None:
        seen.rig.fits(None, source.info.depth_size, f"source {source.info.id}")
    for item in source:
        if isinstance(item, Frame) and item.depth is not None and item.captured_ns - last_ns >= DEPTH_EVERY_NS:
            if seen.rig is not None:
                seen.rig.fits(None, (item.depth.shape[1], item.depth.shape[0]), source.info.id)
            seen.depth.append(item.depth.copy())
            last_ns = item.captured_ns
            tell("looking at depth")
        if len(seen.depth) >= DEPTH_PICTURES:
            break


def _people_of(
    number: int, source: Source, endless: bool, config: Config, site: Calibration, seen: _Seen,
    tell: Callable[[str], None],
) -> None:  # fmt: skip
    """Everybody that a source shows, until it ends or enough was seen."""
    if UPRIGHT in source.info.marks:
        raise UsageError(
            f"{source.info.id} was recorded with a floor, so its poses are upright already; name one recorded without"
        )
    stage: FindsPoses | None = PassThrough() if source.info.skeletons else None
    guessed = not marks_of(source.info, site) & {PLACED}
    first_ns: int | None = None
    kept: list[Frame] = []
    try:
        began_s = time.monotonic()
        for item in source:
            if not isinstance(item, Frame):
                if item is not None:
                    tell(f"{source.info.id} {item.state}" + (f": {item.reason}" if item.reason else ""))
                if source.info.live and time.monotonic() - began_s > PATIENCE * config.seconds:
                    break
                continue
            first_ns = item.captured_ns if first_ns is None else first_ns
            lasted_s = (item.captured_ns - first_ns) / SECOND_NS
            if stage is None:
                stage = _stage(config, site, source, seen, item, kept, lasted_s, tell)
                if stage is not None:  # what the trial looked at counts too
                    _look_again(number, stage, kept, seen, guessed)
            if stage is not None:
                seen.people.add(number, item.captured_ns, stage.find(item), guessed)
                tell("looking for people")
            if lasted_s > LONGEST_S or (endless and _enough(config, seen, lasted_s)):
                break
        if stage is None and kept:  # a file shorter than the trial
            seen.turn = _tried(config, kept, tell)
            stage = _open(config, site, source, seen.turn)
            _look_again(number, stage, kept, seen, guessed)
    finally:
        if stage is not None:
            stage.close()


def _look_again(number: int, stage: FindsPoses, kept: list[Frame], seen: _Seen, guessed: bool) -> None:
    for frame in kept:
        seen.people.add(number, frame.captured_ns, stage.find(frame), guessed)


def _enough(config: Config, seen: _Seen, lasted_s: float) -> bool:
    return seen.people.upright_s >= config.seconds or lasted_s > PATIENCE * config.seconds


def _stage(
    config: Config, site: Calibration, source: Source, seen: _Seen, frame: Frame, kept: list[Frame], lasted_s: float,
    tell: Callable[[str], None],
) -> FindsPoses | None:  # fmt: skip
    """The pose stage for pictures, once it is known how they must be turned; until then pictures are kept."""
    if seen.turn is None:
        if frame.image is not None and (not kept or frame.captured_ns - kept[-1].captured_ns >= SECOND_NS / TRIED_FPS):
            kept.append(replace(frame, image=smaller(frame.image)))
        if lasted_s < TRIED_S:
            return None
        seen.turn = _tried(config, kept, tell)
    return _open(config, site, source, seen.turn)


def _said(config: Config) -> int | None:
    """The turn of pictures that the flags name; None: it is to be found."""
    return None if config.orientation == "auto" else int(config.orientation)


def _tried(config: Config, kept: list[Frame], tell: Callable[[str], None]) -> int:
    """The turn of pictures that a trial on the kept ones speaks for."""
    return best_turn(
        kept,
        lambda: open_pose(config.pose, config.persons)[0],
        lambda turn: tell(f"pictures turned by {turn}°"),
    )[0]


def _open(config: Config, site: Calibration, source: Source, turn: int) -> FindsPoses:
    turned = replace(site, floor=Floor(orientation=turn))
    if site.lens is not None and source.info.width and source.info.height:
        site.lens.fits(source.info.width, source.info.height)
    pose, _ = open_pose(config.pose, config.persons, lens=turned_lens(turned))
    return with_depth(turned_pictures(pose, turned), source.info, site.rig)[0]


def _from_depth(seen: _Seen) -> Found:
    """The floor in depth pictures, in the space of the colour camera, where poses will be."""
    if seen.rig is None:
        raise UsageError("the source has depth but not what its lens is; measure it with python -m calib.depth")
    found = find_floor_in_depth(seen.depth, seen.rig.depth, turn_of(seen.turn or 0).T @ np.array((0.0, 1.0, 0.0)))
    assert found.height_m is not None
    up = np.array(seen.rig.rotation) @ (found.up * KINECT_AXES)
    height = found.height_m - float(up @ np.array(seen.rig.translation_m))
    return replace(found, up=up * KINECT_AXES, height_m=height)


def _orientation(config: Config, seen: _Seen, found: Found) -> int:
    """How pictures of this camera are turned: as said; else so that up is at their top, where they have one."""
    level = float(np.hypot(found.up[0], found.up[1]))
    if seen.turn is not None and (level <= 0.5 or _said(config) is not None):
        return seen.turn
    return orientation_of(found.up)


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "calib.floor", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
