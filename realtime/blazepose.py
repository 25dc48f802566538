"""What MediaPipe's two pose networks mean: anchors, detections, regions of interest, landmarks. Arithmetic only.

The numbers are those of MediaPipe's own graphs. N found bodies, A = 2254 anchors, L = 39 landmarks (33 of the body,
2 that place the next region of interest, 4 unused). Pixels are those of the small picture; angles are radians,
clockwise as seen, 0 for an upright body.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from realtime.body import Landmarks
from realtime.schema import SECOND_NS

DETECTOR_SIZE, CROP_SIZE = 224, 256
BODY, ALL = 33, 39
_GRIDS = ((28, 2), (14, 2), (7, 6))  # cells a side, anchors in each cell
_DETECTED_LOGIT = 0.0  # a score of 0.5
_OVERLAP = 0.3  # detections that overlap more are one body
_MARGIN = 1.25  # a region of interest is this much larger than the circle around the body
_HEAT, _NEAR, _HEATED = 64, 9, 0.5  # cells of the heat map, of its part that is looked at, and the least peak in it
_MIN_CUTOFF, _BETA, _SPEED_CUTOFF = 0.01, 10.0, 1.0  # Hz, Hz per diameter a second, Hz
_STEPS = np.arange(_NEAR) - _NEAR // 2


class Region(NamedTuple):
    """A turned square around a body, in pixels."""

    centre: np.ndarray  # (2,)
    side: float
    angle: float


class Detections(NamedTuple):
    """What the detector found, best first, in units of its square input."""

    scores: np.ndarray  # (N,) in [0.5, 1]
    boxes: np.ndarray  # (N, 4) left, top, right, bottom of the face or torso
    points: np.ndarray  # (N, 4, 2) middle of the hips, a point that fixes scale and turn, two unused


class Found(NamedTuple):
    """One body as the landmark network gives it."""

    presence: float  # in [0, 1]
    pixels: np.ndarray  # (33, 2) float32
    world: np.ndarray  # (33, 3) float32 metres from the middle of the hips: x right, y down, z away
    visibility: np.ndarray  # (33,) float32 in [0, 1]
    circle: np.ndarray  # (2, 2) float32 pixels: middle of the hips and the point that fix the next region

    def landmarks(self, width: int, height: int, axes: np.ndarray) -> Landmarks:
        """The same in units of the picture's width and height, world axes times `axes` (3,)."""
        return Landmarks(self.world * axes, self.pixels / np.array((width, height), np.float32), self.visibility)


def anchors() -> np.ndarray:
    """(A, 2) float32 centres x, y of the detector's anchors, in units of its input."""
    found = []
    for cells, each in _GRIDS:
        centres = (np.arange(cells, dtype=np.float32) + 0.5) / cells
        y, x = np.meshgrid(centres, centres, indexing="ij")
        found.append(np.repeat(np.stack((x, y), axis=-1).reshape(-1, 2), each, axis=0))
    return np.concatenate(found)


_ANCHORS = anchors()


def decode_detections(raw: np.ndarray, logits: np.ndarray) -> Detections:
    """The bodies in the detector's outputs raw (A, 12) and logits (A,): those above a score of 0.5, merged."""
    (sure,) = np.nonzero(logits >= _DETECTED_LOGIT)
    numbers = raw[sure] / DETECTOR_SIZE  # (n, 12)
    numbers = numbers.reshape(-1, 6, 2)
    centres = numbers[:, 0] + _ANCHORS[sure]
    half = numbers[:, 1] / 2
    boxes = np.concatenate((centres - half, centres + half), axis=1)
    points = numbers[:, 2:] + _ANCHORS[sure][:, None]
    return merge(Detections(_sigmoid(logits[sure]), boxes, points))


def merge(found: Detections) -> Detections:
    """Weighted non-maximum suppression: what overlaps the best one is averaged with it, by score."""
    scores, flat = [], []
    rest = np.argsort(-found.scores, kind="stable")
    values = np.concatenate((found.boxes, found.points.reshape(-1, 8)), axis=1)  # (N, 12)
    while len(rest):
        same = overlap(found.boxes[rest[0]], found.boxes[rest]) > _OVERLAP
        same[0] = True
        group = rest[same]
        scores.append(found.scores[rest[0]])
        flat.append(found.scores[group] @ values[group] / found.scores[group].sum())
        rest = rest[~same]
    merged = np.array(flat, np.float32).reshape(-1, 12)
    return Detections(np.array(scores, np.float32), merged[:, :4], merged[:, 4:].reshape(-1, 4, 2))


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union (N,) of one box (4,) with boxes (N, 4): left, top, right, bottom."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = np.maximum(sides, 0).prod(axis=1)
    areas = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)
    own = np.maximum(box[2:] - box[:2], 0).prod()
    return common / np.maximum(areas + own - common, 1e-9)


def whole(width: int, height: int) -> Region:
    """The square around the whole picture, which the detector sees."""
    return Region(np.array((width / 2, height / 2), np.float32), float(max(width, height)), 0.0)


