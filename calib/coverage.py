"""Where in the picture the board has been, how it was held, and what is still missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calib import vision
from calib.board import Board
from calib.views import View

COLUMNS, ROWS = 8, 6  # cells of the map
ENOUGH = 0.75  # of the cells with a corner in them: what the guide asks for
LEAST = 0.4  # below, a calibration is refused: the lens would be made up where nothing was seen
TILTED = 15.0  # degrees: a board held so slants enough to tell the focal length
TILTS = 4  # views tilted so that the guide asks for
DIRECTIONS = 3  # different ways they lean
VIEWS = 15  # views that the guide asks for
NEW_PLACE, NEW_SIZE, NEW_TILT = 0.12, 0.15, 12.0  # parts of the picture's width, of the size, degrees
MARKS = " .:+#"  # of a cell with 0, 1 to 3, 4 to 9, 10 to 24 and more corners
_STEPS = (1, 4, 10, 25)


@dataclass(frozen=True, slots=True)
class Stance:
    """How the board is held in one view, told without knowing the lens.

    middle: (2,) in widths and heights of the picture; size: the board's diagonal in diagonals of the picture; lean:
    (2,) degrees towards x and y of the picture by which it slants, about right.
    """

    middle: np.ndarray
    size: float
    lean: np.ndarray

    @property
    def tilt(self) -> float:
        """Degrees between the board and the picture's plane, about right."""
        return float(np.hypot(*self.lean))


def stance(view: View, board: Board) -> Stance:
    """How the board is held: from the homography of its corners, taken for a pinhole with square pixels."""
    points = board.points[:, :2].astype(np.float64)
    found = vision.homography(points[view.numbers], view.corners)
    size = np.array(view.size, np.float64)
    middle = view.corners.mean(axis=0) / size
    if found is None or abs(found[2, 2]) < 1e-12:
        return Stance(middle, 0.0, np.zeros(2))
    centre = points[view.numbers].mean(axis=0)
    above, below = found[:2] @ (*centre, 1.0), float(found[2] @ (*centre, 1.0))
    slopes = found[:2, :2] / below - np.outer(above, found[2, :2]) / below**2  # pixels in a metre there
    left, lengths, _ = np.linalg.svd(slopes)
    tilt = float(np.degrees(np.arccos(np.clip(lengths[1] / max(lengths[0], 1e-12), 0, 1))))
    # It leans along the axis that looks short; towards which end, the change of scale along it tells.
    growth = -found[2, :2] / below @ np.linalg.pinv(slopes)
    way = left[:, 1] * (1.0 if growth @ left[:, 1] >= 0 else -1.0)
    extent = np.linalg.norm(points.max(axis=0) - points.min(axis=0)) * lengths[0]
    return Stance(middle, float(extent / np.hypot(*size)), tilt * way)


class Coverage:
    """The map of a picture of this size, and the stances so far."""

    def __init__(self, size: tuple[int, int], board: Board) -> None:
        self.size, self.board = size, board
        self.counts = np.zeros((ROWS, COLUMNS), int)
        self.stances: list[Stance] = []

    def add(self, view: View) -> None:
        """Takes in one view."""
        np.add.at(self.counts, self._cells(view), 1)
        self.stances.append(stance(view, self.board))

    def fresh(self, view: View) -> bool:
        """Whether this view shows something that those before it did not."""
        rows, columns = self._cells(view)
        if (self.counts[rows, columns] == 0).sum() >= 3:
            return True
        here = stance(view, self.board)
        return not any(_alike(here, other) for other in self.stances)

    @property
    def share(self) -> float:
        """The part of the map in which the board has been."""
        return float((self.counts > 0).mean())

    @property
    def tilts(self) -> int:
        """Views in which the board was tilted."""
        return sum(one.tilt >= TILTED for one in self.stances)

    @property
    def directions(self) -> int:
        """How many of eight ways the tilted boards leaned."""
        leans = [one.lean for one in self.stances if one.tilt >= TILTED]
        return len({int(np.round(np.arctan2(lean[1], lean[0]) / (np.pi / 4))) % 8 for lean in leans})

    @property
    def distinct(self) -> int:
        """Views that differ from each other in place, size or tilt."""
        kept: list[Stance] = []
        for one in self.stances:
            if not any(_alike(one, other, 0.25) for other in kept):
                kept.append(one)
        return len(kept)

    @property
    def done(self) -> bool:
        """Whether the guide has nothing more to ask."""
        return self.missing() is None

    def missing(self) -> str | None:
        """The next thing to do, in words; None where nothing is missing."""
        if not self.stances:
            return "hold the board so that all of it is in the picture"
        if self.share < ENOUGH:
            return f"bring the board to the {self._emptiest()}"
        if self.tilts < TILTS or self.directions < DIRECTIONS:
            return "tilt the board by some 30 degrees: its upper edge away, then its lower, left and right edge"
        sizes = [one.size for one in self.stances]
        if max(sizes) < 0.45:
            return "bring the board nearer, until it fills half of the picture"
        if len(self.stances) < VIEWS:
            left = VIEWS - len(self.stances)
            return f"{left} more {'view' if left == 1 else 'views'}, each a little different"
        return None

    def text(self) -> str:
        """The map in letters."""
        edge = "+" + "-" * (2 * COLUMNS) + "+"
        marks = np.array(list(MARKS))[np.digitize(self.counts, _STEPS)]
        return "\n".join((edge, *("|" + "".join(one * 2 for one in row) + "|" for row in marks), edge))

    def _cells(self, view: View) -> tuple[np.ndarray, np.ndarray]:
        places = view.corners / self.size * (COLUMNS, ROWS)
        columns, rows = np.clip(places.astype(int), 0, (COLUMNS - 1, ROWS - 1)).T
        return rows, columns

    def _emptiest(self) -> str:
        """The part of the picture, of nine, with the most empty cells; corners first, which tell most of the lens."""
        empty = self.counts == 0
        parts = [(row, column) for row in range(3) for column in range(3)]
        share = [
            empty[2 * row : 2 * row + 2, (0, 3, 5)[column] : (3, 5, 8)[column]].mean()
            + 0.01 * (row != 1) * (column != 1)
            for row, column in parts
        ]
        row, column = parts[int(np.argmax(share))]
        words = f"{('upper', '', 'lower')[row]} {('left', '', 'right')[column]}".strip()
        return f"{words or 'middle'} of the picture"


def _alike(one: Stance, other: Stance, part: float = 1.0) -> bool:
    return (
        float(np.linalg.norm(one.middle - other.middle)) < NEW_PLACE * part
        and abs(one.size - other.size) < NEW_SIZE * part
        and float(np.linalg.norm(one.lean - other.lean)) < NEW_TILT * part
    )
