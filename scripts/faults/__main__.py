"""Breaks things on purpose and prints what came of it: `python -m scripts.faults`, or `make faults`.

Each row ends in ok or FAILED, with the measured figure and the bound that it is held to. Exit code 0 when all hold,
1 when one does not, 2 for usage, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from realtime.command import run_command
from realtime.errors import LineError, UsageError
from scripts.faults import artifacts, bus, files, hostile, poses, processes, sources
from scripts.faults.fault import Failed, Fault

EXAMPLES = """examples:
  python -m scripts.faults                       every fault, about half an hour
  python -m scripts.faults --list                what there is
  python -m scripts.faults --only F04 F16        some of them
  python -m scripts.faults --json out.json --markdown rows.md
"""
FAULTS: tuple[Fault, ...] = (
    *processes.FAULTS,
    *sources.FAULTS,
    *poses.FAULTS,
    *bus.FAULTS,
    *hostile.FAULTS,
    *artifacts.FAULTS,
    *files.FAULTS,
)


@dataclass(frozen=True)
class Config:
    """Break things on purpose while the real line runs, and hold what comes of it to its bounds."""

    only: tuple[str, ...] = ()
    """Keys of the faults to run. Default: all."""
    list: bool = False
    """Print what there is, and end."""
    json: Path | None = None
    """Write the rows to this file as JSON."""
    markdown: Path | None = None
    """Write the rows to this file as a table for docs/reliability.md."""


@dataclass(frozen=True)
class Row:
    """One fault's outcome. value: None where it could not be measured."""

    key: str
    name: str
    how: str
    promise: str
    bound: float
    unit: str
    value: float | None
    good: bool
    note: str
    seconds: float


def judged(fault: Fault) -> Row:
    """Runs one fault in a folder of its own; whatever goes wrong in it is a FAILED row, not the end of the matrix."""
    begun = time.monotonic()
    value: float | None = None
    with tempfile.TemporaryDirectory(prefix=f"fault-{fault.key}-") as folder:
        try:
            measured = fault.run(Path(folder))
            value, note = measured.value, measured.note
        except (Failed, LineError, OSError, AssertionError, ValueError, TimeoutError) as error:
            note = f"{type(error).__name__}: {error}" if not isinstance(error, Failed) else str(error)
    good = value is not None and value <= fault.bound
    return Row(
        fault.key, fault.name, fault.how, fault.promise, fault.bound, fault.unit, value, good, note,
        round(time.monotonic() - begun, 1),
    )  # fmt: skip


def line_of(row: Row) -> str:
    """The row as it is printed."""
    figure = "-" if row.value is None else f"{row.value:.3g}"
    verdict = "ok" if row.good else "FAILED"
    note = f" ({row.note})" if row.note else ""
    return f"{row.key:5} {row.name}: {row.promise}: {figure} of {row.bound:g} {row.unit}{note}  {verdict}"


def markdown_of(rows: list[Row]) -> str:
    """The rows as a table."""
    lines = ["| # | fault | what is done | promise | measured | bound | |", "|---|---|---|---|---:|---:|---|"]
    for row in rows:
        figure = "-" if row.value is None else f"{row.value:.3g} {row.unit}"
        lines.append(
            f"| {row.key} | {row.name} | {row.how} | {row.promise} | {figure} | {row.bound:g} {row.unit} | "
            f"{'ok' if row.good else '**FAILED**'} |"
        )
    return "\n".join(lines) + "\n"


def run(config: Config, console: Console) -> int:
    """Runs the chosen faults one after the other; returns the exit code."""
    keys = {fault.key for fault in FAULTS}
    if unknown := set(config.only) - keys:
        raise UsageError(f"no fault {', '.join(sorted(unknown))}; known: {' '.join(fault.key for fault in FAULTS)}")
    chosen = [fault for fault in FAULTS if not config.only or fault.key in config.only]
    if config.list:
        for fault in chosen:
            print(f"{fault.key:5} {fault.name}: {fault.how}; {fault.promise} at most {fault.bound:g} {fault.unit}")
        return 0
    print(f"{len(chosen)} faults on {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    begun, rows = time.monotonic(), []
    for number, fault in enumerate(chosen, 1):
        with console.status(f"{number} of {len(chosen)}: {fault.key} {fault.name}"):
            rows.append(judged(fault))
        print(line_of(rows[-1]), flush=True)
    bad = [row.key for row in rows if not row.good]
    spent = time.monotonic() - begun
    print(f"{len(rows) - len(bad)} ok, {len(bad)} FAILED{': ' + ' '.join(bad) if bad else ''}, in {spent / 60:.1f} min")
    if config.json is not None:
        config.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if config.markdown is not None:
        config.markdown.write_text(markdown_of(rows))
    return 1 if bad else 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "scripts.faults", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
