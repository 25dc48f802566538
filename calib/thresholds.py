"""Measures when actions are to start and end at this site: python -m calib.thresholds --help."""

from __future__ import annotations

import sys
from importlib.util import find_spec

if __name__ == "__main__" and (find_spec("scipy") is None or find_spec("matplotlib") is None):
    print("error: calib.thresholds needs scipy and matplotlib, which come with training: run `make install-test`; "
          "the file that it writes needs neither", file=sys.stderr)  # fmt: skip
    sys.exit(2)

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from calib.allot import Allotment
from calib.counts import Counts
from calib.fitting import Asked, Fit, Fitter
from calib.labels import labels_of
from calib.pictures import draw
from calib.rejecting import Fitted, fit_rejection, fit_temperature
from calib.scored import Played, play_labelled, play_nothing, tempered, windows_of
from calib.telling import action_table, confusion_table, summary, verdict
from calib.threshold_file import content
from calib.written import check_free, say, write_document
from realtime.backends import open_engine
from realtime.bundle import Bundle, default_bundle
from realtime.bundles import load_first
from realtime.command import run_command
from realtime.errors import UsageError
from realtime.scoring import Engine
from train.data import read, subject_key
from train.data.clip import Recording
from train.sources import parse_sources
from train.synthesis import synthetic_recordings

EXAMPLES = """examples:
  python -m realtime.run --camera 0 --record life.mcap --duration 1800     half an hour of ordinary life, then
  python -m calib.thresholds --nothing life.mcap --false-per-hour 6 --out thresholds.json
                                        where walking and sitting down do happen, and are no false alarms:
  python -m calib.thresholds --nothing life.mcap --happens walk sit_down --false-per-hour 6 --out thresholds.json
                                        labelled recordings of the published sets, of people whom training never saw:
  python -m calib.thresholds --data msrc12:DIR utkinect:DIR --subjects msrc12:9 utkinect:6 --false-per-hour 60 \\
      --out thresholds.json --pictures pictures
  python -m realtime.run --camera 0 --calib thresholds.json

exit codes: 0 done, 2 flags or recordings that hold too little to fit anything, 3 bundle refused,
  4 a recording that cannot be read, 130 interrupted (nothing is written)
"""
GENERATED_SEED = 60_000  # people whom training does not draw
TRIED = ("logit", "margin")  # by auto: docs/calibration/thresholds.md has what the measures are worth


