"""Prepared data: a data set as one memory-mapped array of frames and an index of its clips, written once.

A folder holds `joints.npy` (R, M, V, 3) float32, the frames of all clips one after another in metres and Kinect
axes (an absent body is all zeros, every frame shows somebody), `index.npz` with one row a clip, and `prepared.json`,
which is written last: a folder that has it is whole. R rows, N clips, M bodies, V joints, K classes.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from realtime.errors import UsageError
from realtime.skeleton import LAYOUTS, Layout

SCHEMA = "prepared/1"
NUMBERS = {"frames": np.int32, "label": np.int16, "subject": np.int16, "camera": np.int16, "setup": np.int16}
Lists = Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class Prepared:
    """A data set that `load` has opened.

    joints: (R, M, V, 3) float32 metres, read-only, on disk. Clip i is joints[start[i] : start[i] + frames[i]].
    label: (N,) index into classes. subject, camera, setup: (N,), 0 where the set has none.
    lists: split name -> {"train", "test"} -> recordings, as the set's own list files say (PKU-MMD).
    """

    data: str
    layout: Layout
    classes: tuple[str, ...]  # K
    fps: float
    joints: np.ndarray  # (R, M, V, 3)
    start: np.ndarray  # (N,) int64
    frames: np.ndarray  # (N,) int32
    label: np.ndarray  # (N,) int16
    subject: np.ndarray  # (N,) int16
    camera: np.ndarray  # (N,) int16
    setup: np.ndarray  # (N,) int16
    name: np.ndarray  # (N,) str
    lists: Lists = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.start)

    def clip(self, index: int) -> np.ndarray:
        """Joints (T, M, V, 3) of one clip, on disk."""
        return self.joints[self.start[index] : self.start[index] + self.frames[index]]


@dataclass(frozen=True)
class Part:
    """The clips of some files: joints (R, M, V, 3), numbers of `NUMBERS` and name (N,), and who was left out why."""

    joints: np.ndarray
    numbers: Mapping[str, np.ndarray]
    name: np.ndarray
    skipped: Mapping[str, str]

    def save(self, path: Path, key: str) -> None:
        """Writes one file that is whole or not there. key: what it was made from, for `key_of`."""
        partial = path.with_name(path.name + ".partial")
        reasons = json.dumps(dict(self.skipped))
        with partial.open("wb") as file:
            np.savez(file, key=key, joints=self.joints, name=self.name, skipped=reasons, **self.numbers)
        os.replace(partial, path)


def key_of(path: Path) -> str | None:
    """What the part in a file was made from; None where there is no such file, or it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return str(content["key"])
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile):
        return None


