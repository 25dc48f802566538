"""Says what this machine has, what the line lacks on it, and what to do: `python -m realtime.doctor`.

Exit codes: 0 the line can run here, 1 it cannot (at least one row is "missing"), 2 usage. A row marked "note" is
worth knowing and stops nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

if TYPE_CHECKING:  # at run time it needs packages that this program is there to miss
    from realtime.probe import Check

EXAMPLES = """examples:
  python -m realtime.doctor
  python -m realtime.doctor --json | python -m json.tool
  python -m realtime.doctor --bundle my_bundle --port 5600"""


@dataclass(frozen=True)
class Doctor:
    """Look at this machine: can the line run here, and what would make it run better?"""

    json: bool = False
    """Print JSON (schema doctor/1) instead of tables."""
    bundle: Path | None = None
    """Bundle folder to check. Default: the one that ships."""
    port: int = 5556
    """TCP port that the line is going to publish on."""


def as_json(checks: Sequence[Check], can_run: bool) -> str:
    """One JSON document of every row."""
    document = {"schema": "doctor/1", "can_run": can_run, "checks": [asdict(check) for check in checks]}
    return json.dumps(document, indent=2)


def show(checks: Sequence[Check]) -> None:
    """Prints one table of all rows, and the verdict."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    colours = {"ok": "green", "note": "yellow", "missing": "bold red"}
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(min_width=22, overflow="fold")
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    group = ""
    for check in checks:
        if check.group != group:
            group = check.group
            table.add_row(Text(group, style="bold"))
        said = Text(check.found)
        if check.advice:
            said.append(f"\n-> {check.advice}", style="cyan")
        table.add_row(Text(f"  {check.name}"), Text(check.state, style=colours[check.state]), said)
    console.print(table)
    lacking = [check.name for check in checks if check.state == "missing"]
    if lacking:
        console.print(Text(f"The line cannot run here yet: see {', '.join(lacking)}.", style="bold red"))
    else:
        camera = any(check.name.startswith("/dev/video") and check.state == "ok" for check in checks)
        source = "--camera 0" if camera else "--source synthetic"
        console.print(Text(f"The line can run here: python -m realtime.run {source}", style="bold green"))


def main() -> int:
    """The command line; the exit codes are those of the module's text."""
    try:
        import rich  # noqa: F401
        import tyro

        from realtime.checks import can_run, examine
    except ImportError as error:
        print(f"realtime.doctor: {error}; run `make install` in the project's folder", file=sys.stderr)
        return 1
    described = f"{Doctor.__doc__}\n\nexit codes: 0 the line can run, 1 it cannot, 2 usage\n\n{EXAMPLES}"
    options = tyro.cli(
        Annotated[Doctor, tyro.conf.FlagCreatePairsOff], prog="python -m realtime.doctor", description=described
    )
    checks = examine(options.bundle, options.port)
    if options.json:
        print(as_json(checks, can_run(checks)))
    else:
        show(checks)
    return 0 if can_run(checks) else 1


if __name__ == "__main__":
    sys.exit(main())
