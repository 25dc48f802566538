"""Several cameras on one machine, each a line of its own: python -m realtime.fleet cameras.toml

Every line is a process; one that fails or hangs is started again and disturbs no other.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

import tyro
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from realtime.command import run_command
from realtime.config import Settings, as_toml, read_cameras
from realtime.errors import UsageError
from realtime.logs import LINES_A_MINUTE, Limit, set_up
from realtime.notify import Notifier
from realtime.process import FAILING, LineProcess, Pace
from realtime.settings import check

EXAMPLES = """examples:
  python -m realtime.fleet cameras.toml                 every camera of the file, until Ctrl-C
  python -m realtime.fleet cameras.toml --check         look at settings, bundles, sources and addresses, and end
  python -m realtime.fleet cameras.toml --print-config  every setting of every camera, and where it comes from
  python -m realtime.run --config cameras.toml --name door   one of them alone, in this terminal

exit codes: 0 stopped by SIGTERM, or every source is over; 2 or 3 every camera was given up, the worst of their codes;
  130 Ctrl-C. docs/operations.md describes the file
"""
BREATH_S = 0.1  # how often processes are looked at
DRAWN_S = 0.5
COLOURS = {"running": "green", "starting": "yellow", "waiting": "red", "given up": "bold red"}


@dataclass(frozen=True)
class FleetFlags:
    """Run every camera of a configuration file, each in its own process, and start again what fails."""

    file: Annotated[Path, tyro.conf.Positional]
    """TOML file with a table [camera.NAME] for each camera."""
    check: bool = False
    """Check every camera's settings, bundle, source and addresses, say what was found, and end."""
    print_config: bool = False
    """Print every setting of every camera with its origin, and end."""
    quiet: bool = False
    """Print errors only."""
    log_json: bool = False
    """Print JSON lines, for machines."""


class Fleet:
    """The processes of all cameras and the loop that looks after them."""

    def __init__(self, children: Sequence[LineProcess], notifier: Notifier, live: Live | None = None) -> None:
        self._children, self._notifier, self._live = children, notifier, live
        self._code: int | None = None
        self._said = ""
        self._drawn_s = 0.0

    def run(self) -> int:
        """Until a signal ends it or no camera is left; returns the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._hear)
        self._notifier.ready(f"{len(self._children)} cameras")
        try:
            while not all(child.over for child in self._children):
                self._turn()
        finally:
            self._notifier.stopping()
            for child in self._children:
                child.close()
        if self._code is not None:
            return self._code
        return max((child.code for child in self._children if child.state == "given up"), default=0)

    def _turn(self) -> None:
        for child in self._children:
            if self._code is not None:
                child.end()
            child.tend()
        self._wait()
        self._notifier.alive()
        self._tell()

    def _wait(self) -> None:
        """Until somebody says something, at most a breath."""
        with selectors.DefaultSelector() as selector:
            for child in self._children:
                selector.register(child.socket, selectors.EVENT_READ, (child, True))
                if child.output is not None:
                    selector.register(child.output, selectors.EVENT_READ, (child, False))
            begun_s = time.monotonic()
            for key, _ in selector.select(BREATH_S):
                child, is_socket = key.data
                if is_socket:
                    child.hear()
                else:
                    child.read()
        if time.monotonic() - begun_s < BREATH_S / 10:
            time.sleep(BREATH_S / 10)  # a pipe that was closed is always ready

    def _tell(self) -> None:
        running = sum(child.state == "running" for child in self._children)
        failing = [child.name for child in self._children if child.failures >= FAILING or child.state == "given up"]
        said = f"{running} of {len(self._children)} cameras run" + (
            f"; failing: {', '.join(failing)}" if failing else ""
        )
        if said != self._said:
            self._said = said
            self._notifier.status(said)
        if self._live is not None and time.monotonic() - self._drawn_s >= DRAWN_S:
            self._drawn_s = time.monotonic()
            self._live.update(picture(self._children), refresh=True)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._code is not None:  # the second one
            for child in self._children:
                child.kill()
        self._code = 130 if number == signal.SIGINT else 0


def picture(children: Sequence[LineProcess]) -> Table:
    """The table on a terminal: a row for each camera."""
    table = Table(box=None, padding=(0, 1))
    for heading in ("camera", "state", "process", "up", "starts", ""):
        table.add_column(heading, justify="right" if heading in ("up", "starts") else "left", no_wrap=heading != "")
    for child in children:
        up = f"{child.up_s // 3600:.0f}:{child.up_s // 60 % 60:02.0f}:{child.up_s % 60:02.0f}" if child.up_s else ""
        state = Text(child.state, style=COLOURS.get(child.state, ""))  # no markup: a status may hold brackets
        table.add_row(Text(child.name), state, str(child.pid or ""), up, str(child.starts), Text(child.status))
    return table


def command_of(path: Path, name: str, *flags: str) -> list[str]:
    """The line of one camera; its source stays in the file, so no password is seen among the processes."""
    return [sys.executable, "-m", "realtime.run", "--config", str(path), "--name", name, *flags]


def is_endless(settings: Settings) -> bool:
    """Whether a camera's source has no end of its own, so that its end is a failure."""
    given = settings.config.input
    device = given.source.isdecimal() or given.source.startswith("/dev/") or "://" in given.source
    return (device or given.loop or given.source_from is not None) and given.duration is None


