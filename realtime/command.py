"""How every program of the project reads its flags and ends: help with examples, one clear line, exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import tyro
from rich.console import Console

from realtime.errors import LineError
from realtime.logs import tell_error
from realtime.secrets import scrub, scrub_everything

Flags = TypeVar("Flags")


def parse(kind: type[Flags], prog: str, examples: str, args: list[str] | None = None) -> Flags:
    """The flags as a `kind` (a frozen dataclass). --help ends with the examples; wrong flags exit with code 2.

    Help names a switch once, as --loop; --no-loop is taken too, and takes back what a configuration file says.
    """
    try:
        flat: Any = tyro.conf.OmitArgPrefixes[kind]  # type: ignore[valid-type, misc]
        if {"-h", "--help"} & set(sys.argv[1:] if args is None else args):
            flat = tyro.conf.FlagCreatePairsOff[flat]  # type: ignore[misc]
        return tyro.cli(flat, prog=f"python -m {prog}", description=kind.__doc__, args=args)
    except SystemExit as end:
        if end.code in (0, None):
            print(examples)
        raise


def gather(args: list[str], *switches: str) -> list[str]:
    """Flags first, then the words: on a command line whose words are one list, a flag may stand among them.

    switches: the flags that take no value.
    """
    flags: list[str] = []
    words: list[str] = []
    waiting = iter(args)
    for one in waiting:
        if not one.startswith("-"):
            words.append(one)
            continue
        flags.append(one)
        if one.startswith("--") and "=" not in one and one not in ("--help", *switches):
            flags += [value for value in (next(waiting, None),) if value is not None]
    return flags + words


class _Console(Console):
    """Leaves a broken pipe to `run_command`; rich would exit with 1."""

    def on_broken_pipe(self) -> None:
        raise  # rich calls this where it has caught the BrokenPipeError


def run_command(
    kind: type[Flags],
    prog: str,
    examples: str,
    body: Callable[[Flags, Console], int],
    read: Callable[[type[Flags], str, str], Flags] = parse,
) -> int:
    """Reads the flags, runs the body and returns its exit code; a LineError becomes one line and its own code."""
    console = _Console(stderr=True, highlight=False)
    scrub_everything()
    try:
        return body(read(kind, prog, examples), console)
    except LineError as error:
        tell_error(console, scrub(str(error)))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
