"""What the pictures show of the board: one View each, and each picture that is left out with its reason."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from calib import vision
from calib.board import Board
from realtime.errors import SourceError, UsageError

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
LEAST_VIEWS = 8  # that make a calibration
LEAST_CORNERS = 12  # of a ChArUco board that is seen in part
LEAST_SHARE = 0.25  # and of its corners
EDGE_PX = 5.0  # an edge wider than this, in pictures of up to 1280 pixels, is blurred; a sharp one is 1.5 to 3
EDGE_SHARE = 0.22  # and one wider than this part of a square, however large the picture
EDGES, EDGE_REACH = 200, 40  # so many of the steepest places are looked at, so many pixels to each side
FAINT = 25.0  # grey levels: an edge of less is noise
STEEPEST_PX = 9.0  # where no board is found: a picture whose steepest edges are wider than this is blurred


@dataclass(frozen=True, slots=True)
class View:
    """One picture's corners (n, 2) in pixels, their numbers (n,) on the board, and how wide its edges are in pixels."""

    name: str
    size: tuple[int, int]  # width, height
    corners: np.ndarray
    numbers: np.ndarray
    edge_px: float
    square_px: float  # the shortest side of a square


class LeftOut(NamedTuple):
    """A picture that is not used, and why, in a word and in a sentence."""

    name: str
    reason: str  # unreadable, cut, duplicate, no board, few corners or blurred
    why: str


@dataclass
class Reading:
    """What was read so far."""

    views: list[View] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    steepest: list[float] = field(default_factory=list)  # edges in pixels, of pictures without a board
    light: list[float] = field(default_factory=list)  # their mean grey
    read: int = 0

    @property
    def unsharp(self) -> float | None:
        """How wide the edges of pictures without a board are, in pixels; None where they are sharp."""
        wide = float(np.median(self.steepest)) if self.steepest else 0.0
        return wide if wide > STEEPEST_PX else None

    def count(self, reason: str) -> int:
        """How many pictures were left out for this reason."""
        return sum(one.reason == reason for one in self.left_out)


class Finder:
    """Looks for one board in pictures."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self._charuco = None
        if board.kind == "charuco":
            self._charuco = vision.CharucoFinder(board.columns, board.rows, board.square_mm, board.marker_mm)
        self._all = np.arange(board.columns * board.rows)

    def __call__(self, picture: np.ndarray, name: str, thorough: bool = True) -> View | None:
        """The view of a picture (H, W) uint8, None where the board is not found in it."""
        if self._charuco is not None:
            found = self._charuco(picture)
        else:
            corners = vision.find_chessboard(picture, self.board.columns, self.board.rows, thorough)
            found = None if corners is None else (corners, self._all)
        if found is None:
            return None
        corners, numbers = found
        edge, square = self._edges(picture, corners, numbers)
        size = (picture.shape[1], picture.shape[0])
        return View(name, size, corners.astype(np.float64), numbers, edge, square)

    def _edges(self, picture: np.ndarray, corners: np.ndarray, numbers: np.ndarray) -> tuple[float, float]:
        """How wide edges between neighbouring corners are, the blurrier of both directions, and the shortest side."""
        place = {int(number): corner for number, corner in zip(numbers, corners, strict=True)}
        # Marks stand beside the edges of a ChArUco board: what is looked at ends before them.
        reach = (1 - self.board.marker_mm / self.board.square_mm) / 2 if self.board.kind == "charuco" else 0.35
        widths, sides = [], []
        for step in (1, self.board.columns):
            ends = [
                (place[number], place[number + step])
                for number in place
                if number + step in place and (step > 1 or (number + 1) % self.board.columns)
            ]
            if not ends:
                continue
            pairs = np.array(ends)  # (n, 2, 2)
            along = pairs[:, 1] - pairs[:, 0]
            side = np.linalg.norm(along, axis=1)
            across = np.stack((-along[:, 1], along[:, 0]), axis=1)  # as long as the side
            offsets = np.linspace(-reach, reach, 41)
            places = pairs.mean(axis=1)[:, None] + offsets[None, :, None] * across[:, None]
            values = vision.sampled(picture, places)
            steepest = np.abs(np.gradient(values, axis=1)).max(axis=1) / (side * (offsets[1] - offsets[0]))
            contrast = np.abs(values[:, -4:].mean(axis=1) - values[:, :4].mean(axis=1))
            widths.append(float(np.median(contrast / np.maximum(steepest, 1e-3))))
            sides.append(float(side.min()))
        return (max(widths), min(sides)) if widths else (np.inf, 0.0)


def blurred(view: View, board: Board) -> bool:
    """Whether the edges are too wide to say where they are."""
    most = EDGE_PX * max(1.0, max(view.size) / 1280)
    share = EDGE_SHARE if board.kind == "charuco" else 1.5 * EDGE_SHARE
    return view.edge_px > min(most, max(share * view.square_px, 2.0))


def complete(view: View, board: Board) -> bool:
    """Whether enough of the board is seen."""
    whole = board.columns * board.rows
    return len(view.numbers) >= min(max(LEAST_CORNERS, LEAST_SHARE * whole), whole)


def list_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder in natural order of name; SourceError where there is none, and says what there is."""
    if not folder.exists():
        raise SourceError(f"--images {folder}: no such folder; name the one that holds the pictures of the board")
    if not folder.is_dir():
        raise SourceError(f"--images {folder} is a file, not a folder; name the folder that it lies in")
    try:
        files = sorted((one for one in folder.iterdir() if one.is_file()), key=_natural)
    except OSError as error:
        raise SourceError(f"--images {folder}: {error.strerror}; check its permissions") from error
    if not files:
        raise SourceError(
            f"--images {folder} is empty; put {LEAST_VIEWS} pictures of the board into it at least, better 15 to 30"
        )
    found = [one for one in files if one.suffix.lower() in PICTURES]
    if not found:
        raise SourceError(
            f"--images {folder}: none of its {len(files)} files is a picture ({' '.join(PICTURES)}), the first is "
            f"{files[0].name}; name the folder that holds the pictures"
        )
    return found


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"([0-9]+)", path.name)]


