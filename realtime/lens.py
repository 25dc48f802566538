"""A camera's lens as calib.camera measured it: from pixels to rays, from points to pixels.

Landmarks are undistorted, never pictures: a body has 33 of them, a picture a million pixels. OpenCV's two models and
its convention of pixels (the centre of the first is 0, 0) and axes (x right, y down, z away).
pinhole: D. C. Brown 1966 with Zhang 2000's intrinsics; fisheye: Kannala and Brandt 2006.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from realtime.errors import UsageError
from realtime.fields import Fields

COUNTS = {"pinhole": (5, 8), "fisheye": (4,)}  # coefficients that each model may have
WIDEST = 1.48  # radians from the axis (85 degrees): beyond, x/z is no number to work with
ROOM = 0.9  # of the radius at which a lens model turns back on itself, how far it is believed
STEPS = 2000  # of the table that inverts a lens model roughly
CLOSE = 1e-10  # in units of the focal length: where Newton's method ends
TURNS = 12  # of Newton's method at most; two or three do


@dataclass(frozen=True, slots=True)
class Lens:
    """Intrinsics in pixels of a width x height picture, and OpenCV's distortion coefficients."""

    NUMBERS: ClassVar[tuple[str, ...]] = (
        *("width", "height", "fx", "fy", "cx", "cy", "distortion", "model", "rms_px"),
    )
    KEYS: ClassVar[tuple[str, ...]] = ("schema", *NUMBERS, "measured")

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...]  # k1 k2 p1 p2 k3 [k4 k5 k6] (pinhole), k1 k2 k3 k4 (fisheye)
    model: str  # pinhole or fisheye
    rms_px: float

    @classmethod
    def of(cls, fields: Fields) -> Lens:
        """From a file's fields (those of NUMBERS); refuses what no lens has."""
        width, height = fields.whole("width", 16, 32768), fields.whole("height", 16, 32768)
        model = fields.text("model")
        fields.need(model in COUNTS, "model", f"one of {', '.join(COUNTS)}")
        given = fields.values["distortion"]
        good = isinstance(given, list) and all(type(one) in (int, float) and abs(one) < 1e6 for one in given)
        counts = " or ".join(str(count) for count in COUNTS[model])
        fields.need(good and len(given) in COUNTS[model], "distortion", f"a list of {counts} numbers ({model})")
        longest = max(width, height)
        fx, fy = (fields.number(key, longest / 20, longest * 50) for key in ("fx", "fy"))
        cx, cy = fields.number("cx", -width, 2 * width), fields.number("cy", -height, 2 * height)
        distortion = tuple(float(one) for one in given)
        return cls(width, height, fx, fy, cx, cy, distortion, model, fields.number("rms_px", 0, 1000))

    def described(self) -> dict[str, Any]:
        """The keys and values of NUMBERS, as a file has them."""
        return {key: list(value) if key == "distortion" else value for key, value in self._items()}

    def shows(self, width: int, height: int) -> bool:
        """Whether a picture of this size shows what the measured ones did: the same shape, scaled, to a pixel."""
        off = abs(height - self.height * width / self.width), abs(width - self.width * height / self.height)
        return min(off) <= 1

    def fits(self, width: int, height: int) -> None:
        """UsageError unless the lens `shows` a picture of this size."""
        if not self.shows(width, height):
            raise UsageError(
                f"the lens was measured in pictures of {self.width}x{self.height}, and these are {width}x{height}, "
                "of another shape: set the camera to the measured size, or run python -m calib.camera at this one"
            )

    def rays(self, pixels: np.ndarray, width: int, height: int) -> np.ndarray:
        """Undistorted x/z, y/z (..., 2) float32, x right and y down, of pixels (..., 2) of a width x height picture.

        The picture may be smaller or larger than the measured ones, of the same shape; UsageError otherwise. Where
        the lens model turns back on itself (far outside the picture) it goes on straight. Exact to 1e-6.
        """
        self.fits(width, height)
        size = np.array((self.width / width, self.height / height))
        places = (np.asarray(pixels, np.float64) + 0.5) * size - 0.5
        seen = (places - (self.cx, self.cy)) / (self.fx, self.fy)
        flat = seen.reshape(-1, 2)
        straight = _undistorted(flat, self.model, self.distortion)
        return straight.reshape(seen.shape).astype(np.float32)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Where points (..., 3), x right, y down, z away, are in a picture of the measured size: (..., 2) float64.

        Not a number where a point is not in front of the camera.
        """
        points = np.asarray(points, np.float64)
        depth = np.where(points[..., 2:] > 0, points[..., 2:], np.nan)
        seen = _distorted((points[..., :2] / depth).reshape(-1, 2), self.model, self.distortion)
        return seen.reshape(*points.shape[:-1], 2) * (self.fx, self.fy) + (self.cx, self.cy)

    def turned(self, degrees: int) -> Lens:
        """The lens of the picture turned clockwise by 0, 90, 180 or 270 degrees."""
        if degrees not in (0, 90, 180, 270):
            raise UsageError(f"a picture is turned by 0, 90, 180 or 270 degrees, got {degrees}")
        lens = self
        for _ in range(degrees // 90):
            bent = lens.distortion
            if lens.model == "pinhole":  # x' = -y, y' = x in the tangential terms; the radial ones stay
                k1, k2, p1, p2, *rest = bent
                bent = (k1, k2, p2, -p1, *rest)
            lens = replace(
                lens, width=lens.height, height=lens.width, fx=lens.fy, fy=lens.fx,
                cx=lens.height - 1 - lens.cy, cy=lens.cx, distortion=bent,
            )  # fmt: skip
        return lens

    @property
    def straight(self) -> bool:
        """Whether it bends nothing; a fisheye always does, also with coefficients that are all 0."""
        return self.model == "pinhole" and not any(self.distortion)

    @property
    def whole(self) -> bool:
        """Whether the model holds over the whole picture, to its corners."""
        corners = np.array([(x, y) for x in (0, self.width) for y in (0, self.height)])
        seen = (corners - (self.cx, self.cy)) / (self.fx, self.fy)
        return bool(np.hypot(*seen.T).max() <= _table(self.model, self.distortion)[1][-1])

    @property
    def field_of_view(self) -> tuple[float, float]:
        """Degrees that the picture's width and height span, distortion included."""
        right, low = self.width - 0.5, self.height - 0.5
        ends = np.array(((-0.5, self.cy), (right, self.cy), (self.cx, -0.5), (self.cx, low)))
        angles = np.degrees(np.arctan(self.rays(ends, self.width, self.height)))
        return float(angles[1, 0] - angles[0, 0]), float(angles[3, 1] - angles[2, 1])

    def _items(self) -> list[tuple[str, Any]]:
        return [(key, getattr(self, key)) for key in self.NUMBERS]


