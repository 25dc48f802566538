"""What calibration asks of OpenCV, its only door; pictures are (H, W) uint8, pixels as OpenCV counts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from realtime.image import read_picture as read_colors

LONGEST = 1280  # pixels a side in which a board is searched; its corners are then refined in the whole picture
TABLE = cv2.aruco.DICT_4X4_250  # 4 x 4 bits: the largest cells, so the farthest seen
MARKERS = 250  # in that table
CELLS = 6  # of a marker's side: four bits and a black border
_CLASSIC = cv2.CALIB_CB_ADAPTIVE_THRESH | cv2.CALIB_CB_NORMALIZE_IMAGE
_THOROUGH = cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_EXHAUSTIVE
_REFINE = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 60, 1e-4)
_FISHEYE_STEPS = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 200, 1e-9)


@dataclass(frozen=True, slots=True)
class Solved:
    """What a calibration found, of n views.

    numbers: fx fy cx cy and the distortion (c,); deviations: their standard deviations (c + 4,) or None.
    rotations (n, 3) Rodrigues vectors and places (n, 3), of the board in the camera's space.
    """

    numbers: np.ndarray
    deviations: np.ndarray
    rotations: np.ndarray
    places: np.ndarray


def read_picture(path: Path) -> np.ndarray | None:
    """The picture in grey, upright by its own mark; None where it cannot be read."""
    image = read_colors(path)
    return None if image is None else grey(image)


def write_picture(image: np.ndarray) -> bytes:
    """A picture (H, W) or (H, W, 3) BGR as PNG."""
    good, content = cv2.imencode(".png", image, (cv2.IMWRITE_PNG_COMPRESSION, 9))
    assert good
    return content.tobytes()


def grey(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 BGR -> (H, W) uint8."""
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def marker_bits(number: int) -> np.ndarray:
    """The cells of an ArUco marker (CELLS, CELLS), True where black, the border included."""
    return cv2.aruco.getPredefinedDictionary(TABLE).generateImageMarker(number, CELLS, borderBits=1) == 0


def _smaller(picture: np.ndarray) -> tuple[np.ndarray, float]:
    """The picture with at most LONGEST pixels a side, and how much smaller it is."""
    scale = LONGEST / max(picture.shape)
    if scale >= 1:
        return picture, 1.0
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), scale


def find_chessboard(picture: np.ndarray, columns: int, rows: int, thorough: bool = True) -> np.ndarray | None:
    """The inner corners of a chessboard (columns * rows, 2) float32, refined, row by row; None where there is none.

    thorough: whether a slower search follows where the quick one finds nothing.
    """
    small, scale = _smaller(picture)
    quick = _CLASSIC if thorough else _CLASSIC | cv2.CALIB_CB_FAST_CHECK
    good, corners = cv2.findChessboardCorners(small, (columns, rows), flags=quick)
    if not good and thorough:
        good, corners = cv2.findChessboardCornersSB(small, (columns, rows), flags=_THOROUGH)
    if not good:
        return None
    corners = corners.reshape(-1, 2)
    if scale != 1:
        corners = (refined(small, corners, spacing(corners, columns) * 0.35) + 0.5) / scale - 0.5
    return refined(picture, corners, spacing(corners, columns) * 0.35)


def spacing(corners: np.ndarray, columns: int) -> float:
    """The shortest distance of neighbours in a full grid of corners (n, 2), in pixels."""
    grid = corners.reshape(-1, columns, 2)
    steps = [np.linalg.norm(np.diff(grid, axis=axis), axis=2) for axis in (0, 1)]
    return float(min(step.min() for step in steps if step.size))


def refined(picture: np.ndarray, corners: np.ndarray, reach: float) -> np.ndarray:
    """Corners (n, 2) moved to where the edges around them meet; reach: pixels to each side that are looked at."""
    half = int(np.clip(round(reach), 2, 11 * max(1, max(picture.shape) / LONGEST)))
    places = np.ascontiguousarray(corners.reshape(-1, 1, 2), np.float32)
    return cv2.cornerSubPix(picture, places, (half, half), (-1, -1), _REFINE).reshape(-1, 2)


