"""The bundle: the one folder that crosses from the workshop to the device, checked whole before anything uses it.

    bundle.json     everything the device must know; the schema is "bundle/1", each key is a field of `Bundle`
    model.onnx      input "skeleton" (N, C, T, V) float32, outputs "logits" (N, K) and "embedding" (N, D)
    model.*.onnx    the same in other precisions, where there are any: see realtime/graphs.py
    reference.npz   a few inputs with the trained model's own outputs: the device proves its engine on them
    MODEL_CARD.md   for people
Every refusal is a BundleError (exit code 3) of one line: what, the value, what to do.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from realtime.errors import BundleError, UsageError
from realtime.features import NORMALISATION, PAIR_NORMALISATION, channels, normalisation_of
from realtime.fields import REMEDY, Fields, short
from realtime.graphs import FP32_FILE, Graph, graphs_of
from realtime.skeleton import CORE_16, LAYOUTS, Layout

SCHEMA = "bundle/1"
REQUIRED_FILES = (FP32_FILE, "reference.npz", "MODEL_CARD.md")


@dataclass(frozen=True, slots=True)
class Action:
    """One action and when it starts and ends: thresholds on the smoothed probability, times in seconds."""

    id: str
    name: str
    on: float
    off: float
    min_on_s: float
    min_off_s: float


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checked bundle.json and the folder it came from. `actions` leaves "nothing" out, `classes` has it."""

    path: Path
    schema: str
    name: str
    created: str  # UTC, ISO 8601
    layout: Layout
    joints: tuple[str, ...]
    streams: tuple[str, ...]
    channels: int
    window: int  # rows
    fps: float  # rows per second
    stride: int  # rows between two windows
    normalisation: str  # canonical-body/1, or canonical-pair/1 for windows of two people
    actions: tuple[Action, ...]
    classes: tuple[str, ...]  # in logit order
    nothing: str
    temperature: float
    smoothing_s: float
    onset_shift_s: float  # how much later than the action its probability rises
    offset_shift_s: float  # and falls
    text: dict[str, Any] | None
    training: dict[str, Any]
    files: dict[str, tuple[str, int]]  # name: (sha256, bytes)
    graphs: dict[str, Graph]  # precision: graph, fp32 first; always has fp32
    directed: tuple[str, ...]  # of a pair's actions those that one does and the other undergoes

    @property
    def of_pairs(self) -> bool:
        """Whether its windows are of two people."""
        return self.normalisation == PAIR_NORMALISATION

    def read(self, name: str) -> bytes:
        """The bytes of one listed file; what was hashed is what is returned. Raises BundleError."""
        if name not in self.files:
            raise BundleError(f"bundle {self.path}: no file {name!r} is listed; it lists {', '.join(self.files)}")
        return _read_checked(self.path, name, *self.files[name])


class Reference(NamedTuple):
    """Inputs and the trained model's own outputs for them."""

    skeleton: np.ndarray  # (n, C, T, V) float32
    logits: np.ndarray  # (n, K)
    embedding: np.ndarray  # (n, D)


def default_bundle() -> Path:
    """The folder of the bundle that ships with the runtime."""
    return Path(__file__).parent / "assets" / "bundle"


def shipped_interactions() -> Path:
    """The folder of the bundle that ships for what two people do together."""
    return Path(__file__).parent / "assets" / "interactions"


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Reads and checks a bundle folder: every key, every rule, every file's size and sha256. Raises BundleError."""
    folder = Path(path)
    if not os.path.isdir(folder):
        raise BundleError(f"bundle {folder}: no such folder; name one that holds bundle.json")
    bundle = _parse(folder, _document(folder))
    for name in bundle.files:
        bundle.read(name)
    return bundle


def _document(folder: Path) -> Any:
    """The content of bundle.json."""
    file = folder / "bundle.json"
    if not file.is_file():
        raise BundleError(f"bundle {folder}: it holds no bundle.json; name a folder that does")
    return Fields.document(folder, file)


