"""The board that is held into the camera: what its corners measure, what of it is black, and a PDF at true scale."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from calib import vision
from calib.pdf import Page, Rectangle
from realtime.errors import UsageError

Kind = Literal["charuco", "chessboard"]
Paper = Literal["a4", "a3", "letter", "fit"]
PAPERS = {"a4": (210.0, 297.0), "a3": (297.0, 420.0), "letter": (215.9, 279.4)}  # mm
MARKER = 0.72  # of a square's side, unless told
MARGIN_MM = 8.0  # white around the board: printers print no edge, and a chessboard is found by its white border
FOOT_MM = 14.0  # for the words and the bar to measure
BAR_MM = 100.0


@dataclass(frozen=True, slots=True)
class Board:
    """A board of columns x rows inner corners, where four squares meet; its sides in mm."""

    kind: Kind
    columns: int
    rows: int
    square_mm: float
    marker_mm: float

    @property
    def points(self) -> np.ndarray:
        """Where the inner corners are (n, 3) float32, metres from the first, row by row, z 0."""
        across, down = np.meshgrid(np.arange(self.columns), np.arange(self.rows))
        flat = np.stack((across, down, np.zeros_like(across)), axis=2).reshape(-1, 3)
        return (flat * self.square_mm / 1000).astype(np.float32)

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height of all its squares."""
        return (self.columns + 1) * self.square_mm, (self.rows + 1) * self.square_mm

    @property
    def blacks(self) -> list[Rectangle]:
        """What is black: x, y, width, height in mm from the upper left corner of the board, y down."""
        found = []
        side, markers = self.square_mm, 0
        for row in range(self.rows + 1):
            for column in range(self.columns + 1):
                if (row + column) % 2 == 0:
                    found.append((column * side, row * side, side, side))
                elif self.kind == "charuco":
                    left, top = (place * side + (side - self.marker_mm) / 2 for place in (column, row))
                    found += _marker(markers, left, top, self.marker_mm)
                    markers += 1
        return found

    def __str__(self) -> str:
        marker = f", markers {self.marker_mm:g} mm" if self.kind == "charuco" else ""
        return f"{self.kind} of {self.columns}x{self.rows} inner corners, squares {self.square_mm:g} mm{marker}"


def _marker(number: int, left: float, top: float, side: float) -> list[Rectangle]:
    """The black cells of a marker, those beside each other as one."""
    cell = side / vision.CELLS
    found = []
    for row, bits in enumerate(vision.marker_bits(number)):
        starts = np.flatnonzero(np.diff(np.concatenate(([0], bits.astype(int), [0])))).reshape(-1, 2)
        found += [(left + a * cell, top + row * cell, (b - a) * cell, cell) for a, b in starts]
    return found


def make_board(kind: Kind, corners: str, square_mm: float, marker_mm: float | None = None) -> Board:
    """The board that the flags describe; UsageError says which of them no board has."""
    read = re.fullmatch(r"\s*(\d{1,3})\s*[xX×]\s*(\d{1,3})\s*", corners)
    if read is None:
        raise UsageError(f"--corners must be columns x rows of inner corners, such as 9x6, got {corners!r}")
    columns, rows = int(read[1]), int(read[2])
    if not (3 <= columns <= 50 and 3 <= rows <= 50):
        raise UsageError(
            f"--corners must have 3 to 50 inner corners a side, got {columns}x{rows}; count where four squares meet"
        )
    if not 0 < square_mm <= 1000:
        raise UsageError(f"--square-mm must be above 0 and at most 1000 mm, got {square_mm:g}; measure a square's side")
    if kind == "chessboard" and marker_mm is not None:
        raise UsageError("--marker-mm is for --board charuco; a chessboard has no markers: leave it out")
    marker = round(MARKER * square_mm, 3) if marker_mm is None else marker_mm
    if not 0.3 * square_mm <= marker <= 0.9 * square_mm:
        raise UsageError(
            f"--marker-mm must be 0.3 to 0.9 of the square's {square_mm:g} mm, got {marker:g}; "
            "measure a marker's black side"
        )
    if kind == "charuco" and (columns + 1) * (rows + 1) // 2 > vision.MARKERS:
        raise UsageError(f"--corners {columns}x{rows} needs over {vision.MARKERS} markers; take fewer corners")
    return Board(kind, columns, rows, float(square_mm), float(marker))


def board_page(board: Board, paper: Paper) -> Page:
    """A page with the board in its middle at true scale; UsageError where it does not fit on the paper."""
    wide, tall = board.size_mm
    if paper == "fit":
        width, height = max(wide, BAR_MM + 20) + 2 * MARGIN_MM, tall + 2 * MARGIN_MM + FOOT_MM
    else:
        short, long = PAPERS[paper]
        width, height = (long, short) if wide >= tall else (short, long)
    room = width - 2 * MARGIN_MM, height - MARGIN_MM - FOOT_MM
    if wide > room[0] + 1e-6 or tall > room[1] + 1e-6:
        most = min(room[0] / (board.columns + 1), room[1] / (board.rows + 1))
        raise UsageError(
            f"the board measures {wide:g} x {tall:g} mm and {paper} has room for {room[0]:g} x {room[1]:g}: "
            f"take --square-mm {int(most)} at most, or --paper {'a3' if paper != 'a3' else 'fit'}"
        )
    left, top = (width - wide) / 2, max((height - tall) / 2 - (FOOT_MM - MARGIN_MM) / 2, MARGIN_MM)
    page = Page(width, height)
    page.rectangles += [(left + x, top + y, w, h) for x, y, w, h in board.blacks]
    foot = height - 7.0
    page.rectangles += [(MARGIN_MM + 5, foot, BAR_MM, 0.4)]
    page.rectangles += [(MARGIN_MM + 5 + end, foot - 1.5, 0.3, 3.4) for end in (0.0, BAR_MM - 0.3)]
    words = f"{board}. Print at 100 %, not fitted to the page: the bar must measure {BAR_MM:g} mm."
    page.texts.append((MARGIN_MM + 5, foot + 4.2, 2.4, words))
    return page