@dataclass(frozen=True)
class Config:
    """Measure thresholds for a rate of false alarms, from labelled recordings or from ordinary life at the site.

    The rate is of all actions together, in time in which nothing of the vocabulary happens. What is promised was
    counted on recordings that the thresholds were not chosen by.
    """

    out: Path
    """The file to write, for realtime.run --calib."""
    false_per_hour: float
    """False alarms an hour that are acceptable, of all actions together."""
    nothing: tuple[Path, ...] = ()
    """Recordings of ordinary life, made by realtime.run --record: whatever is told there is a false alarm."""
    happens: tuple[str, ...] = ()
    """Actions that do happen in those recordings: their events are right, and they start and end as they did. So the
    bundle's temperature stays too, and nothing is rejected."""
    data: tuple[str, ...] = ()
    """Labelled recordings as NAME:PATH, NAME one of msrc12 utkinect."""
    subjects: tuple[str, ...] = ()
    """Only these people: S for every set, or NAME:S1,S2 for one; all where not given."""
    generated: int = 0
    """Also so many labelled recordings of generated people, a minute each: to try the tool, not to measure a site."""
    bundle: Path | None = None
    """Bundle to measure; the shipped one where not given."""
    allot: Allotment = "recall"
    """How the rate is shared out: so that recall is kept best, evenly, or one common threshold for all actions."""
    reject: Literal["auto", "none", "softmax", "logit", "margin", "energy", "odds", "prototype"] = "auto"
    """Also reject windows that look like no known action, by this measure; needs labelled recordings. auto: by logit or
    by margin, where that meets the rate and keeps more recall, or comes nearer to the rate."""
    keep: float = 0.95
    """Share of the rightly called windows of actions that the rejection must let through."""
    precision: Literal["fp32", "int8"] = "fp32"
    """Which of the bundle's graphs scores the recordings."""
    pictures: Path | None = None
    """Folder for operating.png, thresholds.png and, of labelled recordings, confusion.png."""
    replace: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace a file that is there."""


def check(config: Config) -> None:
    """UsageError for flags that cannot go together."""
    if not 0 < config.false_per_hour < math.inf:
        raise UsageError(f"--false-per-hour must be above 0, got {config.false_per_hour}")
    if not 0.5 <= config.keep < 1:
        raise UsageError(f"--keep must be a share in [0.5, 1), got {config.keep}")
    if config.generated < 0:
        raise UsageError(f"--generated must be at least 0, got {config.generated}")
    if not (config.data or config.nothing or config.generated):
        raise UsageError("nothing to measure on: give --nothing RECORDING.mcap, or --data NAME:DIR")
    if config.subjects and not config.data:
        raise UsageError("--subjects are people of --data; leave it out, or name the sets")
    if config.happens and not config.nothing:
        raise UsageError(
            "--happens speaks of the recordings of --nothing; labelled recordings say themselves what happens"
        )
    if config.reject not in ("auto", "none") and not (config.data or config.generated):
        raise UsageError(
            f"--reject {config.reject} needs to know what real actions look like: add labelled recordings with --data"
        )
    if config.happens and config.reject not in ("auto", "none"):
        raise UsageError(
            f"--happens keeps those actions as they are, and --reject {config.reject} would change when they start; "
            f"leave one of the two out"
        )
    missing = [path for path in config.nothing if not path.is_file()]
    if missing:
        raise UsageError(
            f"--nothing {missing[0]}: no such file; record one with python -m realtime.run --record FILE.mcap"
        )
    seen: dict[Path, Path] = {}
    for path in config.nothing:
        if path.resolve() in seen:
            raise UsageError(
                f"--nothing {seen[path.resolve()]} and {path} are the same file: given twice, it tells no more than "
                f"once; leave one out, or record more"
            )
        seen[path.resolve()] = path
    check_free(config.out, config.replace)


def wanted(subjects: Sequence[str], names: Sequence[str]) -> dict[str, set[str]]:
    """The people (as `subject_key` writes them) of each set, none for all; UsageError for a set that is not read."""
    found: dict[str, set[str]] = {name: set() for name in names}
    for entry in subjects:
        name, colon, listed = entry.rpartition(":")
        if colon and name not in found:
            raise UsageError(f"--subjects {entry} names a set that --data does not; there are {', '.join(names)}")
        keys = {subject_key(one) for one in listed.split(",")}
        if "" in keys:
            raise UsageError(f"--subjects must be people such as 9 or msrc12:9,10, got {entry!r}")
        for one in [name] if colon else names:
            found[one] |= keys
    return found


def recordings(config: Config) -> list[Recording]:
    """The labelled recordings. UsageError where a set holds none, or none of the people."""
    found: list[Recording] = []
    sources = parse_sources(config.data)
    chosen = wanted(config.subjects, [source.name for source in sources])
    for source in sources:
        keys = chosen[source.name]
        items = list(read(source.name, source.path, keys or None))
        own = [item for item in items if isinstance(item, Recording)]
        if not own:
            what = (
                f"no recording of subject {', '.join(sorted(keys))}" if keys and not items else "clips, no recordings"
            )
            raise UsageError(
                f"{source.name} holds {what}: false alarms are counted between actions; give msrc12 or utkinect, "
                f"and people whom they have"
            )
        missing = keys - {subject_key(item.subject) for item in own}
        if missing:
            raise UsageError(f"{source.name} holds nothing of subject {', '.join(sorted(missing))}; name others")
        found += own
    return found


def check_actions(bundle: Bundle, happens: Sequence[str]) -> None:
    """UsageError for an action that the bundle does not know."""
    known = {action.id for action in bundle.actions}
    unknown = [action for action in happens if action not in known]
    if unknown:
        raise UsageError(f"--happens {unknown[0]}: {bundle.name} has no such action; it has {', '.join(sorted(known))}")


def play_all(config: Config, bundle: Bundle, engine: Engine, console: Console) -> list[Played]:
    """Every recording, its windows scored; UsageError where nobody is in any."""
    labelled = recordings(config) if config.data else []
    labelled += synthetic_recordings(config.generated, GENERATED_SEED)
    work: list[Callable[[], Played]] = [lambda one=one: play_labelled(bundle, engine, one) for one in labelled]  # type: ignore[misc]
    work += [lambda path=path: play_nothing(bundle, engine, path) for path in config.nothing]  # type: ignore[misc]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=console.quiet) as progress:
        task = progress.add_task("scoring recordings", total=len(work))
        played = []
        for one in work:
            played.append(one())
            progress.advance(task)
    if not any(one.windows for one in played):
        raise UsageError(
            f"nobody is in sight for long enough in these {len(played)} recordings; record people who are there"
        )
    return played


def fit(config: Config, bundle: Bundle, played: list[Played], console: Console) -> tuple[Fit, Fitted, Counts]:
    """Temperature, rejection, thresholds, and what the bundle counts without them.

    Rejection is taken on trial: of what meets the rate with and without it, what keeps most recall; where nothing
    meets it, what comes nearest.
    """
    asked = Asked(config.false_per_hour, config.allot, config.happens)
    labels = np.concatenate([labels_of(bundle, one) for one in played])
    logits, embedding = windows_of(bundle, played)
    plain = fit_temperature(bundle, logits, labels)
    if config.happens and plain.before is not None:
        why = "with another the actions of --happens would start at other moments, and they are to stay as they are"
        plain = replace(plain, bundle=bundle, before=None, after=None, why=why)

    def rejecting(kind: str) -> Fitted:
        return fit_rejection(plain, logits, embedding, labels, kind, config.keep)

    if config.reject == "auto":
        made = [plain, *(_tried(rejecting, console) if plain.before is not None else ())]
    else:
        made = [plain if config.reject == "none" else rejecting(config.reject)]
    with console.status("fitting") as status:
        found = [
            (Fitter(one.bundle, [tempered(one.bundle, part, one.rejection) for part in played], status.update), one)
            for one in made
        ]
        fits = [(fitter.fit(asked), one) for fitter, one in found]
        own = Fitter(bundle, [tempered(bundle, one) for one in played], status.update).own(config.happens)

    def worth(pair: tuple[Fit, Fitted]) -> tuple[bool, float]:
        one = pair[0]
        return (True, one.counted.recall or 0.0) if one.met(config.false_per_hour) else (False, -one.rate.per_hour)

    return *max(fits, key=worth), own  # the first of equals: without rejection


def _tried(rejecting: Callable[[str], Fitted], console: Console) -> list[Fitted]:
    """What auto tries beside no rejection; a measure that cannot be fitted here is left out, and that is said."""
    made, without = [], []
    for kind in TRIED:
        try:
            made.append(rejecting(kind))
        except UsageError as error:
            without.append((kind, error))
    if without:
        names = ", ".join(kind for kind, _ in without)
        say(console, f"--reject auto does without {names}: {without[0][1]}")
    return made


def run(config: Config, console: Console) -> int:
    """Measures, writes and says."""
    check(config)
    bundle = load_first(config.bundle or default_bundle())
    check_actions(bundle, config.happens)
    engine = open_engine(bundle, "ort", precision=config.precision)
    try:
        played = play_all(config, bundle, engine, console)
    finally:
        engine.close()
    found, made, own = fit(config, bundle, played, console)
    write_document(config.out, content(config.false_per_hour, config.allot, bundle, found, made, own, played))
    if config.pictures:
        draw(config.pictures, bundle, found, made, own, config.false_per_hour)
    console.print(action_table(bundle, found))
    if found.confused:
        console.print(confusion_table(found))
    say(console, summary(found, made, own))
    say(console, verdict(found, config.false_per_hour, bundle, played))
    say(console, f"next: python -m realtime.run --camera 0 --calib {config.out}")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "calib.thresholds", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
