"""Shows, checks and writes the texts of classes: python -m train.prompts --help."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from realtime.command import run_command
from realtime.errors import LineError, UsageError
from train.prompts import ClassText, Prompts, load
from train.prompts.filters import Similarity, by_kind, problems

EXAMPLES = """examples:
  python -m train.prompts show nw_ucla throw
  python -m train.prompts check nw_ucla
  python -m train.prompts write --classes my_classes.txt --endpoint http://127.0.0.1:8000/v1 --model NAME --out my.json
  PCLE_API_KEY=... python -m train.prompts write --classes ntu120 --endpoint https://HOST/v1 --model NAME --out my.json
  python -m train.prompts write --classes ntu120 --local DIR --out my.json
a line of my_classes.txt is a label, a tab and a name in words, or the name alone
"""


@dataclass(frozen=True)
class Show:
    """Print the texts of a set, or of one of its classes."""

    prompts: tyro.conf.Positional[str]
    """A set that ships (ntu120 pku_mmd nw_ucla utd_mhad utkinect msr_action3d msrc12 sbu pooled), or a .json file."""
    label: tyro.conf.Positional[str | None] = None
    """Only this class."""


@dataclass(frozen=True)
class Check:
    """Hold prompts to the rules: labels, counts, lengths, duplicates, homonyms. Code 2 where one is broken."""

    prompts: tyro.conf.Positional[str]
    """A .json file, or a set that ships."""


@dataclass(frozen=True)
class Write:
    """Ask a language model for the texts of classes (PCKE).

    Three questions a class; answers are kept, so that the same command goes on where it was interrupted.
    """

    classes: str
    """File of classes, or a set that ships, for its labels and names."""
    out: Path
    """Write the prompts here; the texts that were refused go beside them, to NAME.refused.json."""
    endpoint: str | None = None
    """Address of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1."""
    model: str | None = None
    """The model's name at the endpoint."""
    local: str | None = None
    """Instead of an endpoint: folder (or cached id) of a language model that runs here, through transformers."""
    key_env: str = "PCLE_API_KEY"
    """Environment variable with the endpoint's key; without it no key is sent."""
    answers: Path | None = None
    """Folder of kept answers; beside --out as NAME.answers where not given."""
    timeout_s: float = 120.0
    """How long one answer may take, in seconds."""
    tries: int = 5
    """How often a busy or unreachable endpoint is asked."""
    similarity: bool = True
    """Also refuse synonyms that the text encoder all-MiniLM-L6-v2 finds far from the class name."""


@dataclass(frozen=True)
class Config:
    """Texts of the classes: show, check, or have a language model write them."""

    command: (
        Annotated[Show, tyro.conf.subcommand("show", prefix_name=False)]
        | Annotated[Check, tyro.conf.subcommand("check", prefix_name=False)]
        | Annotated[Write, tyro.conf.subcommand("write", prefix_name=False)]
    )


def _show(command: Show) -> int:
    prompts = load(command.prompts)
    labels = prompts.classes if command.label is None else (command.label,)
    print(f"{prompts.data}: {len(prompts.classes)} classes, {prompts.author}")
    for label, text in zip(labels, prompts.pick(labels), strict=True):
        print(f"\n{label}: {text.name}")
        print(_indented(text))
    return 0


def _indented(text: ClassText) -> str:
    parts = [f"  {part:6}{phrase}" for part, phrase in text.parts.items()]
    return "\n".join([*(f"  - {synonym}" for synonym in text.synonyms), f"  {text.sentence}", *parts])


def _faults(prompts: Prompts) -> list[str]:
    from train.prompts.labels import labels_of  # here: its readers load scipy, which showing texts does not need

    return problems(prompts, labels_of(prompts.data))


def _check(command: Check) -> int:
    prompts = load(command.prompts)
    faults = _faults(prompts)
    for line in faults:
        print(line)
    if faults:
        raise UsageError(f"{command.prompts} breaks {len(faults)} rules; correct the lines above")
    texts = sum(len(text.synonyms) for text in prompts.texts.values())
    print(f"{prompts.data}: {len(prompts.texts)} classes, {texts} synonyms, no rule broken")
    return 0


