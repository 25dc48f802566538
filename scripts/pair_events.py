"""Events of pairs, counted: SBU's clips played through the whole line, and generated people side by side.

Each clip is played as two tracks whose people stand still before it and after it, since SBU's clips are no longer
than the action. Generated people, and people of sets that training did not see, are put side by side: such pairs do
nothing together, so each of their events is false.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from realtime.backends import open_engine
from realtime.bundle import Bundle, default_bundle, load_bundle, shipped_interactions
from realtime.command import run_command
from realtime.generator.beside import Two, beside
from realtime.pose import PassThrough
from realtime.run import make_pipeline
from realtime.schema import SECOND_NS, Event, Frame, Pose
from realtime.scoring import Engine
from realtime.skeleton import CORE_16, Layout
from train.data import read as read_set
from train.data.clip import Clip
from train.data.sbu import FPS, read
from train.pairs import people_of, side_by_side
from train.sources import Source, parse_sources
from train.vocabulary import action_of

EXAMPLES = """examples:
  python -m scripts.pair_events --data DIR --subjects s01s02 s03s04 s05s02 s06s04
"""
BEFORE_S, AFTER_S = 3.0, 4.0
STILL_S = 1.0
STRANGERS = 120  # pairs of each set
SEED = 50_000  # of generated people whom training does not draw


@dataclass(frozen=True)
class Config:
    """Count the events of pairs on held-out clips of SBU and on generated people."""

    data: Path
    """Folder of SBU's files."""
    subjects: tuple[str, ...] = ()
    """Pairs of people such as s01s02; all where not given."""
    bundle: Path | None = None
    """Bundle of pairs; the shipped one where not given."""
    beside: tuple[str, ...] = ()
    """Sets of single people as NAME:DIR, put side by side."""
    generated: int = 10
    """Generated pairs, about a minute each."""


def still_around(clip: Clip) -> Two:
    """A clip with its people still before and after it."""
    before, after = round(BEFORE_S * FPS), round(AFTER_S * FPS)
    frames = len(clip.times_ns)
    rows = np.concatenate([np.zeros(before, int), np.arange(frames), np.full(after, frames - 1)])
    times = np.rint(np.arange(len(rows)) * (SECOND_NS / FPS)).astype(np.int64)
    return Two(times, clip.joints[rows], clip.confidence[rows])


def play(bundle: Bundle, engine: Engine, single: tuple[Bundle, Engine], two: Two, layout: Layout) -> list[Event]:
    """The events of pairs of two people before the line."""
    line = make_pipeline(PassThrough(), *single, 2, (bundle, engine))
    events: list[Event] = []
    for index, now in enumerate(two.times_ns.tolist()):
        poses = tuple(
            Pose(index, now, body + 1, layout, two.joints[index, body], two.confidence[index, body])
            for body in (0, 1)
            if two.confidence[index, body].any()
        )
        events += line.step(Frame(index, now, poses=poses)).events
    events += line.close(int(two.times_ns[-1]), "source_lost")
    return [event for event in events if event.partner is not None]


def starts(events: Sequence[Event]) -> list[str]:
    """The actions that started."""
    return [event.action for event in events if event.phase == "start"]


def count(clips: Iterable[tuple[str, list[str]]]) -> dict[str, Counter[str]]:
    """By true action: clips, those in which it started (found), all other starts (false)."""
    counts: dict[str, Counter[str]] = {}
    for action, started in clips:
        row = counts.setdefault(action, Counter())
        row["clips"] += 1
        row["found"] += action in started
        row["false"] += sum(other != action for other in started)
    return counts


def run(config: Config, console: Console) -> int:
    """Plays everything and prints the counts."""
    main = load_bundle(default_bundle())
    bundle = load_bundle(config.bundle or shipped_interactions())
    engine, single = open_engine(bundle, "ort", precision="fp32"), (main, open_engine(main, "ort", precision="fp32"))
    told = []
    for clip in read(config.data, config.subjects or None):
        action = action_of(clip.data, clip.label, bodies=2)
        if action is not None:
            told.append((action, starts(play(bundle, engine, single, still_around(clip), clip.layout))))
    counts = count(told)
    for action, row in sorted(counts.items()):
        console.print(f"{action:15} {row['found']:3} of {row['clips']:3} clips, {row['false']} other events")
    total: Counter[str] = sum(counts.values(), Counter())
    console.print(f"{'all':15} {total['found']:3} of {total['clips']:3} clips, {total['false']} other events")
    sources = parse_sources(config.beside)
    sets = {f"people of {source.name}": strangers(source, bundle.fps, config.subjects) for source in sources}
    for name, pairs in {"generated people": beside(config.generated, SEED), **sets}.items():
        wrong, seconds = Counter[str](), 0.0
        for two in pairs:
            wrong.update(starts(play(bundle, engine, single, two, CORE_16)))
            seconds += float(two.times_ns[-1] - two.times_ns[0]) / SECOND_NS
        found = ", ".join(f"{action} {number}" for action, number in wrong.most_common())
        console.print(
            f"{name} side by side: {wrong.total()} events in {seconds / 60:.1f} minutes{': ' + found if found else ''}"
        )
    return 0


def strangers(source: Source, fps: float, subjects: Sequence[str]) -> Iterator[Two]:
    """People of a set put side by side, still for a while before and after what they do; of SBU only the subjects."""
    items = read_set(source.name, source.path, subjects if source.name == "sbu" and subjects else None)
    people = [person for item in items for person in people_of(item, fps)]
    for moving in side_by_side(people, STRANGERS, fps, np.random.default_rng(SEED)):
        rows = np.pad(moving, ((round(STILL_S * fps),) * 2, *((0, 0),) * 3), mode="edge")
        times = np.rint(np.arange(len(rows)) * (SECOND_NS / fps)).astype(np.int64)
        yield Two(times, rows, np.ones(rows.shape[:-1], np.float32))


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "scripts.pair_events", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
