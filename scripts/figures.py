"""Measured figures and their bounds: as a table on standard output, and as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from realtime.errors import UsageError


@dataclass(frozen=True)
class Figure:
    """One measured figure and its bound; `least` says that it must not be below it, else not above."""

    name: str
    value: float
    bound: float
    unit: str
    least: bool = False
    note: str = ""

    @property
    def good(self) -> bool:
        """Whether it is within its bound."""
        return bool(self.value >= self.bound if self.least else self.value < self.bound)


def show(figures: list[Figure], title: str) -> None:
    """The table on standard output."""
    table = Table("figure", "measured", "bound", "", "how", title=title, title_justify="left")
    for one in figures:
        rule = "at least" if one.least else "below"
        table.add_row(
            one.name,
            f"{one.value:.3g} {one.unit}",
            f"{rule} {one.bound:g} {one.unit}",
            "[green]ok" if one.good else "[red]FAILED",
            one.note,
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def write(path: Path, figures: list[Figure], machine: str, video: Path) -> None:
    """The figures as JSON, whole or not at all."""
    document = {
        "machine": machine,
        "video": video.name,
        "good": all(one.good for one in figures),
        "figures": [asdict(one) | {"good": one.good} for one in figures],
    }
    made = path.with_name(path.name + ".partial")
    try:
        made.write_text(json.dumps(document, indent=1) + "\n")
        made.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; name another file") from error
