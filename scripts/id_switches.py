"""Counts how often ids go to the wrong person: python -m scripts.id_switches --help

On generated scenes it is known who is who, so figures are exact. Of videos it is not: what can be counted is how many
ids there were and for how long, and pictures with numbers on the people show the rest to whoever looks at them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.table import Table

from realtime.command import run_command
from realtime.errors import UsageError
from realtime.generator.crowd import SCENES, crowd
from realtime.generator.sightings import sightings
from realtime.people import Body, PeopleTracker
from realtime.schema import SECOND_NS
from scripts.id_truth import Kept, judge
from scripts.plain_trackers import BoxOverlap, NearestHips

EXAMPLES = """examples:
  python -m scripts.id_switches                              ten generated scenes, 20 times each, 30 frames a second
  python -m scripts.id_switches --baseline                   and what two plain trackers make of them
  python -m scripts.id_switches --scenes three --fps 10      one scene at a slow camera's rate
  python -m scripts.id_switches --videos A.mp4 --persons 6 --draw /tmp/look    real pictures, numbered, to look at

exit codes: 0 no more scenes with a switched id than --most-switched allows, 1 more, 2 usage, 4 video cannot be opened,
  130 interrupted
"""


@dataclass(frozen=True)
class Config:
    """Count switched and further ids on generated scenes of crossing people, or show the ids of people in videos."""

    scenes: tuple[str, ...] = tuple(SCENES)
    """Which generated scenes."""
    seeds: int = 20
    """How often each is played, with other people and other faults."""
    first_seed: int = 1000
    """The first seed; the rules were settled on 0 to 49."""
    fps: float = 30.0
    """Frames a second."""
    baseline: bool = False
    """Also play everything to a greedy tracker by nearest hips and to one by overlap of boxes."""
    most_switched: float = 0.02
    """Bound of the share of scenes in which an id went to another person."""
    videos: tuple[Path, ...] = ()
    """Video files to play instead of generated scenes; needs the LiteRT pose stage."""
    persons: int = 6
    """People to follow at most in videos."""
    draw: Path | None = None
    """Folder for pictures of the videos with ids on the people, one in --every frames."""
    every: int = 5
    """Which frames to draw: 1 all, 5 every fifth."""


class Tracks(Protocol):
    """What gives ids to bodies."""

    def assign(self, captured_ns: int, bodies: Sequence[Body]) -> list[int | None]:
        """The id of each body of one frame."""


Trackers = Mapping[str, Callable[[], Tracks]]


def trackers(baseline: bool, persons: int) -> Trackers:
    """The trackers to compare, by name; a new one for each scene."""
    ours: dict[str, Callable[[], Tracks]] = {"people": lambda: PeopleTracker(persons=persons)}
    return {**ours, "nearest hips": NearestHips, "box overlap": BoxOverlap} if baseline else ours


def play(scene: str, seeds: Sequence[int], fps: float, make: Trackers) -> dict[str, Kept]:
    """The figures of each tracker on one scene, all its seeds added up."""
    kept = dict.fromkeys(make, Kept())
    for seed in seeds:
        seen = list(sightings(crowd(scene, seed, fps), seed))
        for name, new in make.items():
            tracker = new()
            kept[name] += judge(seen, [tracker.assign(one.captured_ns, one.bodies) for one in seen])
    return kept


def scenes(config: Config, console: Console) -> int:
    """Plays generated scenes, prints the table, and says whether switched ids stay within the bound."""
    make = trackers(config.baseline, 8)
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    table = Table(title=f"{config.seeds} plays of each scene, {config.fps:g} fps, seeds from {config.first_seed}")
    _columns(table, "scene", "tracker", "switches", "scenes with", "further ids", "forced", "purity", "named", "IDF1")
    total = dict.fromkeys(make, Kept())
    for scene in config.scenes:
        for name, kept in play(scene, seeds, config.fps, make).items():
            table.add_row(scene, name, *_figures(kept))
            total[name] += kept
        table.add_section()
    for name, kept in total.items():
        table.add_row("all", name, *_figures(kept), style="bold")
    Console(highlight=False, width=120).print(table)
    ours = total["people"]
    allowed = math.floor(config.most_switched * ours.scenes)
    if ours.switched_scenes > allowed:
        console.print(f"ids were switched in {ours.switched_scenes} of {ours.scenes} scenes; {allowed} are allowed")
        return 1
    return 0


def _columns(table: Table, *headings: str) -> None:
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < 2 else "right", no_wrap=True)


def _figures(kept: Kept) -> list[str]:
    shares = (kept.purity, kept.coverage, kept.idf1)
    counts = (kept.switches, kept.switched_scenes, kept.fragments, kept.gaps)
    return [*map(str, counts), *(f"{share:.3f}" for share in shares)]


@dataclass(frozen=True)
class Watched:
    """One frame of a video: when, the picture (H, W, 3) uint8 BGR and the bodies in it, in its pixels."""

    captured_ns: int
    picture: object
    bodies: list[Body]


def watch(video: Path, persons: int) -> Iterator[Watched]:
    """The bodies that the LiteRT pose stage finds in a video, before anybody gives them ids."""
    from realtime.body import Belief, believe  # here, so that generated scenes do without LiteRT and cv2
    from realtime.finder import Follower
    from realtime.image import SmallRgb
    from realtime.person import KINECT_AXES, standing
    from realtime.source import open_source

    source, follower, small = open_source(str(video), fast=True), Follower(persons, 2), SmallRgb()
    try:
        for frame in source:
            picture, bodies = getattr(frame, "image", None), []
            if frame is None or picture is None:
                continue
            rgb = small(picture)
            (tall, wide), (high, broad) = picture.shape[:2], rgb.shape[:2]
            for one in follower.find(rgb, frame.captured_ns):
                assert one.found is not None
                found = one.found.landmarks(broad, high, KINECT_AXES)
                belief = believe(found)
                one.judge(belief is not Belief.NONE, frame.captured_ns)
                if belief is not Belief.NONE:
                    hips, size = standing(found, wide, tall)
                    joints = found.image * (wide, tall)
                    bodies.append(Body(joints, found.visibility, hips, size, belief is Belief.SURE))
            yield Watched(frame.captured_ns, picture.copy(), bodies)
    finally:
        follower.close()
        source.close()


def videos(config: Config, console: Console) -> int:
    """Plays videos, prints how many ids there were and for how long, and draws what is asked for."""
    table = Table(
        title=f"at most {config.persons} people; figures say nothing of switches: look at the pictures (--draw)"
    )
    _columns(table, "video", "tracker", "frames", "bodies", "named", "ids", "longest, s", "median, s")
    for video in config.videos:
        seen = list(watch(video, config.persons))
        for name, new in trackers(config.baseline, config.persons).items():
            tracker = new()
            given = [tracker.assign(one.captured_ns, one.bodies) for one in seen]
            table.add_row(video.name, name, str(len(seen)), *_lives(seen, given))
            if config.draw is not None:
                _draw(config.draw / f"{video.stem}-{name.replace(' ', '-')}", seen, given, config.every)
    Console(highlight=False, width=120).print(table)
    return 0


def _lives(seen: Sequence[Watched], given: Sequence[Sequence[int | None]]) -> list[str]:
    """Bodies, the share of them with an id, ids, and how long the ids lived."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    count: Counter[bool] = Counter()
    for one, ids in zip(seen, given, strict=True):
        count.update(number is not None for number in ids)
        for number in ids:
            if number is not None:
                first.setdefault(number, one.captured_ns)
                last[number] = one.captured_ns
    lives = sorted((last[number] - first[number]) / SECOND_NS for number in first) or [0.0]
    named = f"{count[True] / max(count.total(), 1):.2f}"
    return [str(count.total()), named, str(len(first)), f"{lives[-1]:.1f}", f"{lives[len(lives) // 2]:.1f}"]


