"""The floor in depth pictures: the lowest large plane that is level enough to be one.

Planes are found one after the other by random samples (RANSAC, Fischler and Bolles 1981) and fitted by least squares,
each pixel by how well its depth is known. H, W pixels, P points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calib.floor_bodies import unit
from calib.floor_fit import Evidence, Found, level_directions
from realtime.errors import UsageError
from realtime.lens import Lens
from realtime.person import KINECT_AXES

POINTS = 8000  # of the picture that are looked at
PLANES, TRIES = 5, 300
NEAR_M, FAR_M = 0.3, 8.0  # depth that is believed
LEAST_DEPTH = 0.05  # of the pixels must have depth
LEAST_FLOOR = 0.05  # of the points must lie on the floor
LEVEL_DEG = 60.0  # a plane steeper than this against the picture's top is a wall
HEIGHT_M = (0.2, 10.0)
UNDER = 0.04  # of the points may lie below a floor: reflections, stairs
STAYS_DEG, STAYS_M = 0.3, 0.01  # what no data mend
TILES = 8  # a side: parts of the picture that are drawn anew to say how sure the plane is
DRAWS = 60


def median_depth(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """(H, W) float32 metres of what stands still in pictures (H, W) uint16 mm; NaN where half of them saw nothing."""
    stack = np.stack(pictures).astype(np.float32) / 1000  # (n, H, W)
    seen = (stack > NEAR_M) & (stack < FAR_M)
    ordered = np.sort(np.where(seen, stack, np.inf), axis=0)
    count = seen.sum(axis=0)
    middle = np.take_along_axis(ordered, np.maximum(count - 1, 0)[None] // 2, axis=0)[0]
    return np.where(count * 2 >= len(stack), middle, np.nan).astype(np.float32)


def points_of(depth_m: np.ndarray, lens: Lens) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 3) metres in Kinect axes of the depth camera, and their tile (P,), of a picture (H, W) metres."""
    height, width = depth_m.shape
    step = max(int(np.sqrt(depth_m.size / POINTS)), 1)
    rows, columns = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    z = depth_m[rows, columns]
    good = np.isfinite(z)
    rows, columns, z = rows[good], columns[good], z[good].astype(np.float64)
    rays = lens.rays(np.stack((columns, rows), axis=-1).astype(np.float64), width, height)
    points = np.column_stack((rays * z[:, None], z)) * KINECT_AXES
    return points, rows * TILES // height * TILES + columns * TILES // width


def find_floor_in_depth(pictures: Sequence[np.ndarray], lens: Lens, guess: np.ndarray | None = None) -> Found:
    """The floor from depth pictures (H, W) uint16 mm of a camera that stands still, in its own space, Kinect axes.

    lens: the depth camera's. guess: (3,) roughly up, where that is not the picture's top. UsageError says what lacks.
    """
    if not len(pictures):
        raise UsageError("no depth picture came; check the depth camera, or measure from people instead")
    sizes = sorted({picture.shape[::-1] for picture in pictures})
    if len(sizes) > 1:
        told = " and ".join(f"{width}x{height}" for width, height in sizes)
        raise UsageError(f"the depth pictures are {told}; name sources of one camera, at one size")
    depth = median_depth(pictures)
    share = float(np.isfinite(depth).mean())
    if share < LEAST_DEPTH:
        raise UsageError(
            f"depth is known in {share:.1%} of the picture between {NEAR_M} and {FAR_M:.0f} m: check the depth camera, "
            "and that nothing covers it"
        )
    points, tiles = points_of(depth, lens)
    guess = np.array((0.0, 1.0, 0.0)) if guess is None else unit(guess)
    rng = np.random.default_rng(0)
    planes = [(up, high, on) for up, high, on in _planes(points, rng) if _is_floor(points, up, high, guess)]
    if not planes:
        raise UsageError(
            f"no plane in the depth picture can be the floor: none has {LEAST_FLOOR:.0%} of it, is within "
            f"{LEVEL_DEG:.0f}° of level and lies below everything else; turn the camera until floor is in view, "
            "or name its --orientation"
        )
    up, height, on = max(planes, key=lambda plane: plane[1])
    up, height, within, height_within = _with_doubt(points[on], tiles[on], up, rng)
    evidence = (Evidence("depth", 0.0, within),)
    return Found(up, within, height, height_within, 0, 0.0, 0.0, float(on.mean()), 0.0, evidence)


def _tolerance(z: np.ndarray) -> np.ndarray:
    """Metres by which depth at z metres may be wrong: structured light and stereo grow worse with its square."""
    return 0.012 + 0.004 * z**2


def _fit(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Normal (3,) towards the camera and its distance of the plane through points (P, 3)."""
    weights = 1 / _tolerance(points[:, 2]) ** 2
    middle = weights @ points / weights.sum()
    spread = points - middle
    normal = np.linalg.eigh((spread * weights[:, None]).T @ spread)[1][:, 0]
    distance = float(-normal @ middle)
    return (normal, distance) if distance > 0 else (-normal, -distance)


def _planes(points: np.ndarray, rng: np.random.Generator) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """The largest planes: normal towards the camera, distance in metres, and which points (P,) lie on it."""
    tolerance = _tolerance(points[:, 2])
    free, found = np.ones(len(points), bool), []
    for _ in range(PLANES):
        left = np.flatnonzero(free)
        if len(left) < max(LEAST_FLOOR * len(points), 30):
            break
        corners = points[left[rng.integers(len(left), size=(TRIES, 3))]]  # (tries, 3, 3)
        normals = unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
        away = (normals * corners[:, 0]).sum(axis=1)
        some = left[rng.permutation(len(left))[:2000]]
        near = np.abs(points[some] @ normals.T - away) < tolerance[some, None]
        best = int(near.sum(axis=0).argmax())
        on = free & (np.abs(points @ normals[best] - away[best]) < tolerance)
        for _ in range(3):
            if on.sum() < 10:
                break
            normal, distance = _fit(points[on])
            on = free & (np.abs(points @ normal + distance) < tolerance)
        if on.sum() < max(LEAST_FLOOR * len(points), 30):
            break
        found.append((normal, distance, on))
        free &= ~on
    return found


def _is_floor(points: np.ndarray, up: np.ndarray, height: float, guess: np.ndarray) -> bool:
    below = points @ up + height < -3 * _tolerance(points[:, 2])
    level = up @ guess > np.cos(np.radians(LEVEL_DEG))
    return bool(level and HEIGHT_M[0] <= height <= HEIGHT_M[1] and below.mean() < UNDER)


def _with_doubt(
    points: np.ndarray, tiles: np.ndarray, up: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, float, float, float]:
    """Up, height, and how well each is known (95 %): parts of the picture drawn anew."""
    up, height = _fit(points)
    e, kinds = level_directions(up), np.unique(tiles)
    tilts, heights = [], []
    for _ in range(DRAWS):
        chosen = rng.choice(kinds, len(kinds))
        rows = np.concatenate([np.flatnonzero(tiles == tile) for tile in chosen])
        normal, distance = _fit(points[rows])
        tilts.append(e @ normal)
        heights.append(distance)
    spread = np.cov(np.array(tilts).T) + np.radians(STAYS_DEG) ** 2 * np.eye(2)
    within = 2 * float(np.degrees(np.sqrt(np.linalg.eigvalsh(spread).max())))
    return up, height, within, 2 * float(np.sqrt(np.var(heights) + STAYS_M**2))