def _bent(points: np.ndarray, k: tuple[float, ...], slopes: bool) -> tuple[np.ndarray, np.ndarray]:
    """Brown's model at points (n, 2): where they appear (n, 2), and its derivatives (n, 2, 2) where asked for."""
    k1, k2, p1, p2, k3, k4, k5, k6 = (*k, 0.0, 0.0, 0.0)[:8]
    x, y = points[:, 0], points[:, 1]
    xx, xy, yy = x * x, x * y, y * y
    r2 = xx + yy
    above, below = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)), 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    radial = above / below
    there = np.empty_like(points)
    there[:, 0] = x * radial + 2 * p1 * xy + p2 * (r2 + 2 * xx)
    there[:, 1] = y * radial + p1 * (r2 + 2 * yy) + 2 * p2 * xy
    if not slopes:
        return there, points
    d_above, d_below = k1 + r2 * (2 * k2 + 3 * k3 * r2), k4 + r2 * (2 * k5 + 3 * k6 * r2)
    twice = 2 * (d_above - radial * d_below) / below  # d radial / d r2, doubled
    slope = np.empty((len(points), 2, 2))
    slope[:, 0, 0] = radial + xx * twice + 2 * p1 * y + 6 * p2 * x
    slope[:, 1, 1] = radial + yy * twice + 6 * p1 * y + 2 * p2 * x
    slope[:, 0, 1] = slope[:, 1, 0] = xy * twice + 2 * p1 * x + 2 * p2 * y
    return there, slope


