"""Makes a knowledge folder of a prepared set, or of live windows: python -m train.knowledge --help."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from realtime.command import run_command
from realtime.errors import UsageError
from train.batches import POOLED, load_pool
from train.checkpoint import make_folder
from train.data.prepared import load
from train.describe import SENTENCES
from train.device import pick_device
from train.knowledge import captions
from train.knowledge.make import (
    Advance,
    Made,
    described,
    described_pool,
    distinct_of,
    earlier,
    finish,
    models_of,
    seen,
    with_language,
)
from train.knowledge.pictures import Eyes
from train.knowledge_folder import LANGUAGE, VISION
from train.knowledge_folder import load as load_knowledge
from train.knowledge_folder import sentences as sentences_of
from train.settings import Config as Recogniser
from train.settings import refuse
from train.text import SENTENCES as MINILM
from train.text import open_encoder

FRAMES = 16
EXAMPLES = """examples:
  python -m train.knowledge describe --prepared prepared/ntu60 --out knowledge/ntu60
  python -m train.knowledge captions --file pku_mmd2_captions.zip --prepared prepared/pku_mmd2 --out knowledge/pku
  python -m train.knowledge frames --pictures rgb --prepared prepared/ntu60 --out knowledge/ntu60 \\
      --detector IDEA-Research/grounding-dino-base --answerer llava-hf/llava-1.5-7b-hf --encoder ViT-L-14-336 \\
      --text-weights open_clip_model.safetensors --vision ViT-L-14-336 --vision-weights open_clip_model.safetensors
  python -m train.knowledge show --folder knowledge/ntu60 --clip S001C001P001R001A001
nothing is downloaded, but CLIP's weights by open_clip where no file is named; all-MiniLM-L6-v2 works offline
"""


@dataclass(frozen=True, kw_only=True)
class Language:
    """How sentences become features."""

    out: Path
    """Knowledge folder to write; a run that was interrupted goes on there."""
    encoder: str = MINILM
    """Text encoder: all-MiniLM-L6-v2, ViT-B-32, ViT-B-16, ViT-L-14 or ViT-L-14-336."""
    text_weights: Path | None = None
    """The encoder's weights, where they are not found by themselves."""
    aggregate: Literal["mean", "distinct", "medoid"] = "mean"
    """A clip's feature: mean of its sentences', mean of the different ones', or of the sentence nearest the mean."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models run."""


@dataclass(frozen=True, kw_only=True)
class Describe(Language):
    """Say what the skeletons do, from the skeletons alone: no pictures, no network."""

    prepared: Path | None = None
    """Folder that train.prepare wrote."""
    data: tuple[str, ...] = ()
    """Or live windows, as train.pretrain takes them: data sets as NAME:PATH."""
    held_out: tuple[str, ...] = ()
    """Subjects kept out of live windows, as NAME:S1,S2."""
    fps: float = Recogniser.fps
    """Frame rate of live windows."""
    sentences: int = SENTENCES
    """Sentences a clip, at most."""


@dataclass(frozen=True, kw_only=True)
class Captions(Language):
    """Take sentences from a file: JSON, clip -> list of sentences, or a .zip of it, such as C²VL's for PKU-MMD II."""

    file: Path
    """The .json or .zip."""
    prepared: Path | None = None
    """Folder that train.prepare wrote; without it the clips are those of the file."""


@dataclass(frozen=True, kw_only=True)
class Frames(Language):
    """Look at pictures of the clips: people by Grounding DINO, what they do by LLaVA, features by CLIP.

    Each model is asked for by its flag; without --detector whole pictures are looked at.
    """

    prepared: Path
    """Folder that train.prepare wrote."""
    pictures: Path
    """Folder with a folder of pictures or a video for each clip: NAME/*.jpg, NAME.mp4 or NAME_rgb.avi."""
    frames: int = FRAMES
    """Pictures a clip, evenly spaced."""
    detector: str | None = None
    """Folder or cached id of a Grounding DINO, such as IDEA-Research/grounding-dino-base."""
    answerer: str | None = None
    """Folder or cached id of a LLaVA, such as llava-hf/llava-1.5-7b-hf; its answers become language.npy."""
    vision: str | None = None
    """Image tower of CLIP by open_clip's name, such as ViT-L-14-336; its features become vision.npy."""
    vision_weights: Path | None = None
    """The image tower's weights: a .safetensors file of the whole CLIP."""


@dataclass(frozen=True)
class Show:
    """Print what a folder knows, and what is said of a clip."""

    folder: Path
    """Knowledge folder."""
    clip: str | None = None
    """A clip's name."""


@dataclass(frozen=True)
class Config:
    """Make knowledge for pre-training: sentences and pictures of clips as unit vectors."""

    command: (
        Annotated[Describe, tyro.conf.subcommand("describe", prefix_name=False)]
        | Annotated[Captions, tyro.conf.subcommand("captions", prefix_name=False)]
        | Annotated[Frames, tyro.conf.subcommand("frames", prefix_name=False)]
        | Annotated[Show, tyro.conf.subcommand("show", prefix_name=False)]
    )


