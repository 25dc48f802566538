"""NTU RGB+D and NTU RGB+D 120, Kinect v2 at 30 frames a second: one `.skeleton` text file a clip.

A file is a frame count; per frame a body count; per body a line of 10 numbers that begins with the body's id, a joint
count and per joint 12 numbers, of which the first three are metres in Kinect camera space and the last says how well
it is tracked (0, 1, 2). Ids come and go. Prepared data keep these camera-space positions: subtracting the spine of
the first frame, as the published feeders do, is left to training.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from realtime.errors import UsageError
from realtime.skeleton import KINECT_V2_25
from train.data.clip import Clip, checked, even_times
from train.data.files import find, text_of

FPS = 30.0
BODIES = 2
ACTIONS = {"ntu60": 60, "ntu120": 120}
SETUPS = {"ntu60": 17, "ntu120": 32}
LABELS = {data: tuple(f"A{number:03d}" for number in range(1, last + 1)) for data, last in ACTIONS.items()}
NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})", re.IGNORECASE)
BODY_NUMBERS, JOINT_NUMBERS = 10, 12
# What CTR-GCN's preparation takes for noise, which it has from SGN's.
SHORT = 11  # frames; a body that lasts no longer
WIDE = 0.8  # of its height; a body that is wider is noise in this frame
NOISY = 0.69754  # of its frames; a body that is noise in so many


@dataclass(frozen=True)
class Body:
    """One id of a file. at: (F,) int64, its frames among those that show a body, rising.

    joints: (F, V, 3) float64 metres, a joint that is not finite at the origin. states: (F, V) tracking states.
    """

    at: np.ndarray
    joints: np.ndarray
    states: np.ndarray


def found(data: str, path: Path) -> list[tuple[Path, str]]:
    """The files of a set in or below a folder, with their names in capitals. NTU RGB+D is setups 1 to 17.

    Raises UsageError where there is none.
    """
    expected = "NTU RGB+D skeletons such as S001C001P001R001A001.skeleton"
    files = [(file, match[1].upper()) for file, match in find(path, rf"({NAME.pattern})\.skeleton", expected)]
    mine = [(file, name) for file, name in files if place(name)[2] <= SETUPS[data]]
    if not mine:
        raise UsageError(f"{path} holds no {expected} of setups 1 to {SETUPS[data]}; {data} is made of these")
    return mine


def place(name: str) -> tuple[int, int, int]:
    """(subject, camera, setup) of a clip's name."""
    match = NAME.fullmatch(name)
    if match is None:
        raise UsageError(f"a name of NTU RGB+D is such as S001C001P001R001A001, got {name!r}")
    return int(match[3]), int(match[2]), int(match[1])


def missing_names(file: Path) -> frozenset[str]:
    """The clip names in a published list of missing skeletons (302 or 535 names, one a line, under some lines of text).

    Raises UsageError where it holds none.
    """
    names = frozenset(match[0].upper() for match in NAME.finditer(text_of(file)))
    if not names:
        raise UsageError(f"{file} names no clip such as S001C002P005R002A008; give the published list")
    return names


def missing_in(path: Path) -> frozenset[str]:
    """The names in the published lists that lie in or below a folder, under their published names."""
    lists = [file for file in sorted(path.rglob("*")) if file.name.lower().endswith("missing_skeletons.txt")]
    return frozenset().union(*(missing_names(file) for file in lists))


def read(data: str, path: Path, subjects: Collection[int | str] | None = None) -> Iterator[Clip]:
    """The clips of a set in or below a folder, without those that published lists there say are missing.

    Raises UsageError where there is none, or a file is not as published or shows nobody.
    """
    files, missing = found(data, path), missing_in(path)
    wanted = [(file, name) for file, name in files if subjects is None or place(name)[0] in subjects]
    return (clip_of(file, name, data) for file, name in wanted if name not in missing)


def clip_of(file: Path, name: str, data: str) -> Clip:
    """One file as a clip: frames that show nobody dropped, noise removed, at most two actors (`choose`)."""
    action = int(name[-3:])
    if not 1 <= action <= ACTIONS[data]:
        raise UsageError(f"{file}: the action in a name of {data} must be 1 to {ACTIONS[data]}, got {action}")
    joints, states = choose(parse(file))
    seen = joints.any(axis=(1, 2, 3))
    if not seen.any():
        raise _nobody(file)
    placed, confidence = checked(joints[seen], states[seen] / 2)
    label = LABELS[data][action - 1]
    return Clip(data, name, place(name)[0], label, even_times(len(placed), FPS), placed, confidence, KINECT_V2_25)


def parse(file: Path) -> list[Body]:
    """The bodies of a file in the order in which they come; UsageError that names the line of the first fault.

    Of two bodies of one id in one frame the first is kept. A file in which no frame shows a body is refused.
    """
    lines = text_of(file).splitlines()
    starts, ids, frames = _walk(file, lines)
    if not starts:
        raise _nobody(file)
    heads = [start - 2 for start in starts]
    _numbers(file, lines, heads, BODY_NUMBERS)
    rows = [row for start in starts for row in range(start, start + len(KINECT_V2_25))]
    numbers = _numbers(file, lines, rows, JOINT_NUMBERS).reshape(len(starts), len(KINECT_V2_25), JOINT_NUMBERS)
    joints = np.where(np.isfinite(numbers[..., :3]).all(axis=-1, keepdims=True), numbers[..., :3], 0.0)
    at = np.unique(frames, return_inverse=True)[1]
    bodies = []
    for name in dict.fromkeys(ids):
        mine = np.array([row for row, other in enumerate(ids) if other == name])
        mine = mine[np.unique(at[mine], return_index=True)[1]]
        bodies.append(Body(at[mine], joints[mine], numbers[mine, :, -1]))
    return bodies