def views(width: int, height: int) -> tuple[Region, ...]:
    """Squares to look for bodies in, in turn: the whole picture, and parts of it.

    The detector was made for one body that fills the picture. Of several it sees the smaller ones only in a square
    that they fill better.
    """
    across = np.array((1.0, 0.0) if width >= height else (0.0, 1.0), np.float32)
    short, long = min(width, height), max(width, height)
    found = [whole(width, height)]
    for part, count in ((1.0, 3), (0.7, 4)):
        side = part * short
        steps = np.linspace(-0.5, 0.5, count, dtype=np.float32) * (long - side)
        found += [Region(found[0].centre + step * across, side, 0.0) for step in steps]
    return tuple(found)


def region(hips: np.ndarray, top: np.ndarray) -> Region:
    """The region of interest of a body whose circle has its middle at hips (2,) and passes through top (2,)."""
    x, y = (top - hips).tolist()
    return Region(hips, 2 * float(np.hypot(x, y)) * _MARGIN, float(np.pi / 2 - np.arctan2(-y, x)))


class SteadyRegion:
    """The region of interest of one body from frame to frame, as steady as MediaPipe's own.

    MediaPipe smooths the two points that make it, whatever is asked for the landmarks; without that the landmarks
    themselves tremble more. Its One-Euro filter, in its own discrete form, but by capture time.
    """

    def __init__(self) -> None:
        self._captured_ns: int | None = None
        self._raw = self._speed = self._value = np.zeros((2, 2))

    def __call__(self, circle: np.ndarray, captured_ns: int) -> Region:
        """The region for the next frame from a body's circle (2, 2) in this one; captured_ns must grow."""
        raw = circle.astype(np.float64)
        if self._captured_ns is None:
            self._value = raw
        else:
            seconds = (captured_ns - self._captured_ns) / SECOND_NS
            diameter = max(2 * float(np.hypot(*(raw[1] - raw[0]))), 1e-6)
            speed = (raw - self._raw) / (diameter * seconds)
            self._speed = self._speed + _part(_SPEED_CUTOFF, seconds) * (speed - self._speed)
            cutoff = _MIN_CUTOFF + _BETA * np.abs(self._speed)
            self._value = self._value + _part(cutoff, seconds) * (raw - self._value)
        self._captured_ns, self._raw = captured_ns, raw
        return region(self._value[0], self._value[1])


def _part(cutoff: float | np.ndarray, seconds: float) -> float | np.ndarray:
    return 1 / (1 + 1 / (2 * np.pi * seconds * cutoff))


def crop_matrix(one: Region, size: int) -> np.ndarray:
    """(3, 3) float64, from pixels of the crop of this region, `size` a side, to pixels of the picture."""
    cos, sin = np.cos(one.angle) * one.side / size, np.sin(one.angle) * one.side / size
    turn = np.array(((cos, -sin), (sin, cos)))
    matrix = np.eye(3)
    matrix[:2, :2] = turn
    matrix[:2, 2] = one.centre - turn @ (size / 2, size / 2)
    return matrix


def in_picture(points: np.ndarray, one: Region) -> np.ndarray:
    """Points (…, 2) in units of a region's side, (0, 0) its corner, as pixels of the picture."""
    matrix = crop_matrix(one, 1).astype(np.float32)
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def decode_landmarks(raw: np.ndarray, presence: float, heat: np.ndarray, world: np.ndarray, one: Region) -> Found:
    """The body in the landmark network's outputs for this region.

    raw: (195,) x, y, z in pixels of the crop, logits of visibility and of presence, for each of L; heat: (64, 64, L)
    logits; world: (117,) metres, turned as the crop is.
    """
    values = raw.reshape(ALL, 5)
    places = in_picture(refine(values[:, :2] / CROP_SIZE, heat), one)
    cos, sin = np.cos(one.angle), np.sin(one.angle)
    upright = world.reshape(ALL, 3)[:BODY] @ np.array(((cos, sin, 0), (-sin, cos, 0), (0, 0, 1)), np.float32)
    return Found(float(presence), places[:BODY], upright, _sigmoid(values[:BODY, 3]), places[BODY : BODY + 2])


def refine(points: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Points (L, 2) in units of the crop, moved to the centre of the heat around them where that is strong enough."""
    cells = (points * _HEAT).astype(np.int64)  # (L, 2)
    columns, rows = cells[:, 0, None] + _STEPS, cells[:, 1, None] + _STEPS  # (L, 7)
    inside_x, inside_y = (columns >= 0) & (columns < _HEAT), (rows >= 0) & (rows < _HEAT)
    part = heat[
        np.clip(rows, 0, _HEAT - 1)[:, :, None],
        np.clip(columns, 0, _HEAT - 1)[:, None, :],
        np.arange(len(points))[:, None, None],
    ]  # (L, 7, 7)
    weights = _sigmoid(part) * (inside_y[:, :, None] & inside_x[:, None, :])
    total = weights.sum(axis=(1, 2))
    centre_inside = inside_x[:, _NEAR // 2] & inside_y[:, _NEAR // 2] & (points >= 0).all(axis=1)
    good = centre_inside & (weights.max(axis=(1, 2)) >= _HEATED)
    total = np.maximum(total, 1e-9)
    x = (weights.sum(axis=1) * columns).sum(axis=1) / total
    y = (weights.sum(axis=2) * rows).sum(axis=1) / total
    return np.where(good[:, None], np.stack((x, y), axis=1) / _HEAT, points).astype(np.float32)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