@contextmanager
def _bar(console: Console, what: str, total: int, unit: str) -> Iterator[Advance]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    timing = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, *timing, console=console) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


def _describe(command: Describe, console: Console) -> Made:
    if command.sentences < 1:
        raise UsageError(f"--sentences must be 1 or more, got {command.sentences}")
    if (command.prepared is None) == (not command.data):
        raise UsageError("describe takes --prepared or --data, one of the two")
    if command.prepared is None:
        if not 0 < command.fps < float("inf"):
            raise UsageError(f"--fps must be above 0, got {command.fps}")
        pool, _ = load_pool(command.data, command.held_out, command.fps, console)
        with _bar(console, "describing", len(pool.units), "clips") as advance:
            return described_pool(pool, POOLED, command.sentences, command.out, advance)
    refuse(command, ("held_out", "fps"), "are for live windows (--data), not for --prepared")
    prepared = load(command.prepared, verify=False)
    with _bar(console, "describing", len(prepared), "clips") as advance:
        return described(prepared, command.prepared, command.sentences, command.out, advance)


def _captions(command: Captions, console: Console) -> Made:
    said = captions.read(command.file)
    about = {LANGUAGE: {"by": "captions", "file": command.file.name}}
    if command.prepared is None:
        return Made("", tuple(said), about, list(said.values()))
    prepared = load(command.prepared, verify=False)
    found = captions.of_prepared(said, prepared)
    lacking = sum(not of_clip for of_clip in found)
    if lacking:
        console.print(f"{lacking} of {len(found)} clips have no caption; their rows are zeros", soft_wrap=True)
    return Made(prepared.data, tuple(str(name) for name in prepared.name), about, found)


def _frames(command: Frames, console: Console) -> Made:
    from train.knowledge.models import Answerer, Detector

    if command.frames < 1:
        raise UsageError(f"--frames must be 1 or more, got {command.frames}")
    if command.answerer is None and command.vision is None:
        raise UsageError("frames needs --answerer (language), --vision (features of pictures) or both")
    prepared, device = load(command.prepared, verify=False), pick_device(command.device)
    image = None
    if command.vision is not None:
        try:
            from train.text_clip import load_image
        except ModuleNotFoundError as error:
            raise UsageError(f"--vision needs the package {error.name}; run: pip install -e '.[text]'") from error
        image = load_image(command.vision, command.vision_weights).to(device)
    detector = None if command.detector is None else Detector(command.detector, device)
    answerer = None if command.answerer is None else Answerer(command.answerer, device)
    eyes = Eyes(detector, answerer, image, command.frames)
    with _bar(console, "looking", len(prepared), "clips") as advance:
        return seen(eyes, models_of(eyes), prepared, command.pictures, command.out, advance)


def _make(command: Describe | Captions | Frames, console: Console) -> None:
    speaks = not isinstance(command, Frames) or command.answerer is not None
    # Before hours of work: an encoder that is not there, or a folder about other clips, ends the command now.
    encoder = open_encoder(command.encoder, command.text_weights) if speaks else None
    make_folder(command.out)
    if isinstance(command, Describe):
        made = _describe(command, console)
    elif isinstance(command, Captions):
        made = _captions(command, console)
    else:
        made = _frames(command, console)
    earlier(command.out, made.data, made.names)
    if encoder is not None and made.said is not None:
        encoder.to(pick_device(command.device))
        with _bar(console, "encoding", distinct_of(made.said), "different sentences") as advance:
            made = with_language(made, encoder, command.aggregate, command.out, advance)
    content = finish(made, command.out)
    widths = ", ".join(f"{kind} {known} of {content['clips']} x {content['width'][kind]}"
                       for kind, known in content["known"].items())  # fmt: skip
    console.print(f"{command.out}: {widths}", soft_wrap=True)


def _show(command: Show) -> None:
    knowledge = load_knowledge(command.folder)
    if command.clip is None:
        print(json.dumps({key: value for key, value in knowledge.about.items() if key != "names"}, indent=1))
        return
    row = int(knowledge.rows([command.clip])[0])
    for kind, rows in ((LANGUAGE, knowledge.language), (VISION, knowledge.vision)):
        if rows is not None:
            print(f"{kind}: {'known' if rows[row].any() else 'nothing known'}")
    if "sentences.jsonl" in knowledge.about["sha256"]:
        print("\n".join(sentences_of(command.folder)[row][1]))


def run(config: Config, console: Console) -> int:
    """Makes or shows, and says how to go on where it is interrupted."""
    try:
        if isinstance(config.command, Show):
            _show(config.command)
        else:
            _make(config.command, console)
    except KeyboardInterrupt:
        again = f"python -m train.knowledge {shlex.join(sys.argv[1:])}"
        console.print(f"interrupted; go on with: {again}", markup=False, soft_wrap=True)
        return 130
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "train.knowledge", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