def _angle(theta: np.ndarray, k: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Kannala and Brandt's model: how far from the middle (n,) an angle (n,) appears, and the derivative."""
    t2 = theta * theta
    k1, k2, k3, k4 = k
    far = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
    return far, 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))


@lru_cache(maxsize=16)
def _table(model: str, k: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """True radii (or angles) and where they appear, both (n,) and growing, up to where the model is to be believed."""
    if model == "fisheye":
        true = np.linspace(0, WIDEST, STEPS)
        seen = _angle(true, k)[0]
    else:
        true = np.tan(np.linspace(0, WIDEST, STEPS))
        points = np.stack((true, np.zeros(STEPS)), axis=1)
        with np.errstate(all="ignore"):  # a denominator may cross zero far outside; the table ends before
            seen = _bent(points, (*k[:2], 0.0, 0.0, *k[4:]), False)[0][:, 0]
    back = np.flatnonzero(~(np.diff(seen) > 0))
    if len(back):
        end = max(int(np.searchsorted(true, ROOM * true[back[0]])), 2)
        true, seen = true[:end], seen[:end]
    true.setflags(write=False)
    seen.setflags(write=False)
    return true, seen


def _undistorted(seen: np.ndarray, model: str, k: tuple[float, ...]) -> np.ndarray:
    """Rays (n, 2) of what appears at (n, 2), both in units of the focal length."""
    true, apparent = _table(model, k)
    far = np.hypot(seen[:, 0], seen[:, 1])
    beyond = np.maximum(far / apparent[-1], 1.0)
    near = far / beyond
    found = np.interp(near, apparent, true)
    if model == "fisheye":
        for _ in range(TURNS):
            there, slope = _angle(found, k)
            step = (there - near) / slope
            found = np.clip(found - step, 0, WIDEST)
            if not (np.abs(step) > CLOSE).any():
                break
        found = np.tan(found)
    scale = np.divide(found, near, out=np.ones_like(far), where=near > 1e-12)
    rays = seen * scale[:, None]
    if model == "pinhole":
        inside = beyond == 1
        rays[inside] = _newton(rays[inside], seen[inside], k)
    return rays


def _newton(rays: np.ndarray, seen: np.ndarray, k: tuple[float, ...]) -> np.ndarray:
    """Rays (n, 2) made exact: those that appear at seen (n, 2)."""
    for _ in range(TURNS):
        there, slope = _bent(rays, k, True)
        off = there - seen
        (a, b), (c, d) = slope[:, 0].T, slope[:, 1].T
        step = np.stack((d * off[:, 0] - b * off[:, 1], a * off[:, 1] - c * off[:, 0]), axis=1)
        step /= (a * d - b * c)[:, None]
        rays = rays - step
        if not (np.abs(step) > CLOSE).any():
            break
    return rays


def _distorted(rays: np.ndarray, model: str, k: tuple[float, ...]) -> np.ndarray:
    """Where rays (n, 2) appear (n, 2), both in units of the focal length.

    Straight on where the model ends, and without its tangential terms there: they would bend the way back.
    """
    true, apparent = _table(model, k)
    far = np.hypot(rays[:, 0], rays[:, 1])
    end = np.tan(true[-1]) if model == "fisheye" else true[-1]
    inside = ~(far > end)  # what is not a number stays so
    seen = rays * (apparent[-1] / end)
    if model == "fisheye":
        near = far[inside]
        there = _angle(np.arctan(near), k)[0]
        seen[inside] = rays[inside] * np.divide(there, near, out=np.ones_like(near), where=near > 1e-12)[:, None]
    else:
        seen[inside] = _bent(rays[inside], k, False)[0]
    return seen
