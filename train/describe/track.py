"""One person's motion made comparable: even in time, of one body size, in the person's own axes.

R rows at RATE a second. Lengths are those of a body of standard size: whoever is a tenth taller is measured with a
metre a tenth longer. Own axes: to the right, up, to the front; up is the sensor's. Where neither shoulders nor hips
are known the sensor's axes stand for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from realtime.skeleton import CORE_16, Layout, convert

RATE = 20.0  # rows a second: a hand claps up to three times in one
SMOOTH_S = 0.04  # standard deviation of the Gaussian that joints are smoothed with
SMOOTH_HEADING_S = 0.25
SMOOTH_PLACE_S = 0.25
KNOWN_SHARE = 0.5  # a joint seen in less than this share of the frames is not spoken of
LEAST_SIZE = 0.1  # a body smaller than this share of the standard one is no body
SIDES = ("right", "left")
# Lengths of the standard body in metres; its size is what the median bone says.
BONES = {
    ("hip_center", "shoulder_center"): 0.50,
    **{
        (f"{side}_{first}", f"{side}_{second}"): length
        for side in SIDES
        for first, second, length in (
            ("shoulder", "elbow", 0.29),
            ("elbow", "wrist", 0.25),
            ("hip", "knee", 0.42),
            ("knee", "ankle", 0.42),
        )
    },
}


@dataclass(frozen=True)
class Track:
    """One person. seconds: (R,) from 0. at: known joints of CORE_16 by name -> (R, 3), sensor's axes.

    axes: (R, 3, 3), rows right, up, front. heading: (R,) radians, positive to the person's left, never jumping.
    root: (R, 3) the hips' middle or what is known instead. place: (R, 2) root on the floor, smoothed.
    """

    seconds: np.ndarray
    at: Mapping[str, np.ndarray]
    axes: np.ndarray
    heading: np.ndarray
    root: np.ndarray
    place: np.ndarray
    size: float

    def __len__(self) -> int:
        return len(self.seconds)

    def has(self, *joints: str) -> bool:
        """Whether all these joints are known."""
        return all(joint in self.at for joint in joints)

    def own(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (R, 3) in the person's own axes: right, up, front."""
        return np.einsum("rij,rj->ri", self.axes, vectors)

    def local(self, joint: str) -> np.ndarray:
        """A joint (R, 3) from the root, in the person's own axes."""
        return self.own(self.at[joint] - self.root)

    def part(self, start: int, stop: int) -> Track:
        """Rows start to stop, timed from 0."""
        cut = slice(start, stop)
        at = {joint: rows[cut] for joint, rows in self.at.items()}
        seconds = self.seconds[cut] - self.seconds[start]
        return Track(seconds, at, self.axes[cut], self.heading[cut], self.root[cut], self.place[cut], self.size)

    def resized(self, size: float) -> Track:
        """The same for a body of another size: two people are measured with one metre."""
        factor = self.size / size
        at = {joint: rows * factor for joint, rows in self.at.items()}
        return replace(self, at=at, root=self.root * factor, place=self.place * factor, size=size)


def smooth(rows: np.ndarray, seconds: float) -> np.ndarray:
    """Rows (R, ...) under a Gaussian of this standard deviation; the ends are held."""
    reach = int(np.ceil(3 * seconds * RATE))
    weight = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (seconds * RATE)) ** 2)
    held = np.concatenate([np.repeat(rows[:1], reach, axis=0), rows, np.repeat(rows[-1:], reach, axis=0)])
    total = sum(w * held[i : i + len(rows)] for i, w in enumerate(weight))
    return np.asarray(total / weight.sum())


def track_of(joints: np.ndarray, layout: Layout, fps: float, confidence: np.ndarray | None = None) -> Track | None:
    """The track of one person's joints (T, V, 3) in metres at fps; None where nothing of the body is known.

    confidence: (T, V), 0 for a missing joint; without it a joint that lies exactly at the origin is missing.
    Raises ValueError for shapes that do not fit, no frame, no frame rate, and coordinates that are not finite.
    """
    joints = np.asarray(joints, np.float64)
    if joints.shape[1:] != (len(layout), 3) or not len(joints):
        raise ValueError(f"{layout.name} needs joints (T, {len(layout)}, 3) with T > 0, got {joints.shape}")
    if not np.isfinite(joints).all():
        raise ValueError("joints must be finite; set a missing joint to the origin, or its confidence to 0")
    if not fps > 0:
        raise ValueError(f"fps must be above 0, got {fps}")
    there = (joints != 0).any(axis=-1) if confidence is None else np.asarray(confidence) > 0
    body, seen = convert(joints, there.astype(np.float32), layout, CORE_16)
    raw, grid = _even(body.astype(np.float64), seen > 0, fps)
    size = _size(raw)
    if not raw or size < LEAST_SIZE:
        return None
    at = {joint: smooth(rows / size, SMOOTH_S) for joint, rows in raw.items()}
    root = at.get("hip_center", at.get("shoulder_center"))
    root = np.mean(list(at.values()), axis=0) if root is None else root
    axes, heading = _axes(at, len(grid))
    place = smooth(root[:, [0, 2]], SMOOTH_PLACE_S)
    return Track(grid, at, axes, heading, root, place, size)


def _even(body: np.ndarray, seen: np.ndarray, fps: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Known joints (R, 3) by name, and the times (R,) of their rows."""
    times = np.arange(len(body)) / fps
    grid = np.arange(int(times[-1] * RATE + 1e-6) + 1) / RATE
    found = {}
    for i, joint in enumerate(CORE_16.joints):
        here = np.flatnonzero(seen[:, i])
        if len(here) >= max(1.0, KNOWN_SHARE * len(body)):
            columns = [np.interp(grid, times[here], body[here, i, axis]) for axis in range(3)]
            found[joint] = np.stack(columns, axis=-1)
    return found, grid


def _size(at: Mapping[str, np.ndarray]) -> float:
    """How large the body is, 1 the standard one (also where no bone is known)."""
    lengths = [
        float(np.median(np.linalg.norm(at[first] - at[second], axis=-1))) / standard
        for (first, second), standard in BONES.items()
        if first in at and second in at
    ]
    return float(np.median(lengths)) if lengths else 1.0


def _axes(at: Mapping[str, np.ndarray], rows: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = [("right_shoulder", "left_shoulder"), ("right_hip", "left_hip")]
    across = [at[right] - at[left] for right, left in pairs if right in at and left in at]
    right = smooth(sum(across, np.zeros((rows, 3))), SMOOTH_HEADING_S)
    right[:, 1] = 0.0
    length = np.linalg.norm(right, axis=1)
    good = np.flatnonzero(length > 1e-3)
    if not len(good):
        return np.broadcast_to([[1.0, 0, 0], [0, 1, 0], [0, 0, -1]], (rows, 3, 3)), np.zeros(rows)
    nearest = good[np.abs(good[None] - np.arange(rows)[:, None]).argmin(axis=1)]  # who lies keeps the last heading
    right = right[nearest] / length[nearest, None]
    up = np.broadcast_to([0.0, 1.0, 0.0], right.shape)
    front = np.cross(up, right)
    return np.stack([right, up, front], axis=1), np.unwrap(np.arctan2(-front[:, 0], -front[:, 2]))
