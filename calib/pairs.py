"""Pairs of pictures of one board, by a colour camera and by a depth camera's infrared one: found, matched, read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from calib import vision
from calib.board import Board
from calib.stereo import Pair, angle_of, start_of
from calib.views import LEAST_CORNERS, Finder, LeftOut, View, blurred
from realtime.errors import SourceError, UsageError
from realtime.image import read_deep
from realtime.lens import Lens

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
INFRARED_ENDS = (0.5, 99.5)  # percent of an infrared picture's values that become black and white


@dataclass
class Seen:
    """What was found in two folders: the views of each pair, and the pictures that are left out."""

    color: list[View] = field(default_factory=list)
    depth: list[View] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    of: int = 0  # pairs of files


def match(color: Path, infrared: Path) -> list[tuple[Path, Path]]:
    """Files of two folders that belong together: of the same name, or else of the same last number in it.

    SourceError where a folder has no pictures, or no two belong together.
    """
    folders = [(flag, _pictures(flag, path)) for flag, path in (("--color", color), ("--infrared", infrared))]
    for key in (lambda path: path.stem, _last_number):
        left, right = ({key(path): path for path in files} for _, files in folders)
        both = sorted((set(left) & set(right)) - {None}, key=lambda one: (len(str(one)), str(one)))
        if both:
            return [(left[one], right[one]) for one in both]
    names = " and ".join(f"{files[0].name} in {flag}" for flag, files in folders)
    raise SourceError(f"no two pictures of the folders belong together (the first are {names}); give both one name")


def _pictures(flag: str, folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise SourceError(f"{flag} {folder} is no folder; name the one that holds this camera's pictures of the board")
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    except OSError as error:
        raise SourceError(f"{flag} {folder}: {error.strerror}; check its permissions") from error
    if not files:
        raise SourceError(
            f"{flag} {folder} holds no pictures ({' '.join(PICTURES)}); put this camera's pictures of the board into it"
        )
    return files


def _last_number(path: Path) -> int | None:
    found = re.findall(r"\d+", path.stem)
    return int(found[-1]) if found else None


def read_infrared(path: Path) -> np.ndarray | None:
    """An infrared picture as (H, W) uint8, upright by its own mark; None where it cannot be read.

    They often have 16 bits of which few are used: what is dark and what is bright in them is spread.
    """
    image = read_deep(path)
    if image is None:
        return None
    if image.ndim == 3:
        image = image[..., :3].astype(np.float32) @ np.array((0.114, 0.587, 0.299), np.float32)
    if image.dtype != np.uint8:
        low, high = np.percentile(image, INFRARED_ENDS)
        image = np.clip((image.astype(np.float32) - low) * (255 / max(high - low, 1e-6)), 0, 255).astype(np.uint8)
    return image


def read_pairs(files: list[tuple[Path, Path]], board: Board, each: Callable[[int, int], None]) -> Seen:
    """Looks for the board in each pair; each(done, of) is called as it goes. UsageError where sizes are mixed."""
    finder = Finder(board)
    seen = Seen(of=len(files))
    sizes: dict[str, Counter[tuple[int, ...]]] = {"color": Counter(), "infrared": Counter()}
    for done, paths in enumerate(files):
        each(done, len(files))
        views = []
        for what, read, path in zip(sizes, (vision.read_picture, read_infrared), paths, strict=True):
            picture = read(path)
            if picture is None:
                seen.left_out.append(LeftOut(f"{what} {path.name}", "unreadable", "it cannot be read: damaged?"))
                break
            sizes[what][picture.shape[::-1]] += 1
            view = finder(picture, path.name)
            if view is None or blurred(view, board):
                why = "the board was not found in it" if view is None else "it is blurred"
                seen.left_out.append(LeftOut(f"{what} {path.name}", "no board" if view is None else "blurred", why))
                break
            views.append(view)
        if len(views) == 2 and len(np.intersect1d(views[0].numbers, views[1].numbers)) < _least(board):
            why = "the two cameras see too few of the same corners"
            seen.left_out.append(LeftOut(views[0].name, "few corners", why))
        elif len(views) == 2:
            seen.color.append(views[0])
            seen.depth.append(views[1])
    each(len(files), len(files))
    for what, counted in sizes.items():
        if len(counted) > 1:
            raise UsageError(
                f"--{what}: its pictures are of {len(counted)} sizes ({_sizes(counted)}); keep those of one, the size "
                "that the camera will run at"
            )
    return seen


def _least(board: Board) -> int:
    return min(LEAST_CORNERS, board.columns * board.rows)


def _sizes(counted: Counter[tuple[int, ...]]) -> str:
    return ", ".join(f"{count} of {size[0]}x{size[1]}" for size, count in counted.most_common(3))


def join(seen: Seen, board: Board, color: Lens, depth: Lens) -> list[Pair]:
    """The corners that both cameras see, pair by pair.

    A plain chessboard looks the same upside down, so that a camera may count its corners from the other end: of both
    ways the one is taken in which the cameras are turned less against each other.
    """
    pairs = []
    for first, second in zip(seen.color, seen.depth, strict=True):
        numbers, one, two = np.intersect1d(first.numbers, second.numbers, return_indices=True)
        points = board.points[numbers].astype(np.float64)
        pair = Pair(first.name, points, second.corners[two], first.corners[one])
        if board.kind == "chessboard":
            other = Pair(first.name, points, second.corners[two][::-1], first.corners[one])
            pair = min((pair, other), key=lambda each: angle_of(start_of(each, color, depth)[0]))
        pairs.append(pair)
    return pairs