class CharucoFinder:
    """Finds a ChArUco board of columns x rows inner corners, also where only a part of it is seen."""

    def __init__(self, columns: int, rows: int, square: float, marker: float) -> None:
        """square, marker: sides in any one unit."""
        table = cv2.aruco.getPredefinedDictionary(TABLE)
        self._columns = columns
        self._margin = (1 - marker / square) / 2  # between a marker and its square's edge, in squares
        board = cv2.aruco.CharucoBoard((columns + 1, rows + 1), square, marker, table)
        self._finder = cv2.aruco.CharucoDetector(board)

    def __call__(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Corners (n, 2) float32, refined, and their numbers (n,), row by row; None where there are fewer than four."""
        corners, numbers, _, _ = self._finder.detectBoard(picture)
        if numbers is None or len(numbers) < 4:
            return None
        corners, numbers = corners.reshape(-1, 2), numbers.reshape(-1)
        near = np.linalg.norm(corners[:, None] - corners[None], axis=2)
        near[np.diag_indices(len(near))] = np.inf
        # Markers stand close to the corners: what is looked at must end before them.
        return refined(picture, corners, float(near.min()) * self._margin), numbers


def solve_pinhole(
    points: Sequence[np.ndarray], places: Sequence[np.ndarray], size: tuple[int, int], rational: bool
) -> Solved:
    """Zhang's method: points (n, 3) of the board and places (n, 2) in pixels of each view; size: width, height."""
    flags = cv2.CALIB_RATIONAL_MODEL if rational else 0
    objects = [one.astype(np.float32) for one in points]
    seen = [one.astype(np.float32)[:, None] for one in places]
    _, matrix, bent, turns, moves, deviations, _, _ = cv2.calibrateCameraExtended(
        objects, seen, size, None, None, flags=flags
    )
    count = 8 if rational else 5
    numbers = np.concatenate((matrix[(0, 1, 0, 1), (0, 1, 2, 2)], bent.ravel()[:count]))
    return Solved(numbers, deviations.ravel()[: 4 + count], _stacked(turns), _stacked(moves))


def solve_fisheye(points: Sequence[np.ndarray], places: Sequence[np.ndarray], size: tuple[int, int]) -> Solved | None:
    """The same for a fisheye lens; None where no start leads anywhere. Started from several focal lengths."""
    objects = [one.astype(np.float64)[None] for one in points]
    seen = [one.astype(np.float64)[None] for one in places]
    flags = cv2.fisheye.CALIB_RECOMPUTE_EXTRINSIC | cv2.fisheye.CALIB_FIX_SKEW | cv2.fisheye.CALIB_USE_INTRINSIC_GUESS
    best: tuple[float, list[np.ndarray]] | None = None
    for share in (0.32, 0.45, 0.65, 0.9):  # of the width: lenses of 180 to 60 degrees
        focal = share * max(size)
        matrix = np.array(((focal, 0, size[0] / 2 - 0.5), (0, focal, size[1] / 2 - 0.5), (0, 0, 1.0)))
        try:
            rms, *found = cv2.fisheye.calibrate(
                objects, seen, size, matrix, np.zeros(4), None, None, flags, _FISHEYE_STEPS
            )
        except cv2.error:  # the start was too far off for one of the views
            continue
        if np.isfinite(rms) and (best is None or rms < best[0]):
            best = rms, found
    if best is None:
        return None
    matrix, bent, turns, moves = best[1]
    numbers = np.concatenate((matrix[(0, 1, 0, 1), (0, 1, 2, 2)], bent.ravel()))
    rotations, shifts = _stacked(turns), _stacked(moves)
    return Solved(numbers, _deviations(points, places, matrix, bent, rotations, shifts), rotations, shifts)


def _deviations(
    points: Sequence[np.ndarray],
    places: Sequence[np.ndarray],
    matrix: np.ndarray,
    bent: np.ndarray,
    rotations: np.ndarray,
    shifts: np.ndarray,
) -> np.ndarray:
    """Standard deviations (8,) of a fisheye's numbers: the inverse of J'J, each view's own pose taken out (Schur)."""
    shared, squares, count = np.zeros((8, 8)), 0.0, 0
    for board, seen, turn, move in zip(points, places, rotations, shifts, strict=True):
        there, slopes = cv2.fisheye.projectPoints(board.astype(np.float64)[:, None], turn, move, matrix, bent)
        ours, pose = slopes[:, :8], slopes[:, 8:14]
        shared += ours.T @ ours - ours.T @ pose @ np.linalg.solve(pose.T @ pose, pose.T @ ours)
        squares += float(((there.reshape(-1, 2) - seen) ** 2).sum())
        count += 2 * len(seen) - 6
    return np.sqrt(np.maximum(np.diag(np.linalg.pinv(shared)), 0) * squares / max(count - 8, 1))


def _stacked(vectors: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    return np.array([one.ravel() for one in vectors])


def solve_pose(points: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3, 3) and place (3,) of a flat board whose points (n, 3) are seen along rays (n, 2)."""
    good, turn, move = cv2.solvePnP(
        points.astype(np.float64), rays.astype(np.float64)[:, None], np.eye(3), None, flags=cv2.SOLVEPNP_IPPE
    )
    if good:
        turn, move = cv2.solvePnPRefineLM(points.astype(np.float64), rays.astype(np.float64)[:, None], np.eye(3), None,
                                          turn, move)  # fmt: skip
    return rotation(turn), move.ravel()


def rotation(vector: np.ndarray) -> np.ndarray:
    """The matrix (3, 3) of a Rodrigues vector (3,)."""
    return cv2.Rodrigues(np.asarray(vector, np.float64).reshape(3, 1))[0]


def homography(points: np.ndarray, places: np.ndarray) -> np.ndarray | None:
    """The (3, 3) map of a flat board's points (n, 2) to the places (n, 2) of a picture; None where there is none."""
    found, _ = cv2.findHomography(points.astype(np.float64), places.astype(np.float64))
    return found


def sampled(picture: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The picture's values at places (n, m, 2), between pixels by their neighbours: (n, m) float32."""
    places = places.astype(np.float32)
    return cv2.remap(picture, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(
        np.float32
    )


def softened(picture: np.ndarray, sigma_px: float) -> np.ndarray:
    """The picture blurred by a bell of this standard deviation."""
    return cv2.GaussianBlur(picture, (0, 0), sigma_px)


def count_markers(picture: np.ndarray) -> int:
    """How many of the boards' markers are in the picture, however they lie."""
    table = cv2.aruco.getPredefinedDictionary(TABLE)
    return len(cv2.aruco.ArucoDetector(table).detectMarkers(_smaller(picture)[0])[0])


def enlarged(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """The picture (H, W) or (H, W, 3) at another size."""
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def dot(picture: np.ndarray, place: np.ndarray, radius: float, colour: tuple[int, int, int]) -> None:
    """Draws a disc on (H, W, 3) BGR, to a sixteenth of a pixel."""
    spot = (round(float(place[0]) * 16), round(float(place[1]) * 16))
    cv2.circle(picture, spot, round(radius * 16), colour, -1, cv2.LINE_AA, 4)


def ring(picture: np.ndarray, place: tuple[float, float], radius: float, colour: tuple[int, int, int]) -> None:
    """Draws a thin circle."""
    spot = (round(place[0] * 16), round(place[1] * 16))
    cv2.circle(picture, spot, round(radius * 16), colour, 1, cv2.LINE_AA, 4)


def line(picture: np.ndarray, start: np.ndarray, end: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Draws a line one pixel wide."""
    spots = [(round(float(one[0]) * 16), round(float(one[1]) * 16)) for one in (start, end)]
    cv2.line(picture, spots[0], spots[1], colour, 1, cv2.LINE_AA, 4)


def words(picture: np.ndarray, text: str, spot: tuple[int, int], size: float, colour: tuple[int, int, int]) -> None:
    """Writes in OpenCV's letters, which are ASCII."""
    plain = text.replace("±", "+-").encode("ascii", "replace").decode()
    cv2.putText(picture, plain, spot, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
