"""The coverage map as a picture: where corners were, how far off they are, how the board leaned."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np

from calib import vision
from calib.coverage import COLUMNS, ROWS, TILTED, Coverage
from calib.lens_fit import Fit
from calib.views import View

WIDTH = 640  # of the map in pixels
SIDE = 220  # of the panel beside it
FOOT = 74
EXAGGERATED = 40  # times longer than they are, residuals are drawn
INK, FAINT, PAPER = (40, 40, 40), (190, 190, 190), (255, 255, 255)
GREEN, BLUE, RED = (96, 168, 72), (190, 110, 40), (60, 60, 210)
FULL = 25  # corners in a cell that make it full green


def draw_map(coverage: Coverage, views: Sequence[View], fit: Fit | None = None, text: str = "") -> np.ndarray:
    """The map, with residuals where there is a fit of these views: (H, W, 3) uint8 BGR."""
    height = round(WIDTH * coverage.size[1] / coverage.size[0])
    canvas = np.full((height + FOOT, WIDTH + SIDE, 3), 255, np.uint8)
    canvas[:height, :WIDTH] = shaded(np.full((height, WIDTH, 3), 245, np.uint8), coverage)
    scale = WIDTH / coverage.size[0]
    for place, view in enumerate(views):
        corners = (view.corners + 0.5) * scale - 0.5
        for number, corner in enumerate(corners):
            vision.dot(canvas, corner, 1.3, BLUE)
            if fit is not None:
                vision.line(canvas, corner, corner + fit.residuals[place][number] * scale * EXAGGERATED, RED)
    _leans(canvas, coverage)
    vision.words(
        canvas, f"{coverage.share:.0%} of the picture, {len(coverage.stances)} views", (8, height + 20), 0.5, INK
    )
    if fit is not None:
        vision.words(canvas, f"red: errors, {EXAGGERATED} times longer", (WIDTH - 250, height + 20), 0.45, RED)
    for row, part in enumerate(textwrap.wrap(text, 105)[:2]):
        vision.words(canvas, part, (8, height + 42 + 18 * row), 0.45, INK)
    return canvas


def shaded(picture: np.ndarray, coverage: Coverage) -> np.ndarray:
    """A picture (H, W, 3) with the map's cells over it, green where the board has been."""
    height, width = picture.shape[:2]
    shown = picture.astype(np.float32)
    for row in range(ROWS):
        for column in range(COLUMNS):
            top, low = round(row * height / ROWS), round((row + 1) * height / ROWS)
            left, right = round(column * width / COLUMNS), round((column + 1) * width / COLUMNS)
            part = 0.6 * min(1.0, coverage.counts[row, column] / FULL)
            cell = shown[top:low, left:right]
            cell += part * (np.array(GREEN, np.float32) - cell)
            shown[top, left:right] = shown[top:low, left] = FAINT
    return shown.astype(np.uint8)


def draw_live(image: np.ndarray, coverage: Coverage | None, view: View | None, lines: Sequence[str]) -> np.ndarray:
    """What a person sees while the board is held: the picture small, the map over it, the corners, what to do."""
    height = round(WIDTH * image.shape[0] / image.shape[1])
    shown = vision.enlarged(image, WIDTH, height)
    if coverage is not None:
        shown = shaded(shown, coverage)
    if view is not None:
        for corner in (view.corners + 0.5) * WIDTH / view.size[0] - 0.5:
            vision.dot(shown, corner, 2.5, RED)
    canvas = np.full((height + 24 * len(lines) + 8, WIDTH, 3), 255, np.uint8)
    canvas[:height] = shown
    for row, text in enumerate(lines):
        vision.words(canvas, text, (8, height + 20 + 24 * row), 0.5, INK)
    return canvas


def _leans(canvas: np.ndarray, coverage: Coverage) -> None:
    """A dial beside the map: each view a dot, in the middle where the board faced the camera."""
    middle, most = (WIDTH + SIDE / 2, SIDE / 2 + 24), 50.0
    reach = SIDE / 2 - 22
    for degrees in (TILTED, 30.0, 45.0):
        vision.ring(canvas, middle, degrees / most * reach, FAINT)
        vision.words(
            canvas, f"{degrees:.0f}", (int(middle[0] + degrees / most * reach) - 8, int(middle[1]) + 14), 0.35, FAINT
        )
    for one in coverage.stances:
        lean = one.lean * min(1.0, most / max(one.tilt, 1e-6)) / most * reach
        vision.dot(canvas, lean + middle, 3.0, GREEN if one.tilt >= TILTED else BLUE)
    vision.words(canvas, "tilt of the board, degrees", (WIDTH + 16, 20), 0.42, INK)
