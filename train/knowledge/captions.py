"""Captions of clips from a file: the JSON that C²VL published for PKU-MMD II, or any of the same form.

The file is an object: clip id -> list of sentences, alone (.json) or as the one JSON file of a .zip. PKU-MMD II's ids
are such as A013N008V002C048L005: script, subject, view, class, and which label of its video it is, counted from 1. The
prepared set calls that clip A13N08-M_004. That views 1, 2, 3 are the cameras L, M, R is our reading; class and place
of the label are compared, so a clip whose label is another is not taken for it.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from realtime.errors import UsageError
from train.data.pku_mmd import CAMERAS
from train.data.prepared import Prepared

_PKU = re.compile(r"A(\d{2})N(\d{2})-([LMR])_(\d{3})")
Captions = Mapping[str, list[str]]


def read(path: Path) -> dict[str, list[str]]:
    """Clip id -> its sentences, blanks at their ends taken off; UsageError where the file is of another form."""
    try:
        content = json.loads(_text(path))
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read as captions ({error}); give a .json, or a .zip that holds one"
        ) from error
    if not isinstance(content, dict) or not content:
        raise UsageError(f"{path} must hold an object, clip id -> list of sentences, got {type(content).__name__}")
    for name, sentences in content.items():
        if not isinstance(sentences, list) or not all(isinstance(s, str) and s.strip() for s in sentences):
            raise UsageError(f"{path}: {name} must have a list of sentences, none of them empty")
    return {str(name): [sentence.strip() for sentence in sentences] for name, sentences in content.items()}


def _text(path: Path) -> str:
    if path.suffix != ".zip":
        return path.read_text(encoding="utf-8")
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".json")]
        if len(names) != 1:
            raise UsageError(f"{path} must hold one .json file, it holds {len(names)}; unpack it and name the file")
        return archive.read(names[0]).decode("utf-8")


def ids_of(name: str, label: str) -> Iterator[str]:
    """What a file may call a prepared clip of this name and class, in order: its own name, then PKU-MMD II's id."""
    yield name
    if match := _PKU.fullmatch(name):
        script, subject, place = int(match[1]), int(match[2]), int(match[4])
        if label.isdecimal():
            yield f"A{script:03d}N{subject:03d}V{CAMERAS[match[3]]:03d}C{int(label):03d}L{place + 1:03d}"


def of_prepared(captions: Captions, prepared: Prepared) -> list[list[str]]:
    """A clip's sentences for each clip of a prepared set, none where the file says nothing of it.

    UsageError where it says nothing of any clip.
    """
    said = []
    for name, label in zip(prepared.name.tolist(), prepared.label.tolist(), strict=True):
        ids = ids_of(str(name), prepared.classes[int(label)])
        said.append(next((captions[own] for own in ids if own in captions), []))
    if not any(said):
        raise UsageError(
            f"the captions are of clips such as {next(iter(captions))}, those of {prepared.data} are such as "
            f"{prepared.name[0]}: none is the same; give the captions of this set"
        )
    return said
