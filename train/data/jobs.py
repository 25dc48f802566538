"""What there is to read of a data set, file by file, so that several processes can share the work."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from realtime.clips import NW_UCLA_FPS
from realtime.errors import UsageError
from realtime.skeleton import KINECT_V1_20, KINECT_V2_25, OPENNI_15, Layout
from train.data import msr_action3d, msrc12, ntu, nw_ucla, pku_mmd, sbu, utd_mhad, utkinect
from train.data.clip import Clip, Recording, cut
from train.data.files import find
from train.data.prepared import NUMBERS, Part

UTKINECT_FPS = 15.0  # the median; frame numbers advance by 2, 4, 6 or 8 of 60 a second
MSRC12_FPS = 30.0
MISSING = "in the published list of missing skeletons"
_VIEW = re.compile(r"_v(\d+)$")

Found = tuple[list[Clip], dict[str, str]]  # clips, and name -> why it is left out


@dataclass(frozen=True)
class Job:
    """One file of a set, and a function without arguments, which another process can call, that reads it.

    read: gives clips, and what else the file names with why it is left out. name: of the clip or recording.
    skip: why it is not to be read; empty where it is. beside: files read with it.
    """

    file: Path
    name: str
    read: Callable[[], Found]
    skip: str = ""
    beside: tuple[Path, ...] = ()


@dataclass(frozen=True)
class DataSet:
    """What is known of a set before it is read. bodies: M, at most so many in a clip. fps: rows a second.

    jobs: what lies in or below a folder, in order; raises UsageError where there is nothing of the set.
    place: (subject, camera, setup) of a clip, 0 for what the set does not say.
    """

    layout: Layout
    classes: tuple[str, ...]
    bodies: int
    fps: float
    jobs: Callable[[Path], list[Job]]
    place: Callable[[Clip], tuple[int, int, int]]


def leave_out(jobs: list[Job], names: Collection[str], reason: str) -> list[Job]:
    """The same jobs, those of these names marked as not to be read."""
    return [replace(job, skip=reason) if job.name in names else job for job in jobs]


def part_of(data: DataSet, jobs: list[Job], keep_going: bool) -> tuple[Part | None, list[str]]:
    """Reads files into one part; (None, faults) where one is broken: the first, or all of them with `keep_going`.

    Frames that show nobody are dropped. A file without any frame is broken; a clip, or a labelled piece of a
    recording, whose frames all show nobody is skipped with that reason.
    """
    clips: list[Clip] = []
    skipped: dict[str, str] = {}
    faults: list[str] = []
    for job in jobs:
        if job.skip:
            skipped[job.name] = job.skip
            continue
        try:
            found, without = job.read()
        except UsageError as error:
            faults.append(str(error))
            if not keep_going:
                break
            continue
        clips += found
        skipped |= without
    return (None, faults) if faults else (_joined(data, clips, skipped), [])


def _one(read: Callable[..., Clip], file: Path, *arguments: str | int) -> Found:
    """The clip of a file that holds one; one sequence of MSR-Action3D is published with nobody in it."""
    clip = read(file, *arguments)
    if not len(clip.joints):
        raise UsageError(f"{file}: it holds no frame; unpack it again")
    if not clip.confidence.any():
        return [], {clip.name: f"nobody is seen in any of its {len(clip.joints)} frames"}
    return [clip], {}


def _pieces(read: Callable[..., Recording], *arguments: Any) -> Found:
    """The labelled pieces of a recording."""
    recording = read(*arguments)
    clips = list(cut(recording))
    named = {f"{recording.name}_{number:03d}": truth.label for number, truth in enumerate(recording.truths)}  # as `cut`
    there = {clip.name for clip in clips}
    return clips, {name: f"nobody is seen during {label}" for name, label in named.items() if name not in there}


def _joined(data: DataSet, clips: list[Clip], skipped: Mapping[str, str]) -> Part:
    joints = [_frames(clip, data.bodies) for clip in clips]
    rows = [
        (len(frames), data.classes.index(clip.label), *data.place(clip))
        for clip, frames in zip(clips, joints, strict=True)
    ]
    columns = np.array(rows, np.int64).reshape(-1, len(NUMBERS)).T
    numbers = {key: column.astype(kind) for (key, kind), column in zip(NUMBERS.items(), columns, strict=True)}
    empty = np.zeros((0, data.bodies, len(data.layout), 3), np.float32)
    return Part(np.concatenate([empty, *joints]), numbers, np.array([clip.name for clip in clips], str), skipped)


def _frames(clip: Clip, bodies: int) -> np.ndarray:
    """Joints (T, M, V, 3) of the frames that show somebody, for M bodies."""
    seen = clip.confidence.any(axis=(1, 2))
    joints = clip.joints[seen]
    if joints.shape[1] > bodies:
        raise UsageError(f"{clip.name}: at most {bodies} bodies are expected, got {joints.shape[1]}")
    return np.pad(joints, ((0, 0), (0, bodies - joints.shape[1]), (0, 0), (0, 0)))


def _subject(clip: Clip) -> tuple[int, int, int]:
    """The subject's number; a pair such as s01s02 is 102."""
    digits = re.findall(r"\d+", str(clip.subject))
    return int("".join(f"{int(text):02d}" for text in digits)), 0, 0


def _subject_and_view(clip: Clip) -> tuple[int, int, int]:
    view = _VIEW.search(clip.name)
    return _subject(clip)[0], int(view[1]) if view else 0, 0