def _parse(folder: Path, document: Any) -> Bundle:
    """A Bundle from the document, its files not yet read."""
    if isinstance(document, dict):  # bundles older than these keys have fp32 only, and are of one person
        document = {"graphs": {"fp32": {"file": FP32_FILE, "gate": None}}, "directed": [], **document}
    fields = Fields(folder, document, tuple(Bundle.__dataclass_fields__)[1:])  # all but path
    fields.need(document["schema"] == SCHEMA, "schema", repr(SCHEMA))
    layout = LAYOUTS.get(document["layout"]) if isinstance(document["layout"], str) else None
    if layout is None:
        fields.refuse(f"layout must be one of {', '.join(LAYOUTS)}, got {short(document['layout'])}")
    known = (NORMALISATION, PAIR_NORMALISATION)
    normalisation = document["normalisation"]
    fields.need(normalisation in known, "normalisation", f"{' or '.join(map(repr, known))} in this release")
    fields.need(layout == CORE_16, "layout", f"{CORE_16.name}, which {normalisation} is made for")
    joints, streams, classes = fields.names("joints"), fields.names("streams"), fields.names("classes")
    fields.need(joints == layout.joints, "joints", f"the joints of {layout.name} in its order")
    try:
        width = channels(streams)
    except ValueError as error:
        fields.refuse(str(error))
    fields.need(normalisation_of(streams) == normalisation, "streams", f"those of {normalisation}")
    window, nothing = fields.whole("window", 2, 1024), fields.text("nothing")
    fields.need(nothing in classes, "nothing", f"one of the classes {short(list(classes))}")
    for key in ("training", *(("text",) if document["text"] is not None else ())):
        fields.need(isinstance(document[key], dict), key, "an object")
    files = _files(fields)
    return Bundle(
        path=folder,
        schema=SCHEMA,
        name=fields.text("name"),
        created=_time(fields),
        layout=layout,
        joints=joints,
        streams=streams,
        channels=fields.whole("channels", width, width),
        window=window,
        fps=fields.number("fps", 1, 240),
        stride=fields.whole("stride", 1, window),
        normalisation=normalisation,
        actions=_actions(fields, classes, nothing),
        classes=classes,
        nothing=nothing,
        temperature=fields.number("temperature", 0.01, 100),
        smoothing_s=fields.number("smoothing_s", 0, 60),
        onset_shift_s=fields.number("onset_shift_s", 0, 10),
        offset_shift_s=fields.number("offset_shift_s", 0, 10),
        text=document["text"],
        training=document["training"],
        files=files,
        graphs=graphs_of(folder, document["graphs"], files),
        directed=_directed(fields, classes, nothing, normalisation),
    )


def _directed(fields: Fields, classes: tuple[str, ...], nothing: str, normalisation: str) -> tuple[str, ...]:
    """The directed actions; only a pair has any."""
    if fields.values["directed"] == []:
        return ()
    directed = fields.names("directed")
    good = set(directed) <= set(classes) - {nothing} and normalisation == PAIR_NORMALISATION
    fields.need(good, "directed", "some of a pair's actions, or an empty list")
    return directed


def _time(fields: Fields) -> str:
    text = fields.text("created")
    try:
        offset = datetime.fromisoformat(re.sub("Z$", "+00:00", text)).utcoffset()  # Python 3.10 knows no Z
    except ValueError:
        offset = None
    fields.need(offset == timedelta(0), "created", "a UTC time such as 2025-01-31T12:00:00+00:00")
    return text


def _actions(fields: Fields, classes: tuple[str, ...], nothing: str) -> tuple[Action, ...]:
    """The decision rules: one for each class but "nothing"."""
    fields.need(isinstance(fields.values["actions"], list), "actions", "a list")
    actions = []
    for i, entry in enumerate(fields.values["actions"]):
        rule = Fields(fields.path, entry, tuple(Action.__dataclass_fields__), f"actions[{i}].")
        on = rule.number("on", 0, 1)
        off = rule.number("off", 0, 1)
        rule.need(off <= on, "off", f"at most on ({on})")
        rule.need(off > 0, "off", "above 0, or the action would never end")
        times = {key: rule.number(key, 0, 60) for key in ("min_on_s", "min_off_s")}
        actions.append(Action(rule.text("id"), rule.text("name"), on, off, **times))
    ids, wanted = [action.id for action in actions], sorted(set(classes) - {nothing})
    if sorted(ids) != wanted:
        fields.refuse(f"actions must be the classes without {nothing!r}, each once ({short(wanted)}), got {short(ids)}")
    return tuple(actions)


def _files(fields: Fields) -> dict[str, tuple[str, int]]:
    """The listed files, each name a path inside the folder."""
    fields.need(isinstance(fields.values["files"], dict), "files", "an object")
    files = {}
    for name, entry in fields.values["files"].items():
        if not _is_inside(name):
            fields.refuse(f"the file {short(name)} must be a path inside the bundle")
        rule = Fields(fields.path, entry, ("sha256", "bytes"), f"files.{name}.")
        digest = rule.text("sha256")
        rule.need(bool(re.fullmatch(r"[0-9a-f]{64}", digest)), "sha256", "64 hexadecimal digits")
        files[name] = (digest, rule.whole("bytes", 0, 2**40))
    for name in REQUIRED_FILES:
        if name not in files:
            fields.refuse(f"bundle.json does not list the file {name!r}")
    return files


