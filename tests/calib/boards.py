"""Boards and lenses that the tests of calib.camera know the truth of."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from calib import synthetic
from calib.board import Board, make_board
from realtime.lens import Lens

CHESS = make_board("chessboard", "9x6", 25)
CHARUCO = make_board("charuco", "9x6", 25)
LENS = synthetic.SYNTHETIC
FISHEYE = Lens(640, 480, 262.0, 261.0, 322.0, 238.0, (-0.02, 0.008, -0.004, 0.0005), "fisheye", 0.0)


@lru_cache(maxsize=8)
def pictures(board: Board, lens: Lens, count: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """A careful person's views of a board."""
    stances = synthetic.stances(board, lens, count, seed)
    return tuple(synthetic.picture(board, lens, turn, place, seed=index) for index, (turn, place) in enumerate(stances))


def write(folder: Path, images: tuple[np.ndarray, ...] | list[np.ndarray]) -> Path:
    """A folder of these pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        cv2.imwrite(str(folder / f"{index:02d}.png"), image)
    return folder