def _one_a_file(pattern: str, example: str, read: Callable[..., Clip]) -> Callable[[Path], list[Job]]:
    """Jobs of a set with one clip a file; the pattern's groups, a name and numbers, are what `read` takes after it."""

    def jobs(path: Path) -> list[Job]:
        found = find(path, pattern, f"files such as {example}")
        return [Job(file, m[1], partial(_one, read, file, m[1], *map(int, m.groups()[1:]))) for file, m in found]

    return jobs


def _sbu_jobs(path: Path) -> list[Job]:
    example = "s01s02/01/001/skeleton_pos.txt"
    found = find(path, r"(s\d+s\d+)/(\d+)/(\d+)/skeleton_pos\.txt", f"files such as {example}")
    return [
        Job(file, f"{m[1]}_{m[2]}_{m[3]}", partial(_one, sbu._clip, file, m[1].lower(), int(m[2]), m[3]))
        for file, m in found
    ]


def _utkinect_jobs(path: Path) -> list[Job]:
    found = find(path, r"joints_s(\d+)_e(\d+)\.txt", "UTKinect joints such as joints_s01_e01.txt")
    files = [file for file, _ in find(path, r"actionLabel(_modified)?\.txt", "UTKinect's actionLabel.txt")]
    chosen = max(files, key=lambda file: "modified" in file.name)
    labels = utkinect.intervals(chosen)
    takes = [(file, int(m[1]), int(m[2])) for file, m in found]
    return [
        Job(
            file,
            f"s{s:02d}_e{e:02d}",
            partial(_pieces, utkinect._recording, file, s, e, labels.get((s, e), ())),
            beside=(chosen,),
        )
        for file, s, e in takes
    ]


def _msrc12_jobs(path: Path) -> list[Job]:
    example = "MSRC-12 recordings such as P1_1_1_p06.csv with P1_1_1_p06.tagstream"
    halves: dict[str, dict[str, Path]] = {}
    for file, match in find(path, r"(P\d+_\d+_\d+A?_p\d+)\.(csv|tagstream)", example):
        halves.setdefault(match[1].lower(), {})[match[2].lower()] = file
    jobs = []
    for name, pair in sorted(halves.items()):
        csv, tags = pair.get("csv"), pair.get("tagstream")
        lacking = "" if csv and tags else f"it has no {'.tagstream' if csv else '.csv'}"
        file, *beside = pair.values()
        read = partial(_pieces, msrc12._recording, name, csv or file, tags or file)
        jobs.append(Job(file, name, read, lacking, tuple(beside)))
    return jobs


def _ntu_jobs(data: str, path: Path) -> list[Job]:
    jobs = [Job(file, name, partial(_one, ntu.clip_of, file, name, data)) for file, name in ntu.found(data, path)]
    return leave_out(jobs, ntu.missing_in(path), MISSING)


def _pku_jobs(data: str, path: Path) -> list[Job]:
    jobs = []
    for video, file, labels in pku_mmd.found(data, path):
        read = partial(pku_mmd.clips_of, data, video, file, labels or file)
        beside = (labels,) if labels else ()
        jobs.append(Job(file, video, read, "" if labels else "it has no label file", beside))
    return jobs


def _by_name(place: Callable[[str], tuple[int, int, int]]) -> Callable[[Clip], tuple[int, int, int]]:
    return lambda clip: place(clip.name)


SETS: dict[str, DataSet] = {
    "nw_ucla": DataSet(
        KINECT_V1_20, nw_ucla.LABELS, 1, NW_UCLA_FPS,
        _one_a_file(r"(a\d+_s(\d+)_e\d+_v\d+)\.json", "a01_s01_e00_v01.json", nw_ucla._clip), _subject_and_view,
    ),
    "utd_mhad": DataSet(
        KINECT_V1_20, utd_mhad.LABELS, 1, utd_mhad.FPS,
        _one_a_file(r"(a(\d+)_s(\d+)_t\d+)_skeleton\.mat", "a1_s1_t1_skeleton.mat", utd_mhad._clip), _subject,
    ),
    "utkinect": DataSet(
        KINECT_V1_20, tuple(utkinect.LABELS.values()), 1, UTKINECT_FPS, _utkinect_jobs, _subject,
    ),
    "msr_action3d": DataSet(
        KINECT_V1_20, msr_action3d.LABELS, 1, msr_action3d.FPS,
        _one_a_file(
            r"(a(\d+)_s(\d+)_e\d+)_skeleton3D\.txt", "a01_s01_e01_skeleton3D.txt", msr_action3d._clip
        ), _subject,
    ),
    "msrc12": DataSet(KINECT_V1_20, msrc12.LABELS, 1, MSRC12_FPS, _msrc12_jobs, _subject),
    "sbu": DataSet(OPENNI_15, sbu.LABELS, sbu.BODIES, sbu.FPS, _sbu_jobs, _subject),
    **{
        data: DataSet(
            KINECT_V2_25, ntu.LABELS[data], ntu.BODIES, ntu.FPS, partial(_ntu_jobs, data), _by_name(ntu.place)
        )
        for data in ntu.ACTIONS
    },
    **{
        data: DataSet(
            KINECT_V2_25, pku_mmd.LABELS, pku_mmd.BODIES, pku_mmd.FPS, partial(_pku_jobs, data), _by_name(pku_mmd.place)
        )
        for data in pku_mmd.VIDEOS
    },
}  # fmt: skip