def _is_inside(name: str) -> bool:
    """Whether a file's name, as text, stays in the folder; what it links to is checked when it is read."""
    parts = PurePosixPath(name).parts
    clean = bool(name) and name.isprintable() and not set(name) & set("\\:")
    return clean and name != "bundle.json" and not name.startswith("/") and ".." not in parts


def _read_checked(folder: Path, name: str, digest: str, size: int) -> bytes:
    """The file's bytes, once their number and sha256 are as listed."""
    try:
        file = (folder / name).resolve(strict=True)
        if not file.is_relative_to(folder.resolve()):
            raise BundleError(f"bundle {folder}: {name} is a link that leaves the bundle, to {file}; {REMEDY}")
        if not stat.S_ISREG(file.stat().st_mode):
            raise BundleError(f"bundle {folder}: {name} is not a plain file; {REMEDY}")
        if (found := file.stat().st_size) != size:
            raise BundleError(f"bundle {folder}: {name} has {found} bytes where bundle.json says {size}; {REMEDY}")
        data = file.read_bytes()
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before Python 3.13
        raise BundleError(f"bundle {folder}: {name} cannot be read ({error}); {REMEDY}") from error
    if (got := hashlib.sha256(data).hexdigest()) != digest:
        raise BundleError(f"bundle {folder}: {name} has sha256 {got[:12]}... not {digest[:12]}...; {REMEDY}")
    return data


def load_reference(bundle: Bundle) -> Reference:
    """The bundle's reference inputs and outputs, checked for shape and finiteness. Raises BundleError."""
    where = f"bundle {bundle.path}: reference.npz"
    try:
        with np.load(io.BytesIO(bundle.read("reference.npz")), allow_pickle=False) as arrays:
            parts = Reference(*(arrays[name] for name in Reference._fields))
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{where} cannot be read ({short(str(error))}); {REMEDY}") from error
    count, width = len(parts.skeleton) if parts.skeleton.ndim else 0, parts.embedding.shape[-1:]
    shapes = (
        (count, bundle.channels, bundle.window, len(bundle.layout)),
        (count, len(bundle.classes)),
        (count, *width),
    )
    for name, array, shape in zip(Reference._fields, parts, shapes, strict=True):
        if array.dtype != np.float32 or array.shape != shape or not array.size:
            raise BundleError(f"{where}: {name} must be float32 {shape}, got {array.dtype} {array.shape}; {REMEDY}")
        if not np.isfinite(array).all():
            raise BundleError(f"{where}: {name} has values that are not finite; {REMEDY}")
    return parts


def write_bundle(
    folder: str | os.PathLike[str],
    spec: Mapping[str, Any],
    files: Mapping[str, bytes | Path],
    replace: bool = False,
) -> Path:
    """Writes a bundle all or not at all, and returns its folder.

    spec: the keys of bundle.json; `schema` and `files` are added here, and `created` where it is absent; without
    `graphs` it has fp32 only. files: name to content. The bundle is written next to `folder`, loaded as a device
    would, then renamed into place; an old one stays untouched until then, and comes back should the renaming fail.
    Raises UsageError where `folder` exists and replace is False, BundleError where the new bundle is not a good one.
    """
    target = Path(os.path.abspath(folder))
    if os.path.lexists(target) and not replace:
        raise UsageError(f"{target} exists already; choose another folder or ask for replacement")
    if replace and os.path.lexists(target) and not (target / "bundle.json").is_file():
        raise UsageError(f"{target} is not a bundle and will not be replaced; choose another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        made.chmod(0o755)
        _write_files(made, spec, files)
        load_reference(load_bundle(made))
        swap(made, target)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return target


def _write_files(folder: Path, spec: Mapping[str, Any], files: Mapping[str, bytes | Path]) -> None:
    listed = {}
    for name, content in files.items():
        if not _is_inside(name):
            raise UsageError(f"the file {short(name)} must be a path inside the bundle")
        data = content if isinstance(content, bytes) else Path(content).read_bytes()
        _write(folder / name, data)
        listed[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    try:
        text = json.dumps({"created": now, **spec, "schema": SCHEMA, "files": listed}, indent=1, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise BundleError(f"the bundle's description cannot be JSON: {error}; use plain finite values") from error
    _write(folder / "bundle.json", text.encode() + b"\n")


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def swap(made: Path, target: Path) -> None:
    """Renames `made` to `target`; an old target steps aside first and is put back should that fail."""
    if not os.path.lexists(target):
        made.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent)) / "bundle"
    target.rename(aside)
    try:
        made.rename(target)
    except OSError:
        aside.rename(target)
        raise
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(aside.parent)
