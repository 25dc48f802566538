"""What the floor is found from: bodies, who of them stands upright, where their heads are and their feet are planted.

Nothing here knows yet which way is up: a body that is straight from ankles to head is upright whatever the camera's
tilt, and one that sits, bends or squats is not.
N sightings (a person in a frame), B blocks of BLOCK_S seconds, V joints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from realtime.schema import SECOND_NS, Pose
from realtime.skeleton import CORE_16, convert

BLOCK_S = 0.5  # sightings of a person within so long count as one: noise averages out, and 10 fps weighs as much as 60
PIECE_S = 10.0  # blocks within so long are kept together where the data are drawn anew (bootstrap)
SEEN = 0.4  # confidence from which a joint's place is worth something: below, MediaPipe guesses legs behind a table
STRAIGHT_DEG, KNEE_DEG = 15.0, 30.0  # trunk against legs, thigh against shank: of who stands or walks
TALL_M = (0.7, 2.3)  # from ankles to head
STEP_S = 0.12  # a foot's speed is taken over so long before and after: a sensor's noise is no walking
PLANTED_M_S = 0.25  # a foot that is slower stands
GAP_S = 0.5  # who is away for longer is not followed across it
CENTRED_M = 0.2  # no body is so near a camera: hips that stay there are the origin, and say nothing of a place
_AT = {joint: CORE_16.index(joint) for joint in CORE_16.joints}
_SIDES = ("left", "right")
_NEEDED = [_AT[f"{side}_{joint}"] for side in _SIDES for joint in ("hip", "knee", "ankle")]
_NEEDED += [_AT["head"], _AT["shoulder_center"]]
_ANKLES = [_AT[f"{side}_ankle"] for side in _SIDES]


@dataclass(frozen=True)
class Bodies:
    """Everybody seen. person: which track of which source. joints: CORE_16, Kinect axes of the camera."""

    times_s: np.ndarray  # (N,) of the source's own clock
    person: np.ndarray  # (N,) int
    joints: np.ndarray  # (N, V, 3)
    confidence: np.ndarray  # (N, V)
    guessed_place: bool  # found in pictures: where a body stands is an estimate

    @property
    def centred(self) -> bool:
        """Whether the hips are always at the origin, so that heights and places are not known."""
        hips = self.joints[:, [_AT["left_hip"], _AT["right_hip"]]].mean(axis=1)
        return bool(len(hips)) and float(np.quantile(np.linalg.norm(hips, axis=1), 0.9)) < CENTRED_M

    @property
    def seen_s(self) -> float:
        """Seconds in which somebody was seen, each person's added up."""
        return float(seconds_of(self).sum())

    @property
    def legs_seen(self) -> float:
        """Share of the sightings in which knees and ankles were seen."""
        legs = self.confidence[:, _NEEDED[1:3] + _NEEDED[4:6]] >= SEEN
        return float(legs.all(axis=1).mean()) if len(legs) else 0.0


@dataclass(frozen=True)
class Blocks:
    """Upright people, block by block. axis: unit, ankles to head. across: the body's right, unit, level to the axis."""

    person: np.ndarray  # (B,)
    piece: np.ndarray  # (B,) int; of one person and PIECE_S
    axis: np.ndarray  # (B, 3)
    across: np.ndarray  # (B, 3)
    head: np.ndarray  # (B, 3)
    root: np.ndarray  # (B, 3) the middle of the hips
    seconds: float  # that these blocks stand for
    straight: np.ndarray  # (N,) which sightings are in them

    def some(self, rows: np.ndarray) -> Blocks:
        """These rows of the blocks: a mask (B,) or numbers, as often as they stand there."""
        parts = ("person", "piece", "axis", "across", "head", "root")
        return replace(self, **{part: getattr(self, part)[rows] for part in parts})


@dataclass(frozen=True)
class Feet:
    """Feet that stand, block by block: ankles (B, 3), and the person and piece they are of."""

    person: np.ndarray  # (B,)
    piece: np.ndarray  # (B,)
    ankle: np.ndarray  # (B, 3)


