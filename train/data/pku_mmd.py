"""PKU-MMD, part I and part II, Kinect v2 at 30 frames a second: continuous videos with intervals as truth.

A skeleton file has a line of 150 numbers a frame: 2 bodies x 25 joints x (x, y, z) in metres, in the order of NTU
RGB+D; an absent body is zeros. The label file of the same name, in another folder, has lines `class,start,end,
confidence`. Start is the first frame, counted from 0; end is taken as exclusive, the first frame after the action,
as the published preparations slice it.
Videos are named 0002-L in part I and A01N01-L (script, subject, camera) in part II.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from realtime.errors import UsageError
from realtime.skeleton import KINECT_V2_25
from train.data.clip import Clip, Recording, Truth, checked, even_times
from train.data.files import find, table, text_of

log = logging.getLogger(__name__)

FPS = 30.0
BODIES = 2
LABELS = tuple(str(number) for number in range(1, 52))
CAMERAS = {"L": 1, "M": 2, "R": 3}
VIDEOS = {"pku_mmd1": r"\d{4}-[LMR]", "pku_mmd2": r"A\d{2}N\d{2}-[LMR]"}
LISTS = {"pku_mmd1": r"cross[-_](subject|view)\.txt", "pku_mmd2": r"cross[-_](subject|view)_v2\.txt"}
_EXAMPLES = {"pku_mmd1": "0002-L.txt", "pku_mmd2": "A01N01-L.txt"}

Interval = tuple[str, int, int]  # label, first frame, first frame after it


def found(data: str, path: Path) -> list[tuple[str, Path, Path | None]]:
    """(video, skeleton file, its label file) in or below a folder, in order of video; None where there are no labels.

    The two are told apart by what they hold: a label file has commas.
    Raises UsageError where there is no video, or where two files of one kind have the same name.
    """
    expected = f"PKU-MMD skeletons and labels such as {_EXAMPLES[data]}, in a folder each"
    halves: dict[bool, dict[str, Path]] = {False: {}, True: {}}
    for file, match in find(path, rf"({VIDEOS[data]})\.txt", expected):
        kind = halves[_is_label(file)]
        other = kind.setdefault(match[1].upper(), file)
        if other != file:
            raise UsageError(f"{other} and {file} are the same video; keep one of them below {path}")
    skeletons, labels = halves[False], halves[True]
    for video in sorted(labels.keys() - skeletons.keys()):
        log.warning("%s has no skeleton file, left out", labels[video])
    if not skeletons:
        raise UsageError(f"{path} holds no {expected}; there are labels only")
    return [(video, file, labels.get(video)) for video, file in sorted(skeletons.items())]


def _is_label(file: Path) -> bool:
    try:
        with file.open("rb") as content:
            return b"," in content.read(200)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error}") from error


def place(name: str) -> tuple[int, int, int]:
    """(subject, camera, setup) of a video's or clip's name; subject 0 in part I, cameras L, M, R are 1, 2, 3."""
    match = re.match(r"(?:\d{4}|A\d{2}N(\d{2}))-([LMR])", name)
    if match is None:
        raise UsageError(f"a video of PKU-MMD is named such as 0002-L or A01N01-L, got {name!r}")
    return int(match[1] or 0), CAMERAS[match[2]], 0


def labels_of(file: Path) -> list[Interval]:
    """(label, start, end) of each line of a label file; UsageError that names the line of the first fault."""
    rows = table(file, columns=4, separator=",")
    for number, row in enumerate(rows, start=1):
        if not (np.isfinite(row).all() and (row[:3] == np.floor(row[:3])).all() and 1 <= row[0] <= len(LABELS)):
            raise UsageError(
                f"{file} label {number}: must be `class,start,end,confidence` with class 1 to {len(LABELS)} and frame "
                f"numbers, got {','.join(f'{value:g}' for value in row)}"
            )
    return [(str(int(row[0])), int(row[1]), int(row[2])) for row in rows]


def _joints(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Joints (T, 2, V, 3) and confidence (T, 2, V) of a video."""
    rows = table(file, columns=BODIES * len(KINECT_V2_25) * 3)
    if not len(rows):
        raise UsageError(f"{file}: it holds no frame; unpack it again")
    return checked(rows.reshape(-1, BODIES, len(KINECT_V2_25), 3))