def write(
    folder: Path, data: str, layout: Layout, classes: Sequence[str], bodies: int, fps: float, parts: Sequence[Path],
    lists: Lists | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Puts parts (files of `Part.save`) together in their order; returns what prepared.json says.

    Raises UsageError where a part is damaged, where they hold no clip, and where a clip's name comes twice.
    """
    pieces = [_numbers(part) for part in parts]
    index = {key: np.concatenate([piece[key] for piece in pieces] or [np.zeros(0)]) for key in (*NUMBERS, "name")}
    names, counts = np.unique(index["name"], return_counts=True)
    if not len(names):
        raise UsageError(f"no clip is left of {data}; give the folder that holds its published files")
    if counts.max() > 1:
        raise UsageError(f"{data}: two files give clip {names[counts.argmax()]}; keep one copy of each published file")
    rows = int(index["frames"].sum(dtype=np.int64))
    starts = np.cumsum(index["frames"], dtype=np.int64) - index["frames"]
    (folder / "prepared.json").unlink(missing_ok=True)
    _write_joints(folder / "joints.npy", (rows, bodies, len(layout), 3), parts)
    _replace_index(folder / "index.npz", {"start": starts, **index})
    content = {
        "schema": SCHEMA,
        "data": data,
        "layout": layout.name,
        "classes": list(classes),
        "bodies": bodies,
        "clips": len(starts),
        "rows": rows,
        "fps": fps,
        "sha256": {name: sha256(folder / name) for name in ("joints.npy", "index.npz")},
        "skipped": {name: reason for piece in pieces for name, reason in piece["skipped"].items()},
        "lists": {
            split: {side: list(names) for side, names in sides.items()} for split, sides in (lists or {}).items()
        },
    }
    partial = folder / "prepared.json.partial"
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, folder / "prepared.json")
    return content


@contextmanager
def _part(path: Path) -> Iterator[Mapping[str, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as content:
            yield content
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is damaged ({error}); delete it and run the same command again") from error


def _numbers(path: Path) -> dict[str, Any]:
    """The index rows of a part and what it skipped; its joints are not read."""
    with _part(path) as content:
        numbers = {key: content[key].astype(kind) for key, kind in NUMBERS.items()}
        return {**numbers, "name": content["name"], "skipped": json.loads(str(content["skipped"]))}


def _write_joints(path: Path, shape: tuple[int, ...], parts: Sequence[Path]) -> None:
    partial = path.with_name(path.name + ".partial")
    joints = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
    row = 0
    for part in parts:
        with _part(part) as content:
            piece = content["joints"]
        joints[row : row + len(piece)] = piece
        row += len(piece)
    joints.flush()
    del joints
    os.replace(partial, path)


def _replace_index(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(partial, path)


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def load(folder: Path, verify: bool = True) -> Prepared:
    """Opens a folder that `train.prepare` wrote; joints stay on disk.

    verify: compare the arrays' sha256 too, which reads them once; sizes and shapes are always compared.
    Raises UsageError that names the fault and the command that mends it.
    """
    content = _content(folder)
    data = content.get("data", "NAME")

    def refuse(fault: str) -> UsageError:
        return UsageError(f"{fault}; make it again: python -m train.prepare {data} SRC {folder}")

    if content.get("schema") != SCHEMA or content.get("layout") not in LAYOUTS:
        found = f"schema {content.get('schema')!r} and layout {content.get('layout')!r}"
        raise refuse(f"{folder / 'prepared.json'} must say {SCHEMA!r} and a known layout, it says {found}")
    for name, digest in content["sha256"].items():
        if not (folder / name).is_file():
            raise refuse(f"{folder / name} is missing")
        if verify and sha256(folder / name) != digest:
            raise refuse(f"{folder / name} is not what was written (its sha256 differs)")
    try:
        joints = np.load(folder / "joints.npy", mmap_mode="r", allow_pickle=False)
        with np.load(folder / "index.npz", allow_pickle=False) as arrays:
            index = {key: arrays[key] for key in ("start", *NUMBERS, "name")}
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile) as error:
        raise refuse(f"an array in {folder} cannot be read ({error})") from error
    layout = LAYOUTS[content["layout"]]
    shape = (content["rows"], content["bodies"], len(layout), 3)
    ends = index["start"] + index["frames"]
    if joints.shape != shape or len(ends) != content["clips"] or not len(ends) or ends[-1] != shape[0]:
        raise refuse(f"{folder / 'joints.npy'} has shape {joints.shape} and the index ends at row {ends[-1:]}, "
                     f"prepared.json says {shape} and {content['clips']} clips")  # fmt: skip
    return Prepared(data, layout, tuple(content["classes"]), float(content["fps"]), joints, **index,
                    lists=content.get("lists", {}))  # fmt: skip


def _content(folder: Path) -> dict[str, Any]:
    path = folder / "prepared.json"
    again = f"python -m train.prepare NAME SRC {folder}"
    if not path.is_file():
        begun = " (it was begun and can go on)" if (folder / ".parts").is_dir() else ""
        raise UsageError(f"{folder} holds no prepared data{begun}; make it: {again}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {**content, "sha256": {**content["sha256"]}}
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise UsageError(f"{path} cannot be read ({error}); make it again: {again}") from error
