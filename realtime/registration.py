"""Depth pictures laid on colour pictures: each depth pixel where the colour camera sees the same place. NumPy only.

Every depth pixel becomes a point, is moved into the colour camera's space and projected; where several fall on one
pixel the nearest counts (a z-buffer), so what the colour camera cannot see does not show through. Where the colour
picture is finer than the depth picture, each point covers as many pixels as it is wide: no holes between them.
"""

from __future__ import annotations

import numpy as np

from realtime.rig import Rig

FAR = np.uint16(65535)  # nothing was measured; millimetres
FLYING_MM = 40  # a step in depth of more than this, plus a share of the depth, is an edge
FLYING_SHARE = 0.015


class Registration:
    """Registers depth pictures of one rig. Not thread-safe: it keeps its buffers."""

    def __init__(self, rig: Rig, color: tuple[int, int], depth: tuple[int, int], straight: bool = False) -> None:
        """color, depth: (width, height) of the registered picture and of the depth pictures, each of its lens's shape.

        The registered picture may be smaller than the colour lens's: what looks things up needs no more.
        straight: it is that of a colour lens without distortion, for rays rather than pixels; a third of the time.
        """
        self._rig, self._color, self._depth, self._straight = rig, color, depth, straight
        width, height = depth
        pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float64)
        flat = rig.depth.rays(pixels, width, height).reshape(-1, 2)
        rays = np.concatenate([flat, np.ones((len(flat), 1))], axis=1)  # (N, 3)
        turned = (rays @ np.array(rig.rotation).T).astype(np.float32)  # in the colour camera's axes
        self._rays = np.ascontiguousarray(turned.reshape(height, width, 3).transpose(2, 0, 1))  # (3, h, w)
        self._shift = np.array(rig.translation_m, np.float32) * 1000
        self._scale = np.array(color, np.float32) / (rig.color.width, rig.color.height)
        finer = (rig.color.fx * self._scale[0]) / (rig.depth.fx * width / rig.depth.width)
        self._splat = max(int(np.ceil(finer - 0.01)), 1)  # pixels a side that one depth pixel covers
        self._same = rig.registered and color == depth and (rig.color.straight or not straight)

    def __call__(self, depth: np.ndarray, box: tuple[int, int, int, int] | None = None) -> np.ndarray:
        """(h, w) uint16 millimetres from the depth camera -> (H, W) uint16 millimetres from the colour camera.

        0 where nothing was measured, in both. box: left, top, right, bottom of the depth pixels to take, all others
        being of no interest. Raises ValueError for another shape or type.
        """
        width, height = self._depth
        if depth.shape != (height, width) or depth.dtype != np.uint16:
            raise ValueError(f"depth must be ({height}, {width}) uint16, got {depth.shape} {depth.dtype}")
        if self._same:
            return depth.copy()
        left, top, right, bottom = box or (0, 0, width, height)
        part = depth[top:bottom, left:right]
        seen = part > 0
        z = part[seen].astype(np.float32)
        points = [
            ray[top:bottom, left:right][seen] * z + shift for ray, shift in zip(self._rays, self._shift, strict=True)
        ]
        return self._splatted(self._nearest(*points))

    def box_around(self, rays: np.ndarray, near_m: float, far_m: float) -> tuple[int, int, int, int]:
        """The box of depth pixels that may see what lies on rays (n, 2) of the colour camera, between two distances."""
        flat = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)
        points = np.concatenate([flat * near_m, flat * far_m]) - np.array(self._rig.translation_m)
        found = self._rig.depth.pixels(points @ np.array(self._rig.rotation))
        found = (found + 0.5) * np.array(self._depth) / (self._rig.depth.width, self._rig.depth.height) - 0.5
        if not np.isfinite(found).all():
            return 0, 0, *self._depth
        low, high = np.floor(found.min(axis=0)) - 1, np.ceil(found.max(axis=0)) + 2
        (left, top), (right, bottom) = (np.clip(ends, 0, self._depth).astype(int) for ends in (low, high))
        return int(left), int(top), int(right), int(bottom)

    def straightened(self, rays: np.ndarray) -> np.ndarray:
        """Rays (n, 2) of the colour camera -> pixels (n, 2) of a straight registered picture."""
        lens = self._rig.color
        return (rays * (lens.fx, lens.fy) + (lens.cx + 0.5, lens.cy + 0.5)) * self._scale - 0.5

    @property
    def focal_px(self) -> float:
        """Focal length of the registered picture, of its width."""
        return float(self._rig.color.fx * self._scale[0])

    def _pixels(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where points in front of the colour camera, (n,) each, fall in the registered picture."""
        lens = self._rig.color
        if self._straight or lens.straight:
            fx, fy = np.float32(lens.fx * self._scale[0]), np.float32(lens.fy * self._scale[1])
            cx, cy = ((np.array((lens.cx, lens.cy)) + 0.5) * self._scale - 0.5).astype(np.float32)
            return x / z * fx + cx, y / z * fy + cy
        found = (lens.pixels(np.stack((x, y, z), axis=1)) + 0.5) * self._scale - 0.5
        return found[:, 0], found[:, 1]

    def _nearest(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """The z-buffer of points, (n,) millimetres each: uint16, FAR where no point falls.

        Each point is at the first pixel that its splat covers. (H, W) with splat - 1 rows above and columns left of it,
        for splats that begin outside and reach in.
        """
        margin = self._splat - 1
        width, height = self._color[0] + margin, self._color[1] + margin
        buffer = np.full(width * height, FAR)
        ahead = (z >= 1) & (z < FAR)
        if not ahead.all():
            x, y, z = x[ahead], y[ahead], z[ahead]
        u, v = self._pixels(x, y, z)
        first = 1 - self._splat / 2 + margin  # above 0, so that cutting the fraction off is rounding down
        inside = (u >= -first) & (u < width - first) & (v >= -first) & (v < height - first)
        column, row = (u[inside] + first).astype(np.int32), (v[inside] + first).astype(np.int32)
        near = np.rint(z[inside]).astype(np.uint16)
        order = np.argsort(FAR - near, kind="stable")  # far to near: the last that is written stays; radix, so fast
        buffer[(row * width + column)[order]] = near[order]
        return buffer.reshape(height, width)

    def _splatted(self, nearest: np.ndarray) -> np.ndarray:
        """Each point over its square of pixels, the nearest on top: the least of the shifted pictures."""
        result = nearest.copy()
        for axis in (0, 1):
            wide = result.copy()
            for step in range(1, self._splat):
                ahead = (slice(step, None), slice(None)) if axis == 0 else (slice(None), slice(step, None))
                back = (slice(None, -step), slice(None)) if axis == 0 else (slice(None), slice(None, -step))
                np.minimum(wide[ahead], result[back], out=wide[ahead])
            result = wide
        result = result[self._splat - 1 :, self._splat - 1 :]
        return np.where(result == FAR, np.uint16(0), result)


def without_flying(depth: np.ndarray) -> np.ndarray:
    """The depth picture (h, w) uint16 mm with 0 for flying pixels: those that hang between a near and a far surface.

    A pixel of an edge has neighbours as near as itself or as far; one that has a clearly nearer and a clearly farther
    neighbour belongs to neither.
    """
    near, far = _around(np.where(depth, depth, FAR), np.minimum), _around(depth, np.maximum)
    step = (FLYING_MM + FLYING_SHARE * depth).astype(np.int32)
    z = depth.astype(np.int32)
    return np.where((z - near > step) & (far - z > step), np.uint16(0), depth)


def _around(values: np.ndarray, best: np.ufunc) -> np.ndarray:
    """The least or largest of each pixel and its 8 neighbours."""
    rows = values.copy()
    best(rows[1:], values[:-1], out=rows[1:])
    best(rows[:-1], values[1:], out=rows[:-1])
    result = rows.copy()
    best(result[:, 1:], rows[:, :-1], out=result[:, 1:])
    best(result[:, :-1], rows[:, 1:], out=result[:, :-1])
    return result