def clips_of(data: str, video: str, file: Path, label_file: Path) -> tuple[list[Clip], dict[str, str]]:
    """The labelled pieces of a video as clips named 0002-L_000 by the label's place, and why others are left out.

    A label that ends after the video is cut there; one without a frame, or in which nobody is seen, gives no clip.
    Raises UsageError where a file is not as published.
    """
    joints, confidence = _joints(file)
    clips, skipped = [], {}
    for number, (label, start, end) in enumerate(labels_of(label_file)):
        name, piece = f"{video}_{number:03d}", slice(max(start, 0), max(end, 0))
        length = len(joints[piece])
        if not length:
            skipped[name] = f"label {label} of frames {start} to {end} has no frame among {len(joints)}"
        elif not confidence[piece].any():
            skipped[name] = f"nobody is seen during label {label} of frames {start} to {end}"
        else:
            times = even_times(length, FPS)
            subject = place(video)[0]
            clips.append(Clip(data, name, subject, label, times, joints[piece], confidence[piece], KINECT_V2_25))
    return clips, skipped


def read(data: str, path: Path, subjects: Collection[int | str] | None = None) -> Iterator[Recording]:
    """The videos in or below a folder that have labels; a video without, and a label without a frame, is logged.

    Raises UsageError where there is none, a file is not as published, or subjects are asked of part I, whose files
    do not name them.
    """
    if subjects is not None and data == "pku_mmd1":
        raise UsageError("the files of PKU-MMD part I do not name subjects; leave them out and use the split xsub")
    wanted = []
    for video, file, labels in found(data, path):
        if labels is None:
            log.warning("%s has no label file, left out", file)
        elif subjects is None or place(video)[0] in subjects:
            wanted.append((video, file, labels))
    return (_recording(data, video, file, labels) for video, file, labels in wanted)


def _recording(data: str, video: str, file: Path, label_file: Path) -> Recording:
    joints, confidence = _joints(file)
    times, truths = even_times(len(joints), FPS), []
    for label, start, end in labels_of(label_file):
        if 0 <= start < min(end, len(times)):
            truths.append(Truth(label, int(times[start]), int(times[min(end, len(times)) - 1])))
        else:
            log.warning("%s: label %s of frames %d to %d has no frame, left out", label_file, label, start, end)
    truths.sort(key=lambda truth: truth.start_ns)
    return Recording(
        data, video, place(video)[0], times, joints, confidence, KINECT_V2_25, tuple(truths), False, LABELS
    )  # fmt: skip


def lists_of(data: str, path: Path, given: Sequence[Path] = ()) -> dict[str, dict[str, list[str]]]:
    """The published splits: "xsub" and "xview", each {"train", "test"} -> videos, from list files.

    given: files to take instead of those in or below the folder. A split without a file is left out.
    Raises UsageError where a file is no such list.
    """
    form = re.compile(LISTS[data], re.IGNORECASE)
    lists = {}
    for file in given or [file for file in sorted(path.rglob("*.txt")) if form.fullmatch(file.name)]:
        kind = re.search(r"subject|view", file.name, re.IGNORECASE)
        if kind is None:
            raise UsageError(f"--split-file must have `subject` or `view` in its name, as published, got {file}")
        lists["xsub" if kind[0].lower() == "subject" else "xview"] = _sides(data, file)
    return lists


def _sides(data: str, file: Path) -> dict[str, list[str]]:
    """{"train", "test"} -> videos of a list: a line of text that names the side, then a line of videos."""
    sides: dict[str, list[str]] = {"train": [], "test": []}
    side = None
    for line in text_of(file).splitlines():
        videos = re.findall(rf"\b{VIDEOS[data]}\b", line, re.IGNORECASE)
        if re.search(r"train", line, re.IGNORECASE):
            side = sides["train"]
        elif re.search(r"val|test", line, re.IGNORECASE):
            side = sides["test"]
        if videos and side is None:
            raise UsageError(f"{file}: videos come before a line that says `Training videos` or `Validation videos`")
        if side is not None:
            side += [video.upper() for video in videos]
    twice = sorted(set(sides["train"]) & set(sides["test"]))
    if not (sides["train"] and sides["test"]) or twice:
        got = f"{len(sides['train'])} and {len(sides['test'])}" + (f", {twice[0]} in both" if twice else "")
        raise UsageError(f"{file} must name videos such as {_EXAMPLES[data][:-4]} to train and to test, got {got}")
    return sides