def read_folder(folder: Path, finder: Finder, each: Callable[[int, int], None]) -> Reading:
    """Every picture of a folder looked at; each(done, of) is called as it goes.

    Raises SourceError where none can be read, UsageError where they are not all of one size.
    """
    files = list_pictures(folder)
    reading, sizes = Reading(), {}
    seen: dict[bytes, str] = {}
    for done, path in enumerate(files):
        each(done, len(files))
        picture = vision.read_picture(path)
        if picture is None:
            reading.left_out.append(LeftOut(path.name, "unreadable", "it is no picture that can be read: damaged?"))
            continue
        if cut_short(path):
            reading.left_out.append(LeftOut(path.name, "cut", "its file is cut short: copy it again"))
            continue
        sizes[path.name] = (picture.shape[1], picture.shape[0])
        digest = hashlib.sha256(picture.tobytes()).digest()
        if digest in seen:
            why = f"it is the same picture as {seen[digest]}"
            reading.left_out.append(LeftOut(path.name, "duplicate", why))
            continue
        seen[digest] = path.name
        look(reading, finder, picture, path.name)
    each(len(files), len(files))
    if not sizes:
        raise SourceError(
            f"--images {folder}: none of its {len(files)} pictures can be read (the first is {files[0].name}); "
            "are they complete, and really pictures?"
        )
    _one_size(sizes)
    return reading


def look(reading: Reading, finder: Finder, picture: np.ndarray, name: str) -> View | None:
    """Looks for the board in one more picture and notes what came of it; the view where it is good."""
    reading.read += 1
    view = finder(picture, name)
    if view is None:
        reading.steepest.append(steepest_edge(picture))
        reading.light.append(float(picture.mean()))
        reading.left_out.append(LeftOut(name, "no board", "the board was not found in it"))
    elif not complete(view, finder.board):
        seen = f"only {len(view.numbers)} of {finder.board.columns * finder.board.rows} corners are in it"
        reading.left_out.append(LeftOut(name, "few corners", seen))
    elif blurred(view, finder.board):
        why = f"it is blurred: its edges are {view.edge_px:.1f} pixels wide"
        reading.left_out.append(LeftOut(name, "blurred", why))
    else:
        reading.views.append(view)
        return view
    return None


def cut_short(path: Path) -> bool:
    """Whether a JPEG or PNG ends before its end mark: decoders make up the rest in grey, and say nothing."""
    try:
        content = path.read_bytes()
    except OSError:
        return True
    if content[:3] == b"\xff\xd8\xff":
        return b"\xff\xd9" not in content[-4096:]
    return content[:4] == b"\x89PNG" and b"IEND" not in content[-4096:]


def steepest_edge(picture: np.ndarray) -> float:
    """How many pixels wide the steepest edges of a picture (H, W) are; 0 where it has none to speak of."""
    values = picture.astype(np.float32)
    slopes = np.abs(np.diff(values, axis=1))
    steepest = np.argpartition(slopes.ravel(), -EDGES)[-EDGES:] if slopes.size > EDGES else np.arange(slopes.size)
    rows, columns = np.unravel_index(steepest, slopes.shape)
    around = np.clip(columns[:, None] + np.arange(-EDGE_REACH, EDGE_REACH + 1), 0, values.shape[1] - 1)
    range_there = np.ptp(values[rows[:, None], around], axis=1)
    if not len(range_there) or np.median(range_there) < FAINT:
        return 0.0
    return float(np.median(range_there / np.maximum(slopes[rows, columns], 0.5)))


def _one_size(sizes: dict[str, tuple[int, int]]) -> None:
    """UsageError unless all pictures measure the same."""
    common = Counter(sizes.values()).most_common()
    if len(common) == 1:
        return
    (width, height), most = common[0]
    other = common[1][0]
    names = _some(name for name, size in sizes.items() if size == other)
    turned = other == (height, width)
    advice = (
        "some were taken with the camera turned: take all of them the same way round"
        if turned
        else "a lens is measured at one size: keep those of one size, the one that the camera will run at"
    )
    raise UsageError(
        f"the pictures are not of one size: {most} are {width}x{height}, {common[1][1]} are "
        f"{other[0]}x{other[1]} ({names}); {advice}"
    )


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