def run(flags: FleetFlags, console: Console) -> int:
    """Reads the file, starts the lines and looks after them; LineError says what is wrong."""
    cameras = read_cameras(flags.file)
    if flags.print_config:
        print("\n".join(as_toml(one, one.config.input.name) for one in cameras), end="")
        return 0
    for one in cameras:
        _check(flags.file, one)
    if flags.check:
        return check_each(flags.file, cameras)
    notifier = Notifier.from_environment()
    limit = Limit(lines_a_minute=LINES_A_MINUTE * (len(cameras) + 1))
    logs = set_up(console, quiet=flags.quiet, as_json=flags.log_json, limit=limit)
    shared = [flag for flag, wanted in (("--quiet", flags.quiet), ("--log-json", flags.log_json)) if wanted]

    def tell(name: str, text: str, level: int) -> None:
        logs.say(f"{name}: {text}", "realtime.fleet", level)

    def pass_on(name: str, line: str) -> None:
        if logs.as_json and line.startswith("{"):
            logs.write(line)
        else:  # a quiet line says errors only
            logs.say(f"{name} | {line}", "realtime.fleet", logging.ERROR)

    with ExitStack() as opened:
        opened.callback(logs.flush)
        opened.callback(notifier.close)
        children = []
        for one in cameras:
            name = one.config.input.name or ""
            child = LineProcess(name, command_of(flags.file, name, *shared), tell, pass_on, endless=is_endless(one))
            opened.callback(child.close)
            children.append(child)
        live = None
        if console.is_terminal and not (flags.quiet or flags.log_json):
            live = opened.enter_context(Live(picture(children), console=console, auto_refresh=False, transient=True))
        return Fleet(children, notifier, live).run()


def _check(path: Path, settings: Settings) -> None:
    name = settings.config.input.name
    if settings.config.input.source == "-":
        raise UsageError(f"{path}: camera {name} reads standard input, which a fleet has none of; name another source")
    if (settings.config.output.wait_subscriber or 0) >= Pace().ready_s:
        raise UsageError(
            f"{path}: camera {name}: wait-subscriber must be below {Pace().ready_s:g} s in a fleet, which would take a "
            "line that waits longer for one that hangs"
        )
    try:
        check(settings.config)
    except UsageError as error:
        raise UsageError(f"{path}: camera {name}: {error}") from error


def check_each(path: Path, cameras: Sequence[Settings]) -> int:
    """--check of every camera, one after the other; the worst of their exit codes."""
    codes = []
    for one in cameras:
        name = one.config.input.name or ""
        print(f"{name}:", flush=True)
        done = subprocess.run(command_of(path, name, "--check"), env=os.environ, stdin=subprocess.DEVNULL, check=False)
        codes.append(done.returncode if done.returncode >= 0 else 1)
    return max(codes)


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(FleetFlags, "realtime.fleet", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
