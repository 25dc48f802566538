"""The knowledge folder: what language (and, where there are pictures, vision) says of each clip of a prepared set.

`python -m train.knowledge` writes it, pre-training reads it. It holds

    language.npy      (N, D) float32: row i is a unit vector, what the sentences of clip i come to
    vision.npy        (N, E) float32, optional: row i is a unit vector, what the pictures of clip i come to
    sentences.jsonl   line i is {"name": clip, "sentences": [...]}; absent where there is vision alone
    knowledge.json    names, encoders, counts and each file's sha256; written last, so a folder that has it is whole

The N rows are the clips of the prepared folder, in its order; `names` repeats them, so that a reader can prove it. A
clip of which nothing is known has a row of zeros (no other row is zero), and `known` is False there. At least one of
language.npy and vision.npy is there. NumPy only.

    knowledge = load(folder)
    rows = knowledge.rows(prepared.name)        # UsageError where a clip is not in it
    language = knowledge.language[rows]         # (N, D)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from realtime.errors import UsageError
from train.data.prepared import sha256

SCHEMA = "knowledge/1"
LANGUAGE, VISION, SENTENCES, INDEX = "language.npy", "vision.npy", "sentences.jsonl", "knowledge.json"
KINDS = (LANGUAGE, VISION)
AGAIN = "make it again: python -m train.knowledge --help"
UNIT = 1e-3  # a row's length may differ from 1 by this


@dataclass(frozen=True)
class Knowledge:
    """A folder that `load` has opened: arrays (N, D) and (N, E) of unit rows, zeros where nothing is known.

    data: the prepared set's name, or "" where the rows are those of a file of captions alone. about: knowledge.json.
    """

    data: str
    names: tuple[str, ...]  # N
    language: np.ndarray | None
    vision: np.ndarray | None
    about: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def known(self) -> np.ndarray:
        """(N,) bool: clips with a row in every array that is there."""
        arrays = [array for array in (self.language, self.vision) if array is not None]
        return np.all([array.any(axis=1) for array in arrays], axis=0)

    def rows(self, names: Iterable[str]) -> np.ndarray:
        """Row numbers (n,) int64 of clips by name; UsageError where one is not in the folder."""
        place = {name: row for row, name in enumerate(self.names)}
        wanted = [str(name) for name in names]
        lost = [name for name in wanted if name not in place]
        if lost:
            raise UsageError(
                f"the knowledge of {self.data or 'these captions'} says nothing of {len(lost)} of {len(wanted)} clips, "
                f"such as {lost[0]}; {AGAIN}"
            )
        return np.array([place[name] for name in wanted], np.int64)


def load(folder: Path, verify: bool = True) -> Knowledge:
    """Opens a knowledge folder; arrays are read whole.

    verify: compare each file's sha256 too. UsageError that names the fault: no folder, a file that is missing or not
    what was written, rows that are not one a clip, or not of unit length.
    """
    about = _index(folder)
    names = tuple(about["names"])
    for name, digest in about["sha256"].items():
        path = folder / name
        if not path.is_file() or (verify and sha256(path) != digest):
            raise UsageError(f"{path} is missing, or not what was written; {AGAIN}")
    arrays = {kind: _array(folder / kind, len(names)) for kind in KINDS if kind in about["sha256"]}
    if not arrays:
        raise UsageError(f"{folder / INDEX} names neither {LANGUAGE} nor {VISION}; {AGAIN}")
    return Knowledge(str(about["data"]), names, arrays.get(LANGUAGE), arrays.get(VISION), about)


def sentences(folder: Path) -> list[tuple[str, list[str]]]:
    """(clip, its sentences) of each line of sentences.jsonl, in order; UsageError where it cannot be read."""
    path = folder / SENTENCES
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [(str(line["name"]), [str(sentence) for sentence in line["sentences"]]) for line in lines]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{path} cannot be read ({error}); {AGAIN}") from error


def write(
    folder: Path,
    data: str,
    names: Sequence[str],
    arrays: Mapping[str, np.ndarray],
    said: Sequence[Sequence[str]] | None,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes a knowledge folder atomically; the same content gives the same bytes. Returns what knowledge.json says.

    arrays: LANGUAGE and VISION -> (N, D) unit rows, zeros where nothing is known. said: N lists of sentences, or None.
    about: how it was made; train.knowledge says it as "made": {file: {"by", "encoder", "encoder_sha256", ...}}.
    UsageError where counts differ, a name comes twice, or a row is neither unit nor zero.
    """
    if not arrays or set(arrays) - set(KINDS):
        raise UsageError(f"knowledge is {LANGUAGE}, {VISION} or both, got {sorted(arrays) or 'neither'}")
    if len(set(names)) != len(names):
        raise UsageError("knowledge needs one row a clip, and a clip's name comes twice")
    if said is not None and len(said) != len(names):
        raise UsageError(f"knowledge needs one list of sentences a clip, got {len(said)} for {len(names)} clips")
    for kind, array in arrays.items():
        _check(kind, array, len(names))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    for kind in (*KINDS, SENTENCES):
        (folder / kind).unlink(missing_ok=True)
    for kind, array in arrays.items():
        _replace_array(folder / kind, array)
    if said is not None:
        rows = [{"name": name, "sentences": list(of_clip)} for name, of_clip in zip(names, said, strict=True)]
        _replace(folder / SENTENCES, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    files = [*sorted(arrays), *([SENTENCES] if said is not None else [])]
    content = {
        "schema": SCHEMA,
        "data": data,
        "clips": len(names),
        "known": {kind: int(arrays[kind].any(axis=1).sum()) for kind in sorted(arrays)},
        "width": {kind: int(arrays[kind].shape[1]) for kind in sorted(arrays)},
        **about,
        "sha256": {name: sha256(folder / name) for name in files},
        "names": list(names),
    }
    _replace(folder / INDEX, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return content


def _index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    if not path.is_file():
        raise UsageError(
            f"{folder} holds no knowledge ({INDEX} is not there); make it: python -m train.knowledge --help"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA or len(content["names"]) != content["clips"]:
            raise ValueError(f"schema {content['schema']!r}, {len(content['names'])} names, {content['clips']} clips")
        return {**content, "sha256": {**content["sha256"]}, "data": content["data"]}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(
            f"{path} must be of {SCHEMA} with a name for each clip, and is not ({error}); {AGAIN}"
        ) from error


def _array(path: Path, clips: int) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path} cannot be read ({error}); {AGAIN}") from error
    _check(str(path), array, clips)
    return array


def _check(kind: str, array: np.ndarray, clips: int) -> None:
    if array.ndim != 2 or len(array) != clips or array.dtype != np.float32:
        raise UsageError(
            f"{kind} must be ({clips}, D) float32, one row a clip, got {array.shape} {array.dtype}; {AGAIN}"
        )
    length = np.linalg.norm(array, axis=1)
    bad = np.flatnonzero(~((np.abs(length - 1) < UNIT) | (length == 0)))  # NaN is bad too
    if len(bad):
        raise UsageError(f"{kind} row {bad[0]} must be a unit vector or zeros, its length is {length[bad[0]]}; {AGAIN}")


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _replace_array(path: Path, array: np.ndarray) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    os.replace(partial, path)
