"""Where a depth camera stands to its colour camera, as calib.depth measured it or the cameras' maker states it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from realtime.errors import LineError, SourceError
from realtime.fields import Fields
from realtime.lens import Lens

SQUARE = 1e-3  # how far a rotation's columns may be from perpendicular and from length 1
FARTHEST_M = 5.0  # two cameras of one device stand some centimetres apart; two on a wall, metres


@dataclass(frozen=True, slots=True)
class Rig:
    """Both lenses, and the motion from the depth camera's space to the colour camera's.

    A point p (3,) in metres of the depth camera (x right, y down, z away) is rotation @ p + translation_m in the
    colour camera. Cameras that are one, or pictures that are registered already: the same lens twice, the identity, 0.
    """

    KEYS: ClassVar[tuple[str, ...]] = ("schema", "color", "depth", "rotation", "translation_m", "measured")

    color: Lens
    depth: Lens
    rotation: tuple[tuple[float, ...], ...]  # (3, 3)
    translation_m: tuple[float, ...]  # (3,)

    @classmethod
    def of(cls, fields: Fields) -> Rig:
        """From a file's fields; refuses what no pair of cameras has."""
        color, depth = (_lens(fields, key) for key in ("color", "depth"))
        rotation = _numbers(fields, "rotation", (3, 3), "3 rows of 3 numbers")
        square = np.abs(rotation @ rotation.T - np.eye(3)).max() <= SQUARE and np.linalg.det(rotation) > 0
        fields.need(bool(square), "rotation", "a rotation: rows of length 1, at right angles, no mirror")
        translation = _numbers(fields, "translation_m", (3,), "3 numbers in metres")
        near = np.linalg.norm(translation) <= FARTHEST_M
        fields.need(bool(near), "translation_m", f"metres, at most {FARTHEST_M:.0f} in all (are these millimetres?)")
        return make_rig(color, depth, rotation, translation)

    @property
    def registered(self) -> bool:
        """Whether each depth pixel lies already on the colour pixel of the same place."""
        still = np.array_equal(self.rotation, np.eye(3)) and not any(self.translation_m)
        return bool(still) and self.color == self.depth

    @property
    def baseline_m(self) -> float:
        """How far the cameras are from each other."""
        return float(np.linalg.norm(self.translation_m))

    @property
    def angle_deg(self) -> float:
        """How far one camera is turned against the other."""
        return float(np.degrees(np.arccos(np.clip((np.trace(np.array(self.rotation)) - 1) / 2, -1, 1))))

    def document(self, measured: dict[str, Any] | None = None) -> dict[str, Any]:
        """The object that `of` reads, ready for json. measured: what people may want to know of it."""
        lenses = {key: getattr(self, key).described() for key in ("color", "depth")}
        motion = {"rotation": [list(row) for row in self.rotation], "translation_m": list(self.translation_m)}
        return {"schema": "calib-depth/1", **lenses, **motion, "measured": measured or {}}

    def fits(self, color: tuple[int, int] | None, depth: tuple[int, int] | None, named: str) -> None:
        """SourceError where pictures of these sizes (width, height) are not those of the lenses."""
        for what, size, lens in (("colour", color, self.color), ("depth", depth, self.depth)):
            if size is not None and not lens.shows(*size):
                raise SourceError(
                    f"{named}: its {what} pictures are {size[0]}x{size[1]}, the {what} lens was measured on "
                    f"{lens.width}x{lens.height}: another shape; measure again with python -m calib.depth"
                )


def make_rig(color: Lens, depth: Lens, rotation: np.ndarray, translation_m: np.ndarray) -> Rig:
    """From arrays (3, 3) and (3,) metres. A rotation that is rounded is made square; one that is stays as it is."""
    exact = np.asarray(rotation, float)
    if np.abs(exact @ exact.T - np.eye(3)).max() > 1e-12:
        left, _, right = np.linalg.svd(exact)
        exact = left @ right
    rows = tuple(tuple(float(value) for value in row) for row in exact)
    return Rig(color, depth, rows, tuple(float(value) for value in np.ravel(translation_m)))


def rig_of(path: Path, document: Any, what: str, remedy: str, error: type[LineError] = SourceError) -> Rig:
    """A rig that stands in another file, under its key "rig"; `error` says what is wrong with it."""
    kind = type("Stated", (Fields,), {"what": what, "file": "rig", "remedy": remedy, "error": error})
    if isinstance(document, dict):
        document = {"schema": "calib-depth/1", "measured": {}, **document}
    return Rig.of(kind(path, document, Rig.KEYS, "rig."))


def _lens(fields: Fields, key: str) -> Lens:
    return Lens.of(type(fields)(fields.path, fields.values[key], Lens.NUMBERS, f"{fields.prefix}{key}."))


def _numbers(fields: Fields, key: str, shape: tuple[int, ...], rule: str) -> np.ndarray:
    try:
        values = np.array(fields.values[key], np.float64)
    except (TypeError, ValueError, OverflowError):
        values = np.empty(0)
    fields.need(values.shape == shape and bool(np.isfinite(values).all()), key, rule)
    return values
