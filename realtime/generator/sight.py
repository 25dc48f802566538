"""What a depth camera and its colour camera see of a generated person: bodies of capsules, cast ray by ray.

A stand-in for hardware, in the tests and for a first try: a wall, a floor, people with limbs of a certain girth, and
what a depth sensor does wrong: noise that grows with distance, whole millimetres, holes, flying pixels at edges.
Letters: V = 25 joints of KINECT_V2_25, H, W rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from realtime.lens import Lens
from realtime.person import KINECT_AXES
from realtime.rig import Rig
from realtime.skeleton import KINECT_V2_25

# (from, to, radius in metres) of an adult: the girth of limbs in anthropometric tables, rounded.
_LIMBS = (
    *(("shoulder", "elbow", 0.048), ("elbow", "wrist", 0.036), ("wrist", "hand", 0.030), ("hand", "tip", 0.018)),
    ("wrist", "thumb", 0.016),
    *(("hip", "knee", 0.075), ("knee", "ankle", 0.052), ("ankle", "foot", 0.038)),
)
_TRUNK = (
    *(("hip_center", "spine", 0.12), ("spine", "shoulder_center", 0.12), ("shoulder_center", "neck", 0.065)),
    *(("neck", "head", 0.08), ("head", "head", 0.105), ("left_hip", "right_hip", 0.105)),
    *(("left_shoulder", "right_shoulder", 0.065), ("shoulder_center", "left_hip", 0.10)),
    ("shoulder_center", "right_hip", 0.10),
)
CAPSULES = _TRUNK + tuple((f"{side}_{a}", f"{side}_{b}", r) for side in ("left", "right") for a, b, r in _LIMBS)
_FROM = [KINECT_V2_25.index(start) for start, _, _ in CAPSULES]
_TO = [KINECT_V2_25.index(end) for _, end, _ in CAPSULES]
_RADII = np.array([radius for _, _, radius in CAPSULES])


@dataclass(frozen=True)
class Faults:
    """What the sensor does wrong. noise: standard deviation in metres at 1 m, growing with the square of distance.

    lost: share of pixels without depth, beside holes (so many blobs a picture). flying: share of the pixels at an edge
    that lie between near and far.
    """

    noise: float = 0.0015
    lost: float = 0.03
    holes: int = 25
    flying: float = 0.6


Body = tuple[np.ndarray, np.ndarray, np.ndarray]  # capsules: both ends (n, 3) metres, x right, y down; radii (n,)
Plane = tuple[np.ndarray, float]  # the points p with normal @ p = distance
# A wall and a floor before and below the colour camera.
ROOM: tuple[Plane, ...] = ((np.array((0.0, 0.0, 1.0)), 4.5), (np.array((0.0, 1.0, 0.0)), 1.15))


def body_of(joints: np.ndarray, girth: float = 1.0) -> Body:
    """The capsules of joints (25, 3) in Kinect camera space. girth: times that of most adults."""
    places = joints.astype(np.float64) * KINECT_AXES
    return places[_FROM], places[_TO], _RADII * girth


def cast(rays: np.ndarray, people: Sequence[Body], planes: Sequence[Plane] = ROOM) -> np.ndarray:
    """Distance along z in metres, of what rays (n, 2) from the origin meet first; infinite where nothing."""
    toward = np.concatenate([rays.astype(np.float64), np.ones((len(rays), 1))], axis=1)
    nearest = np.full(len(rays), np.inf)
    for normal, distance in planes:
        facing = toward @ normal
        nearest = np.minimum(nearest, np.where(facing * distance > 0, distance / np.where(facing, facing, 1), np.inf))
    for starts, ends, radii in people:
        for start, end, radius in zip(starts, ends, radii, strict=True):
            near = _near(rays, start, end, radius)
            if near.any():
                nearest[near] = np.minimum(nearest[near], _capsule(toward[near], start, end, radius))
    return nearest


def _near(rays: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float) -> np.ndarray:
    """(n,) which rays may meet the capsule at all: those through the box around it."""
    closest = max(min(start[2], end[2]) - radius, 0.05)
    low = np.minimum(start[:2] - radius, end[:2] - radius)
    high = np.maximum(start[:2] + radius, end[:2] + radius)
    low, high = (np.minimum(low / closest, low / (closest + 2)), np.maximum(high / closest, high / (closest + 2)))
    return ((rays >= low) & (rays <= high)).all(axis=1)


def _capsule(toward: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float) -> np.ndarray:
    """Where rays t * toward (n, 3) enter a capsule; infinite where they miss. t is z, as toward's z is 1."""
    axis, away = end - start, -start
    length2, along, height = axis @ axis, toward @ axis, axis @ away
    across, square, far2 = toward @ away, (toward * toward).sum(axis=1), away @ away
    found = np.full(len(toward), np.inf)
    if length2 > 1e-12:
        a = length2 * square - along**2
        b = length2 * across - height * along
        h = b * b - a * (length2 * far2 - height * height - radius * radius * length2)
        hit = (h >= 0) & (a > 1e-12)
        t = np.full(len(toward), np.inf)
        t[hit] = (-b[hit] - np.sqrt(h[hit])) / a[hit]
        where = height + np.where(hit, t, 0) * along
        found = np.where(hit & (where > 0) & (where < length2), t, np.inf)
    for cap in (start, end):
        b = -(toward @ cap)
        h = b * b - square * (cap @ cap - radius * radius)
        hit = h >= 0
        t = np.full(len(toward), np.inf)
        t[hit] = (-b[hit] - np.sqrt(h[hit])) / square[hit]
        found = np.minimum(found, t)
    return np.where(found > 0.05, found, np.inf)


