"""Prints or writes sentences about the clips of a prepared set: python -m train.describe --help."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from realtime.command import run_command
from realtime.errors import UsageError
from train.checkpoint import check_writable, write_text
from train.data.prepared import Prepared, load
from train.describe import SENTENCES, describe

EXAMPLES = """examples:
  python -m train.describe --prepared prepared/nw_ucla --every 100
  python -m train.describe --prepared prepared/nw_ucla --clips a01_s01_e00_v01 --sentences 4
  python -m train.describe --prepared prepared/nw_ucla --out sentences.jsonl
a line is {"name": clip, "label": class, "sentences": [...]}; python -m train.knowledge makes features of them
"""


@dataclass(frozen=True)
class Config:
    """Say in sentences what the people of a prepared set do, from their skeletons alone."""

    prepared: Path
    """Folder that train.prepare wrote."""
    out: Path | None = None
    """Write JSON lines here instead of printing them."""
    sentences: int = SENTENCES
    """Sentences a clip, at most."""
    clips: tuple[str, ...] = ()
    """Only the clips of these names."""
    every: int = 1
    """Only every so-manieth clip."""


def chosen(config: Config, prepared: Prepared) -> list[int]:
    """Rows of the clips asked for; UsageError for a name that is not there, and for numbers below 1."""
    if min(config.sentences, config.every) < 1:
        raise UsageError(f"--sentences and --every are 1 or more, got {config.sentences} and {config.every}")
    place = {str(name): row for row, name in enumerate(prepared.name)}
    lost = [name for name in config.clips if name not in place]
    if lost:
        raise UsageError(f"{config.prepared} has no clip {lost[0]}; its clips are such as {prepared.name[0]}")
    return [place[name] for name in config.clips] or list(range(0, len(prepared), config.every))


def lines(config: Config, prepared: Prepared) -> Iterator[str]:
    """A line of JSON for each clip asked for."""
    for row in chosen(config, prepared):
        told = describe(prepared.clip(row), prepared.layout, prepared.fps, count=config.sentences)
        label = prepared.classes[int(prepared.label[row])]
        yield json.dumps({"name": str(prepared.name[row]), "label": label, "sentences": told}, ensure_ascii=False)


def run(config: Config, console: Console) -> int:
    """Prints or writes the lines."""
    check_writable(config.out)
    prepared = load(config.prepared, verify=False)
    if config.out is None:
        for line in lines(config, prepared):
            print(line)
        return 0
    told = list(lines(config, prepared))
    write_text(config.out, "".join(line + "\n" for line in told))
    console.print(f"{config.out}: {len(told)} clips", soft_wrap=True)
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "train.describe", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