def _nobody(file: Path) -> UsageError:
    return UsageError(
        f"{file}: no frame of it shows a body; such files are in the set's published list of missing skeletons, which "
        f"train.prepare takes with --missing"
    )


def _walk(file: Path, lines: Sequence[str]) -> tuple[list[int], list[str], list[int]]:
    """Of each body in each frame: the index of its first joint's line, its id, its frame."""
    starts, ids, frames = [], [], []
    joints = str(len(KINECT_V2_25))
    total, cursor = _count(file, lines, 0, "the frame count"), 1
    for frame in range(total):
        where = f"frame {frame + 1} of {total}"
        bodies = _count(file, lines, cursor, f"the body count of {where}")
        cursor += 1
        for body in range(bodies):
            end = cursor + 2 + len(KINECT_V2_25)
            if cursor + 2 > len(lines) or not lines[cursor].strip():
                raise _cut_off(file, lines, f"body {body + 1} of {where}")
            if lines[cursor + 1].strip() != joints:
                got = lines[cursor + 1]
                raise UsageError(f"{file} line {cursor + 2}: the joint count must be {joints}, got {got!r}")
            if end > len(lines):
                raise _cut_off(file, lines, f"the joints of body {body + 1} of {where}")
            starts.append(cursor + 2)
            ids.append(lines[cursor].split(maxsplit=1)[0])
            frames.append(frame)
            cursor = end
    after = next((number for number in range(cursor, len(lines)) if lines[number].strip()), None)
    if after is not None:
        raise UsageError(f"{file} line {after + 1}: the file says {total} frames and goes on; unpack it again")
    return starts, ids, frames


def _count(file: Path, lines: Sequence[str], index: int, what: str) -> int:
    if index >= len(lines):
        raise _cut_off(file, lines, what)
    if not lines[index].strip().isdecimal():
        raise UsageError(f"{file} line {index + 1}: {what} must be a whole number, got {lines[index]!r}")
    return int(lines[index])


def _cut_off(file: Path, lines: Sequence[str], what: str) -> UsageError:
    return UsageError(f"{file} line {len(lines)}: the file is cut off before {what}; unpack it again")


def _numbers(file: Path, lines: Sequence[str], indices: Sequence[int], columns: int) -> np.ndarray:
    """(rows, columns) float64 of the lines at these indices; UsageError that names the line of the first fault."""
    chosen = [lines[index] for index in indices]
    if all(line.count(" ") == columns - 1 and "\t" not in line for line in chosen):  # so none has more than enough
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            try:
                numbers = np.fromstring(" ".join(chosen), np.float64, sep=" ")
            except (DeprecationWarning, ValueError):  # what NumPy says of a word among the numbers; found below
                numbers = np.empty(0)
        if numbers.size == len(chosen) * columns:
            return numbers.reshape(-1, columns)
    return np.array([_row(file, index, lines[index], columns) for index in indices])


def _row(file: Path, index: int, line: str, columns: int) -> list[float]:
    words = line.split()
    if len(words) != columns:
        raise UsageError(f"{file} line {index + 1}: a line here holds {columns} numbers, this one {len(words)}")
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise UsageError(f"{file} line {index + 1}: {error}; the file may be damaged, unpack it again") from error


def choose(bodies: Sequence[Body]) -> tuple[np.ndarray, np.ndarray]:
    """Joints (T, 2, V, 3) and states (T, 2, V) of the two actors; frames in which an actor is absent are zeros.

    Of several bodies, those that last at most `SHORT` frames and then those of which at least `NOISY` of the frames
    are noise are removed, as long as one is left. By falling motion, the summed variance of positions over the frames
    that are no noise, each fills actor 1 where it does not overlap it in time, else actor 2 where it does not overlap
    that. Source: the preparation of SGN (Zhang et al. 2020) and CTR-GCN (Chen et al. 2021). Different here: a body
    that comes back keeps its own frames, where theirs closes the gap.
    """
    total = max(int(body.at[-1]) for body in bodies) + 1
    joints, states = np.zeros((total, BODIES, len(KINECT_V2_25), 3)), np.zeros((total, BODIES, len(KINECT_V2_25)))
    taken: list[tuple[int, int] | None] = [None] * BODIES
    for body in _by_motion(bodies):
        first, last = int(body.at[0]), int(body.at[-1])
        for actor, held in enumerate(taken):
            if held is None or min(held[1], last) <= max(held[0], first):
                joints[body.at, actor], states[body.at, actor] = body.joints, body.states
                taken[actor] = (min(first, held[0]), max(last, held[1])) if held else (first, last)
                break
    return joints, states


def _by_motion(bodies: Sequence[Body]) -> list[Body]:
    """The bodies that are no noise, the one that moves most first."""
    left = list(bodies)
    if len(left) > 1:
        left = [body for body in left if len(body.at) > SHORT] or [max(left, key=lambda body: len(body.at))]
    kept: list[tuple[float, Body]] = []
    for number, body in enumerate(left):
        extent = np.ptp(body.joints, axis=1)  # (F, 3)
        good = extent[:, 0] <= WIDE * extent[:, 1]
        last = not kept and number == len(left) - 1
        if 1 - good.mean() >= NOISY and not last:
            continue
        kept.append((min(_motion(body.joints), _motion(body.joints[good]) if good.any() else np.inf), body))
    return [body for _, body in sorted(kept, key=lambda pair: -pair[0])]


def _motion(joints: np.ndarray) -> float:
    """Summed variance of the positions (F, V, 3) over all frames and joints."""
    return float(joints.reshape(-1, 3).var(axis=0).sum())