def rays_of(lens: Lens, width: int, height: int) -> np.ndarray:
    """(H * W, 2) rays of every pixel, row by row."""
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    return lens.rays(pixels.astype(np.float64), width, height).reshape(-1, 2)


def seen_by_depth(rig: Rig, people: Sequence[Body], planes: Sequence[Plane] = ROOM) -> np.ndarray:
    """The true depth picture (h, w) float64 metres. people, planes: in the colour camera's space."""
    turn, shift = np.array(rig.rotation), np.array(rig.translation_m)
    moved = [((starts - shift) @ turn, (ends - shift) @ turn, radii) for starts, ends, radii in people]
    flat = [(normal @ turn, distance - normal @ shift) for normal, distance in planes]
    lens = rig.depth
    return cast(rays_of(lens, lens.width, lens.height), moved, flat).reshape(lens.height, lens.width)


def seen_in_color(rig: Rig, people: Sequence[Body], planes: Sequence[Plane] = ROOM) -> tuple[np.ndarray, np.ndarray]:
    """The colour picture (H, W, 3) uint8 BGR, shaded by slope, and its true depth (H, W) float64 metres."""
    lens = rig.color
    rays = rays_of(lens, lens.width, lens.height)
    alone = cast(rays, people, ()).reshape(lens.height, lens.width)
    depth = np.minimum(alone, cast(rays, (), planes).reshape(lens.height, lens.width))
    rows, columns = np.gradient(np.where(np.isfinite(depth), depth, 0.0))
    slope = np.hypot(rows, columns) * lens.fx / np.maximum(np.where(np.isfinite(depth), depth, 1.0), 0.1)
    light = np.clip(230 / np.sqrt(1 + slope**2), 25, 230)
    tint = np.where((alone <= depth)[..., None], np.array((0.75, 0.85, 1.0)), np.array((0.55, 0.5, 0.45)))
    return (light[..., None] * tint).astype(np.uint8), depth


def sensed(depth: np.ndarray, rng: np.random.Generator, faults: Faults | None = None) -> np.ndarray:
    """What a sensor makes of a true depth picture (h, w) metres: uint16 millimetres, 0 where it saw nothing."""
    faults = faults or Faults()
    height, width = depth.shape
    z = np.where(np.isfinite(depth), depth, 0.0)
    z = _flying(z, rng, faults.flying)
    z = z + rng.normal(size=z.shape) * faults.noise * z**2
    lost = rng.random(z.shape) < faults.lost
    rows, columns = np.mgrid[:height, :width]
    for _ in range(faults.holes):
        row, column, size = rng.integers(height), rng.integers(width), rng.uniform(1, 4) * width / 320
        near = (slice(max(row - 8, 0), row + 9), slice(max(column - 8, 0), column + 9))
        lost[near] |= (rows[near] - row) ** 2 + (columns[near] - column) ** 2 < size**2
    return np.where(lost | (z <= 0), 0, np.clip(np.rint(z * 1000), 0, 65535)).astype(np.uint16)


def _flying(z: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Pixels at steps of over 10 cm, some of them put between the two sides, as mixed light does."""
    result = z.copy()
    for axis in (0, 1):
        other = np.roll(z, 1, axis)
        mixed = (np.abs(z - other) > 0.1) & (rng.random(z.shape) < share / 2) & (other > 0) & (z > 0)
        weight = rng.uniform(0.1, 0.9, z.shape)
        result = np.where(mixed, weight * z + (1 - weight) * other, result)
    return result
