"""Compares finished runs on the same test clips, seeds together: python -m train.compare --help."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from realtime.command import run_command
from realtime.errors import UsageError
from train.checkpoint import check_writable, write_json, write_text
from train.groups import KEY, Contrast, Group, baselines, contrast, group, moved, settings_apart
from train.runs import load_run, same_clips
from train.scoring import mean_class_accuracy
from train.statistics import mcnemar, mean_std, wilson

EXAMPLES = """examples:
  python -m train.compare runs/ce_0 runs/ce_1 runs/pcle_0 runs/pcle_1 --baseline ce
  python -m train.compare runs/* --baseline gap --json compare.json --markdown rows.md
"""
HOW = """accuracy: of the last weights, mean ± sample deviation over seeds; 95 %: Wilson's interval of that mean
best: accuracy of the best weights on the clips that chose them; where those are the test's, it is optimistic
against: difference in points, each seed with the baseline's same seed, mean ± sample deviation
McNemar: clips that only the baseline : only this group answers rightly, added over those pairs of seeds
p: McNemar's exact two-sided test; too small where seeds repeat the clips (--json has each pair's own)"""


@dataclass(frozen=True)
class Config:
    """Compare finished runs: accuracy over seeds, and each group of seeds against a baseline on the same clips."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Finished run folders, all with the same test clips."""
    baseline: str = ""
    """Method (or label) to compare with; where not given, that of the first run."""
    json: Path | None = None
    """Write all figures here."""
    markdown: Path | None = None
    """Write the table here as Markdown, for docs/results.md."""


def best(found: Group) -> tuple[float, float | None, str] | None:
    """Mean and deviation of the best weights' accuracy and the clips that chose them; None where a run says none."""
    each: list[dict[str, Any]] = [run.result.get("best") or {} for run in found.runs]
    if not all("accuracy" in one for one in each):
        return None
    mean, deviation = mean_std([one["accuracy"] for one in each])
    return mean, deviation, " & ".join(dict.fromkeys(str(one.get("chosen_by", "?")) for one in each))


def report(found: Group, against: Contrast | None) -> dict[str, Any]:
    """All figures of a group, for --json; shares in [0, 1]."""
    mean, deviation = mean_std(found.accuracies)
    clips = len(found.runs[0].scores.names)
    chosen = best(found)
    interval = wilson(round(mean * clips), clips)
    content: dict[str, Any] = {
        **found.key,
        "runs": [str(run.folder) for run in found.runs],
        "seeds": list(found.by_seed),
        "clips": clips,
        "accuracy": {"each": found.accuracies, "mean": mean, "std": deviation, "wilson": interval},
        "mean_class_accuracy": mean_std([mean_class_accuracy(run.scores.confusion) for run in found.runs])[0],
        "best": None if chosen is None else dict(zip(("mean", "std", "chosen_by"), chosen, strict=True)),
        "clips_per_s": [run.result.get("clips_per_s") for run in found.runs],
        "hardware": sorted({str(run.result.get("hardware", "")) for run in found.runs}),
        "against": None,
    }  # fmt: skip
    if against is not None:
        difference, spread = mean_std(against.differences)
        gained, lost = moved(against, found.runs[0].scores.classes.tolist())
        content["against"] = {
            **against.baseline.key, "seeds": list(against.seeds),
            "difference": {"each": list(against.differences), "mean": difference, "std": spread},
            "only_baseline": against.added[0], "only_this": against.added[1], "p": mcnemar(*against.added),
            "each": [{"seed": seed, "only_baseline": first, "only_this": second, "p": mcnemar(first, second)}
                     for seed, (first, second) in zip(against.seeds, against.counts, strict=True)],
            "gained": dict(gained), "lost": dict(lost),
        }  # fmt: skip
    return content


FIGURES = 7  # columns of HEADER about the group alone
HEADER = ("group", "seeds", "accuracy", "95 %", "mean of classes", "best", "clips/s", "against", "McNemar", "p")


def name_of(found: dict[str, Any], varying: Sequence[str]) -> str:
    """A group by what tells it from the others."""
    return " ".join(str(found[name]) for name in varying if found[name])


def cells(row: dict[str, Any], varying: Sequence[str]) -> list[str]:
    """A group's row of the table (see HEADER), from its `report`; per cent, and points for differences."""
    low, high = row["accuracy"]["wilson"]
    chosen, against = row["best"], row["against"]
    pace = [value for value in row["clips_per_s"] if value is not None]
    first = [
        name_of(row, varying),
        " ".join(map(str, row["seeds"])),
        _percent(row["accuracy"]["mean"], row["accuracy"]["std"]),
        f"{100 * low:.1f} to {100 * high:.1f}",
        f"{100 * row['mean_class_accuracy']:.2f}",
        f"{_percent(chosen['mean'], chosen['std'])} on {chosen['chosen_by']}" if chosen else "",
        f"{mean_std(pace)[0]:.0f}" if pace else "",
    ]
    if against is None:
        return [*first, "", "", ""]
    difference = against["difference"]
    counts = f"{against['only_baseline']} : {against['only_this']}"
    points = _percent(difference["mean"], difference["std"], "+")
    return [*first, f"{points} {name_of(against, varying)}", counts, f"{against['p']:.2g}"]


def _percent(mean: float, deviation: float | None, sign: str = "") -> str:
    """Per cent with its deviation, where there is one."""
    return f"{100 * mean:{sign}.2f}" + ("" if deviation is None else f" ± {100 * deviation:.2f}")


def _lines(rows: Sequence[dict[str, Any]], varying: Sequence[str]) -> list[str]:
    """What the table has no room for: the classes that moved, and the hardware."""
    lines = []
    for row in rows:
        if row["against"] is not None:
            moves = {way: ", ".join(f"{k} {100 * v:+.1f}" for k, v in row["against"][way].items()) or "none"
                     for way in ("gained", "lost")}  # fmt: skip
            lines.append(f"{name_of(row, varying)}: gained most: {moves['gained']}; lost most: {moves['lost']}")
    hardware = sorted({name for row in rows for name in row["hardware"] if name})
    return [*lines, f"clips/s on: {'; '.join(hardware)}"] if hardware else lines


def markdown(rows: Sequence[dict[str, Any]], varying: Sequence[str], title: str) -> str:
    """The table and what stands below it."""
    table = [HEADER, ("---",) * len(HEADER), *(cells(row, varying) for row in rows)]
    text = [title, "", *("| " + " | ".join(line) + " |" for line in table), ""]
    return "\n".join([*text, *(f"* {line}" for line in (*_lines(rows, varying), *HOW.splitlines()))]) + "\n"


def _print(rows: Sequence[dict[str, Any]], varying: Sequence[str], title: str, console: Console) -> None:
    """The table for people, in two that fit a terminal: the groups, and what each is against its baseline."""
    lines = [cells(row, varying) for row in rows]
    first, second = Table(*HEADER[:FIGURES], title=title), Table(HEADER[0], *HEADER[FIGURES:])
    for line, row in zip(lines, rows, strict=True):
        first.add_row(*line[:FIGURES])
        if row["against"] is not None:
            second.add_row(line[0], *line[FIGURES:])
    console.print(first)
    if second.row_count:
        console.print(second)


def _warn(
    groups: Sequence[Group], candidates: Sequence[Group], rows: Sequence[dict[str, Any]], console: Console
) -> None:
    """Says which groups are not what they seem, and which have nothing to be compared with."""
    for found, row in zip(groups, rows, strict=True):
        folders = ", ".join(str(run.folder) for run in found.runs)
        said = []
        if apart := settings_apart(found):
            said.append(
                f"count as seeds of one group but differ in {', '.join(apart)}; train.fit --label keeps them apart"
            )
        if row["against"] is None and not any(found is candidate for candidate in candidates):
            said.append("share no seed with the baseline and are not compared with it")
        for what in said:
            console.print(f"warning: {folders} {what}", style="yellow", markup=False, soft_wrap=True)


def run(config: Config, console: Console) -> int:
    """Reads, groups, compares, writes and prints."""
    if not config.runs:
        raise UsageError("nothing to compare; name finished run folders")
    check_writable(config.json)
    check_writable(config.markdown)
    groups = group(same_clips([load_run(folder) for folder in config.runs]))
    candidates = baselines(groups, config.baseline)
    rows = [report(found, contrast(found, candidates)) for found in groups]
    _warn(groups, candidates, rows, console)
    varying = ["method", *(k for k in KEY[1:] if len({found.key[k] for found in groups}) > 1)]
    common = ", ".join(f"{k} {groups[0].key[k]}" for k in KEY if k not in varying and groups[0].key[k])
    title = f"{rows[0]['clips']} test clips; {common}"
    if config.json:
        write_json(config.json, {"how": HOW.splitlines(), "groups": rows})
    if config.markdown:
        write_text(config.markdown, markdown(rows, varying, title))
    _print(rows, varying, title, console)
    console.print("\n".join([*_lines(rows, varying), HOW]), markup=False, soft_wrap=True)
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "train.compare", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
