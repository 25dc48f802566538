"""The lens that explains the views: fitted, judged view by view, and tried on views that it was not fitted to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from calib import vision
from calib.board import Board
from calib.outliers import without_outliers
from calib.views import View
from realtime.errors import UsageError
from realtime.lens import Lens

Model = Literal["pinhole", "rational", "fisheye"]
FOLDS = 5
OUTLIER_PX = 0.5  # a view that is at least so bad, and much worse than the middle one, is left out


@dataclass(frozen=True, slots=True)
class Fit:
    """A lens and how well it explains its views.

    residuals: (n, 2) pixels of each view, seen minus expected; errors: (n,) their RMS lengths; deviations: standard
    deviations of fx, fy, cx, cy and the distortion; rotations (n, 3, 3) and places (n, 3) of the board in each view.
    """

    lens: Lens
    residuals: list[np.ndarray]
    errors: np.ndarray
    deviations: np.ndarray
    rotations: np.ndarray
    places: np.ndarray


def fit(views: Sequence[View], board: Board, model: Model) -> Fit:
    """The lens of these views, all of one size. rms_px is the RMS length of all residuals, as OpenCV's.

    Raises UsageError where nothing fits at all.
    """
    size = views[0].size
    points = [board.points[view.numbers] for view in views]
    places = [view.corners for view in views]
    if model == "fisheye":
        solved = vision.solve_fisheye(points, places, size)
    else:
        solved = vision.solve_pinhole(points, places, size, model == "rational")
    if solved is None or not np.isfinite(solved.numbers).all():
        raise UsageError(
            f"no {model} lens explains these {len(views)} views at all: take them again, the board flat and whole, or "
            f"try --model {'pinhole' if model == 'fisheye' else 'fisheye'}"
        )
    fx, fy, cx, cy, *bent = (float(one) for one in solved.numbers)
    kind = "fisheye" if model == "fisheye" else "pinhole"
    lens = Lens(size[0], size[1], fx, fy, cx, cy, tuple(bent), kind, 0.0)
    rotations = np.array([vision.rotation(turn) for turn in solved.rotations])
    residuals = [
        seen - lens.pixels(known @ turn.T + move)
        for known, seen, turn, move in zip(points, places, rotations, solved.places, strict=True)
    ]
    rms = _rms(np.concatenate(residuals))
    lens = Lens(size[0], size[1], fx, fy, cx, cy, tuple(bent), kind, round(rms, 5))
    errors = np.array([_rms(one) for one in residuals])
    return Fit(lens, residuals, errors, solved.deviations, rotations, solved.places)


def fit_without_outliers(
    views: Sequence[View], board: Board, model: Model, least: int
) -> tuple[Fit, list[View], list[tuple[View, float]]]:
    """The fit, the views it stands on, and those left out because they contradict the others, each with its error.

    A board that bent in a hand or a corner taken for another spoils one view, and through it the lens. At least
    `least` views are kept.
    """
    return without_outliers(views, lambda kept: fit(kept, board, model), least, OUTLIER_PX)


def hold_out(views: Sequence[View], board: Board, model: Model, each: Callable[[int, int], None]) -> float:
    """RMS pixels in views that the lens was not fitted to, each view being left out once (in FOLDS parts).

    The board's pose in such a view comes from every other corner, the error from the rest; each(done, of) is called as
    it goes. Not finite where the parts are too small for a fit.
    """
    folds = min(FOLDS, len(views))
    errors = []
    for fold in range(folds):
        each(fold, folds)
        rest = [view for place, view in enumerate(views) if place % folds != fold]
        try:
            lens = fit(rest, board, model).lens
        except UsageError:
            return float("inf")
        errors += [_other_corners(view, board, lens) for view in views[fold::folds]]
    each(folds, folds)
    return _rms(np.concatenate(errors))


def _other_corners(view: View, board: Board, lens: Lens) -> np.ndarray:
    """Residuals (n, 2) of the corners that the pose was not taken from: the black fields of a chessboard of corners."""
    known = board.points[view.numbers]
    rays = lens.rays(view.corners, *view.size)
    for_pose = (view.numbers // board.columns + view.numbers % board.columns) % 2 == 0
    if for_pose.sum() < 6 or (~for_pose).sum() < 1:
        for_pose = np.arange(len(known)) % 4 != 3
    turn, move = vision.solve_pose(known[for_pose], rays[for_pose])
    return (view.corners - lens.pixels(known @ turn.T + move))[~for_pose]


def _rms(residuals: np.ndarray) -> float:
    return float(np.sqrt((residuals**2).sum(axis=1).mean()))