class Gathering:
    """Collects poses as frames come."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, int, np.ndarray, np.ndarray]] = []
        self._people: dict[tuple[int, int], int] = {}
        self._last_s: dict[int, float] = {}
        self._in_pictures = 0
        self.upright_s = 0.0

    def add(self, source: int, captured_ns: int, poses: tuple[Pose, ...], guessed: bool = True) -> None:
        """Takes in one frame's poses; source: the number of the source they are of.

        guessed: of poses from pictures, that no depth has measured where they are.
        """
        now_s = captured_ns / SECOND_NS
        for pose in poses:
            person = self._people.setdefault((source, pose.track), len(self._people))
            joints, confidence = convert(pose.joints, pose.confidence, pose.layout, CORE_16)
            self._rows.append((now_s, person, joints, confidence))
            self._in_pictures += guessed and pose.image_joints is not None
            if straight(joints[None], confidence[None])[0]:
                self.upright_s += min(max(now_s - self._last_s.get(person, -1e9), 0.0), GAP_S / 2)
            self._last_s[person] = now_s

    def __len__(self) -> int:
        return len(self._rows)

    def bodies(self) -> Bodies:
        """Everything so far, person by person and in order of time."""
        order = sorted(range(len(self._rows)), key=lambda i: (self._rows[i][1], self._rows[i][0]))
        rows = [self._rows[i] for i in order]
        size = (len(rows), len(CORE_16))
        return Bodies(
            np.array([row[0] for row in rows], float),
            np.array([row[1] for row in rows], int),
            np.array([row[2] for row in rows], float).reshape(*size, 3),
            np.array([row[3] for row in rows], float).reshape(size),
            self._in_pictures * 2 > len(rows),
        )


def straight(joints: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """(N,) whether a body stands or walks: joints (N, V, 3), confidence (N, V) of CORE_16, whatever the tilt."""
    at = joints.astype(float).transpose(1, 0, 2)  # (V, N, 3)
    hips = (at[_AT["left_hip"]] + at[_AT["right_hip"]]) / 2
    ankles = at[_ANKLES].mean(axis=0)
    good = (confidence[:, _NEEDED] >= SEEN).all(axis=1)
    good &= _angle(at[_AT["shoulder_center"]] - hips, hips - ankles) < STRAIGHT_DEG
    for side in _SIDES:
        thigh = at[_AT[f"{side}_knee"]] - at[_AT[f"{side}_hip"]]
        good &= _angle(thigh, at[_AT[f"{side}_ankle"]] - at[_AT[f"{side}_knee"]]) < KNEE_DEG
    length = np.linalg.norm(at[_AT["head"]] - ankles, axis=1)
    return good & (length > TALL_M[0]) & (length < TALL_M[1])


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., 3) at length 1; one of no length stays."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _angle(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Degrees between vectors (N, 3)."""
    cos = (unit(first) * unit(second)).sum(axis=-1)
    return np.degrees(np.arccos(np.clip(cos, -1, 1)))


def seconds_of(bodies: Bodies) -> np.ndarray:
    """(N,) seconds that each sighting stands for: since the same person's last one, at most half of GAP_S."""
    step = np.diff(bodies.times_s, prepend=np.nan)
    same = np.diff(bodies.person, prepend=-1) == 0
    return np.where(same, np.clip(np.nan_to_num(step), 0, GAP_S / 2), 0.0)


def _pieces(bodies: Bodies, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Block and piece numbers of the kept sightings, each from 0 and without gaps in the blocks'."""
    since = bodies.times_s - (bodies.times_s.min() if len(bodies.times_s) else 0.0)
    wide = int(since.max() / BLOCK_S) + 2 if len(since) else 1
    block = bodies.person * wide + (since / BLOCK_S).astype(int)
    piece = bodies.person * wide + (since / PIECE_S).astype(int)
    _, number = np.unique(block[keep], return_inverse=True)
    return number, piece[keep]


def upright_blocks(bodies: Bodies) -> Blocks:
    """Who stands or walks, block by block."""
    keep = straight(bodies.joints, bodies.confidence)
    number, piece = _pieces(bodies, keep)
    count = np.maximum(np.bincount(number), 1) if len(number) else np.zeros(0)

    def mean(rows: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(number, rows[:, i]) / count for i in range(3)], axis=1)

    at = bodies.joints[keep].transpose(1, 0, 2)
    ankles = at[_ANKLES].mean(axis=0)
    axis = unit(mean(unit(at[_AT["head"]] - ankles)))
    across = sum(unit(at[_AT[f"right_{joint}"]] - at[_AT[f"left_{joint}"]]) for joint in ("hip", "shoulder"))
    across = mean(np.asarray(across))
    across = unit(across - (across * axis).sum(axis=1, keepdims=True) * axis)
    hips = (at[_AT["left_hip"]] + at[_AT["right_hip"]]) / 2
    first = np.unique(number, return_index=True)[1]
    seconds = float(seconds_of(bodies)[keep].sum())
    person = bodies.person[keep][first]
    return Blocks(person, piece[first], axis, across, mean(at[_AT["head"]]), mean(hips), seconds, keep)


def planted_feet(bodies: Bodies) -> Feet:
    """Ankles of feet that stand still for a quarter of a second, of everybody, upright or not."""
    person, piece, places = [], [], []
    for one in np.unique(bodies.person):
        rows = np.flatnonzero(bodies.person == one)
        times = bodies.times_s[rows]
        before = np.clip(np.searchsorted(times, times - STEP_S, "right") - 1, 0, None)
        after = np.clip(np.searchsorted(times, times + STEP_S, "left"), None, len(rows) - 1)
        span = times[after] - times[before]
        whole = (span > STEP_S) & (span < 2 * GAP_S)
        for ankle in _ANKLES:
            at = bodies.joints[rows, ankle]
            speed = np.linalg.norm(at[after] - at[before], axis=1) / np.maximum(span, 1e-6)
            good = whole & (speed < PLANTED_M_S) & (bodies.confidence[rows, ankle] >= SEEN)
            blocks = (times[good] / BLOCK_S).astype(int)
            for block in np.unique(blocks):
                here = at[good][blocks == block]
                person.append(int(one))
                piece.append(int(one) * 100_000 + int(block * BLOCK_S / PIECE_S))
                places.append(np.median(here, axis=0))
    return Feet(np.array(person, int), np.array(piece, int), np.array(places, float).reshape(-1, 3))