def _write(command: Write, console: Console) -> int:
    from train.checkpoint import check_writable, write_json  # here: showing and checking texts needs no torch
    from train.prompts.engine import TEMPERATURE, Endpoint, KnowledgeEngine, Remembered
    from train.prompts.write import as_prompts, harvest, read_classes, refusals_json

    both, neither = command.endpoint and command.local, not (command.endpoint or command.local)
    if both or neither or bool(command.endpoint) != bool(command.model):
        raise UsageError("give --endpoint URL with --model NAME, or --local DIR; see --help")
    if command.out.suffix != ".json":
        raise UsageError(f"--out must end in .json, by which prompts are known, got {command.out}")
    if command.timeout_s <= 0 or command.tries < 1:
        raise UsageError(f"timeout must be above 0 and tries at least 1, got {command.timeout_s}, {command.tries}")
    data, names = read_classes(command.classes)
    refused_path = command.out.with_suffix(".refused.json")
    for path in (command.out, refused_path):
        check_writable(path)
    engine: KnowledgeEngine
    if command.endpoint and command.model:
        engine = Endpoint(command.endpoint, command.model, command.key_env, command.timeout_s, command.tries)
    else:
        from train.prompts.local import LocalModel

        engine = LocalModel(str(command.local))
    similarity = _similarity(console) if command.similarity else None
    kept = Remembered(engine, command.answers or command.out.with_suffix(".answers"))
    try:
        with _Shown(console, len(names)) as shown:
            found = harvest(names, kept, similarity, shown.told)
    except (KeyboardInterrupt, LineError):
        console.print(f"answers so far are kept in {kept.folder}; the same command goes on", markup=False)
        raise
    write_json(refused_path, refusals_json(found.refused))
    counts = ", ".join(f"{number} {kind}" for kind, number in by_kind(found.refused).items()) or "none"
    console.print(f"refused {counts}: {refused_path}", markup=False, soft_wrap=True)
    prompts = as_prompts(data, f"written by {engine.name} at temperature {TEMPERATURE}", found, kept.folder)
    write_json(command.out, prompts.to_json())
    for line in _faults(prompts):
        console.print(f"note: {line}", markup=False, soft_wrap=True)
    console.print(
        f"{command.out}: {len(prompts.texts)} classes, {kept.asked} questions asked, {kept.known} known; "
        f"read them with: python -m train.prompts show {command.out}", markup=False, soft_wrap=True,
    )  # fmt: skip
    return 0


def _similarity(console: Console) -> Similarity | None:
    """Cosine of two texts' features by all-MiniLM-L6-v2; None, and said so, where it is not installed."""
    from torch.nn.functional import cosine_similarity

    from train.text import open_encoder

    try:
        encoder = open_encoder("all-MiniLM-L6-v2")
    except LineError as error:
        console.print(f"homonyms are found by the list alone: {error}", markup=False, soft_wrap=True)
        return None

    def similarity(one: str, other: str) -> float:
        features = encoder.encode([one, other])
        return float(cosine_similarity(features[0], features[1], dim=0))

    return similarity


class _Shown:
    """Progress with the time left: a bar on a terminal, else a line a class."""

    def __init__(self, console: Console, classes: int) -> None:
        self._console, self._classes = console, classes
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("past"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("asking", total=classes)

    def __enter__(self) -> _Shown:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def told(self, number: int, label: str, synonyms: int, refused: int) -> None:
        """After a class."""
        self._bar.update(self._task, completed=number, description=f"{label}, {refused} texts refused")
        if not self._console.is_terminal:
            left_s = self._bar.tasks[0].time_remaining
            left = f", about {left_s:.0f} s left" if left_s is not None else ""
            line = f"{number}/{self._classes} {label}: {synonyms} synonyms, {refused} texts refused in all{left}"
            self._console.print(line, markup=False, soft_wrap=True)


def run(config: Config, console: Console) -> int:
    """Does what the first word says."""
    if isinstance(config.command, Show):
        return _show(config.command)
    if isinstance(config.command, Check):
        return _check(config.command)
    return _write(config.command, console)


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "train.prompts", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