def _draw(folder: Path, seen: Sequence[Watched], given: Sequence[Sequence[int | None]], every: int) -> None:
    """Writes pictures with a box and an id on each body; - is a body without one."""
    import cv2
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    colours = ((80, 200, 80), (60, 160, 255), (230, 160, 60), (200, 90, 220), (80, 220, 230), (140, 140, 255))
    for row in range(0, len(seen), every):
        one = seen[row]
        picture = np.array(one.picture)
        for body, number in zip(one.bodies, given[row], strict=True):
            colour = (150, 150, 150) if number is None else colours[number % len(colours)]
            low, high = body.joints.min(axis=0).astype(int), body.joints.max(axis=0).astype(int)
            cv2.rectangle(picture, low.tolist(), high.tolist(), colour, 2)
            place = (int(low[0]), max(int(low[1]) - 4, 14))
            cv2.putText(picture, "-" if number is None else str(number), place, 0, 0.9, colour, 2, cv2.LINE_AA)
        cv2.putText(picture, f"frame {row}", (4, picture.shape[0] - 6), 0, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
        if not cv2.imwrite(str(folder / f"{row:05}.png"), picture):
            raise UsageError(f"{folder} cannot be written to: give --draw another folder")


def main(config: Config, console: Console) -> int:
    """Checks the flags and runs one of the two."""
    unknown = [scene for scene in config.scenes if scene not in SCENES]
    if unknown:
        raise UsageError(f"no scene {', '.join(unknown)}; scenes are {', '.join(SCENES)}")
    for name in ("seeds", "every", "persons"):
        if getattr(config, name) < 1:
            raise UsageError(f"--{name} must be at least 1, got {getattr(config, name)}")
    return videos(config, console) if config.videos else scenes(config, console)


if __name__ == "__main__":
    raise SystemExit(run_command(Config, "scripts.id_switches", EXAMPLES, main))
