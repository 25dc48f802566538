"""Pictures of a board as a known lens shows it: for tests, for pages, and to try the tool with no camera."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from calib import vision
from calib.board import Board
from realtime.lens import Lens

SYNTHETIC = Lens(640, 480, 520.0, 522.0, 318.3, 243.1, (-0.28, 0.09, 0.0008, -0.0005, -0.01), "pinhole", 0.0)
FINE = 3  # rays to a pixel's side: a pixel shows the mean of what it covers
TEXTURE = 6.0  # pixels to a millimetre of the drawn board, for squares of 25 mm
PAPER, INK, WALL = 225.0, 30.0, 120.0  # grey


@lru_cache(maxsize=2)
def _rays(lens: Lens) -> np.ndarray:
    """Where each fine pixel of the lens looks: (H * FINE, W * FINE, 2)."""
    across, down = np.arange(lens.width * FINE), np.arange(lens.height * FINE)
    places = np.stack(np.meshgrid(across, down), axis=2)
    return lens.rays((places + 0.5) / FINE - 0.5, lens.width, lens.height)


@lru_cache(maxsize=4)
def drawn(board: Board) -> tuple[np.ndarray, float, float]:
    """The board with its white border, (H, W) uint8; pixels to a millimetre, and the border in mm."""
    scale, border = TEXTURE * 25 / board.square_mm, board.square_mm * 0.8
    size = [round((side + 2 * border) * scale) for side in board.size_mm]
    paper = np.full((size[1], size[0]), PAPER, np.uint8)
    for x, y, width, height in board.blacks:
        left, right = round((x + border) * scale), round((x + width + border) * scale)
        paper[round((y + border) * scale) : round((y + height + border) * scale), left:right] = int(INK)
    return paper, scale, border


def picture(
    board: Board,
    lens: Lens,
    rotation: np.ndarray,
    place: np.ndarray,
    noise: float = 2.0,
    soft_px: float = 0.6,
    seed: int = 0,
) -> np.ndarray:
    """The board's first inner corner at place (3,) metres, turned by rotation (3, 3), as the lens shows it.

    (H, W) uint8; noise: standard deviation in grey levels; soft_px: of the blur that every camera has.
    """
    shown = np.full((lens.height, lens.width), WALL, np.float32)
    left, top, right, low = _frame(board, lens, rotation, place)
    if right > left and low > top:
        fine = _fine(board, lens, rotation, place, (left, top, right, low))
        shown[top:low, left:right] = fine.reshape(low - top, FINE, right - left, FINE).mean(axis=(1, 3))
    if soft_px:
        shown = vision.softened(shown, soft_px)
    shown += np.random.default_rng(seed).normal(0, noise, shown.shape).astype(np.float32)
    return np.clip(np.rint(shown), 0, 255).astype(np.uint8)


def _frame(board: Board, lens: Lens, rotation: np.ndarray, place: np.ndarray) -> tuple[int, int, int, int]:
    """left, top, right, low of the part of the picture that the paper is in."""
    border = drawn(board)[2] + board.square_mm
    width, height = (side + drawn(board)[2] for side in board.size_mm)
    along = np.linspace(0, 1, 25)[:, None]
    corners = np.array(((-border, -border), (width - board.square_mm, -border), (width - board.square_mm,
                        height - board.square_mm), (-border, height - board.square_mm)))  # fmt: skip
    outline = np.concatenate([a + along * (b - a) for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)])
    points = np.concatenate((outline / 1000, np.zeros((len(outline), 1))), axis=1) @ rotation.T + place
    seen = lens.pixels(points)
    size = np.array((lens.width, lens.height))
    low, high = np.clip(np.floor(np.nanmin(seen, axis=0)) - 2, 0, size), np.clip(np.nanmax(seen, axis=0) + 3, 0, size)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _fine(
    board: Board, lens: Lens, rotation: np.ndarray, place: np.ndarray, box: tuple[int, int, int, int]
) -> np.ndarray:
    """FINE x FINE values to each pixel of a part of the picture: what lies where each ray meets the board's plane."""
    left, top, right, low = box
    rays = _rays(lens)[top * FINE : low * FINE, left * FINE : right * FINE]
    turn = rotation.astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.float32(rotation[:, 2] @ place) / (rays @ turn[:2, 2] + turn[2, 2])
    # On the board: R' (ray * depth - place), of which x and y are wanted.
    flat = (rays @ turn[:2, :2] + turn[2, :2]) * depth[..., None] - np.float32(turn[:, :2].T @ place)
    paper, scale, border = drawn(board)
    texel = flat * np.float32(1000 * scale) + np.float32((board.square_mm + border) * scale - 0.5)
    outside = ~(depth > 0) | (texel < 0).any(axis=2) | (texel > (paper.shape[1] - 1, paper.shape[0] - 1)).any(axis=2)
    values = vision.sampled(paper, texel)
    values[outside] = WALL
    return values


def stances(board: Board, lens: Lens, count: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """How a careful person holds the board: all over the picture, near and far, tilted every way.

    Gives rotation (3, 3) and place (3,) of the first inner corner; the whole board is in the picture.
    """
    random = np.random.default_rng(seed)
    points = board.points.astype(np.float64)
    middle, wide = points.mean(axis=0), float(np.linalg.norm(points.max(axis=0)))
    size, given, patience = np.array((lens.width, lens.height)), 0, 0
    sides = np.array(((0.22, 0.25), (0.78, 0.75), (0.78, 0.25), (0.22, 0.75)))
    while given < count:
        # Every other view is sent to a corner, where the lens bends most.
        aim = sides[given // 2 % 4] + random.uniform(-0.08, 0.08, 2) if given % 2 else random.uniform(0.3, 0.7, 2)
        ray = np.array((*lens.rays(aim * size, lens.width, lens.height), 1.0), np.float64)
        ray /= np.linalg.norm(ray)
        tilt, toward = np.radians(random.uniform(15, 40)) * (given % 5 > 0), random.uniform(0, 2 * np.pi)
        turn = _facing(ray) @ vision.rotation(tilt * np.array((np.cos(toward), np.sin(toward), 0)))
        turn = turn @ vision.rotation(np.array((0, 0, random.uniform(-0.3, 0.3))))
        span = random.uniform(0.35, 0.75) * lens.width * (1 - 0.02 * min(patience, 30))  # pixels
        place = ray * wide * lens.fx / span - turn @ middle
        seen = lens.pixels(points @ turn.T + place)
        margin = 0.02 * lens.width
        inside = bool(((seen > margin) & (seen < size - margin)).all())
        patience = 0 if inside else patience + 1
        if inside:
            given += 1
            yield turn, place


def _facing(ray: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) that turns the camera's axis onto a ray (3,) of length 1."""
    axis = np.array((-ray[1], ray[0], 0.0))
    sine = float(np.linalg.norm(axis))
    return vision.rotation(axis / sine * np.arctan2(sine, ray[2]) if sine > 1e-9 else np.zeros(3))
