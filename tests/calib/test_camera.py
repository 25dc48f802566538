"""A lens measured: the truth comes back, real pictures give what OpenCV gives, the file is what the line takes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from calib.board import Board, make_board
from calib.camera import Config, run
from calib.lens_fit import Model, fit, fit_without_outliers, hold_out
from calib.verdict import judge, spread_of_tilts, unsure_percent
from calib.views import Finder, View, read_folder
from realtime.calibration import load_calibration
from realtime.lens import Lens
from tests.calib import boards

QUIET = Console(quiet=True)


def nothing(done: int, of: int) -> None:
    pass


def seen(board: Board, lens: Lens, count: int = 12) -> list[View]:
    finder = Finder(board)
    found = [finder(picture, str(index)) for index, picture in enumerate(boards.pictures(board, lens, count))]
    return [view for view in found if view is not None]


def apart(found: Lens, true: Lens, part: float) -> float:
    """Pixels by which the found lens moves a point at most, in the middle `part` of the picture: distortion and all."""
    across, down = np.meshgrid(np.linspace(-part, part, 9), np.linspace(-part, part, 7))
    pixels = (np.stack((across, down), axis=2).reshape(-1, 2) + 1) / 2 * (true.width, true.height)
    rays = true.rays(pixels, true.width, true.height)
    there = found.pixels(np.concatenate((rays, np.ones((len(rays), 1))), axis=1))
    return float(np.linalg.norm(there - pixels, axis=1).max())


@pytest.mark.parametrize(
    ("board", "lens", "model"),
    [
        (boards.CHESS, boards.LENS, "pinhole"),
        (boards.CHARUCO, boards.LENS, "pinhole"),
        (boards.CHESS, boards.LENS, "rational"),
        (boards.CHESS, boards.FISHEYE, "fisheye"),
        (boards.CHARUCO, boards.FISHEYE, "fisheye"),
    ],
)
def test_a_known_lens_comes_back(board: Board, lens: Lens, model: Model):
    views = seen(board, lens)
    assert len(views) >= 11
    found = fit(views, board, model)
    for key in ("fx", "fy"):
        assert getattr(found.lens, key) == pytest.approx(getattr(lens, key), rel=0.002), key
    assert (found.lens.cx, found.lens.cy) == pytest.approx((lens.cx, lens.cy), abs=1.0)
    assert found.lens.rms_px < 0.15
    assert hold_out(views, board, model, nothing) < 0.2
    assert apart(found.lens, lens, 0.85) < 1.0
    if model != "rational":  # whose coefficients can be traded for each other
        assert found.lens.distortion[:2] == pytest.approx(lens.distortion[:2], abs=0.015)


@pytest.mark.parametrize("model", ["pinhole", "fisheye"])
def test_the_stated_uncertainty_is_that_of_repeated_measurements(model: Model):
    """The same views with new noise on their corners, again and again: focal lengths scatter as one of them says."""
    lens = boards.FISHEYE if model == "fisheye" else boards.LENS
    views = seen(boards.CHESS, lens)
    start, random = fit(views, boards.CHESS, model), np.random.default_rng(0)
    found, told = [], []
    for _ in range(16):
        noisy = []
        for place, view in enumerate(views):
            clean = view.corners - start.residuals[place]
            corners = clean + random.normal(0, 0.1, clean.shape)
            noisy.append(View(view.name, view.size, corners, view.numbers, view.edge_px, view.square_px))
        again = fit(noisy, boards.CHESS, model)
        found.append(again.lens.fx)
        told.append(float(again.deviations[0]))
    assert np.std(found) == pytest.approx(np.mean(told), rel=0.5)


def test_real_pictures_give_what_opencv_gives(shared: Path):
    board = make_board("chessboard", "9x6", 25)
    reading = read_folder(shared / "chessboard", Finder(board), nothing)
    assert len(reading.views) == 25 and not reading.left_out
    found, kept, _ = fit_without_outliers(reading.views, board, "pinhole", 8)
    corners = [view.corners.astype(np.float32)[:, None] for view in kept]
    rms, matrix, *_ = cv2.calibrateCamera([board.points] * len(kept), corners, kept[0].size, None, None)
    assert found.lens.rms_px <= 0.2 and found.lens.rms_px == pytest.approx(rms, abs=1e-3)
    assert found.lens.fx == pytest.approx(matrix[0, 0], rel=0.005)
    assert found.lens.fy == pytest.approx(matrix[1, 1], rel=0.005)
    assert hold_out(kept, board, "pinhole", nothing) <= 0.2
    # Corners found and refined by the book give the same lens.
    plain = []
    for path in sorted((shared / "chessboard").glob("left*.jpg")):
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        _, rough = cv2.findChessboardCorners(picture, (9, 6))
        plain.append(cv2.cornerSubPix(picture, rough, (11, 11), (-1, -1), (3, 30, 0.001)))
    _, matrix, *_ = cv2.calibrateCamera([board.points] * len(plain), plain, kept[0].size, None, None)
    assert found.lens.fx == pytest.approx(matrix[0, 0], rel=0.005)


def test_a_folder_becomes_a_file_that_the_line_takes(tmp_path: Path):
    folder = boards.write(tmp_path / "views", boards.pictures(boards.CHESS, boards.LENS, 12))
    out = tmp_path / "cam.json"
    config = Config(images=folder, board="chessboard", out=out, map=tmp_path / "map.png")
    assert run(config, QUIET) == 0
    written = json.loads(out.read_text())
    assert set(written) >= {"width", "height", "fx", "fy", "cx", "cy", "distortion", "rms_px"}
    lens = load_calibration(out).lens
    assert lens is not None and lens.fx == pytest.approx(boards.LENS.fx, rel=0.002)
    measured = written["measured"]
    assert re.fullmatch(r"good: .*focal length is known to ±0\.\d+ %", measured["verdict"])
    assert len(measured["views"]) == 12 and max(measured["views"].values()) < 0.3
    assert cv2.imread(str(tmp_path / "map.png")).shape[0] > 480


def test_a_view_that_contradicts_the_others_is_left_out_and_told():
    views = seen(boards.CHESS, boards.LENS)
    random = np.random.default_rng(1)
    bad = views[3]
    bent = bad.corners + 3 * np.sin(bad.corners / 60) + random.normal(0, 0.5, bad.corners.shape)
    views[3] = View(bad.name, bad.size, bent, bad.numbers, bad.edge_px, bad.square_px)
    found, kept, out = fit_without_outliers(views, boards.CHESS, "pinhole", 8)
    assert [view.name for view, _ in out] == [bad.name] and len(kept) == len(views) - 1
    assert found.lens.fx == pytest.approx(boards.LENS.fx, rel=0.002)


def test_a_wide_lens_taken_for_a_pinhole_is_told_from_one_that_fits():
    views = seen(boards.CHESS, boards.FISHEYE)
    fits, does_not = fit(views, boards.CHESS, "fisheye"), fit(views, boards.CHESS, "pinhole")
    assert fits.lens.rms_px < 0.5 * does_not.lens.rms_px
    assert spread_of_tilts(fits) > 30 and unsure_percent(fits) < 0.5


def test_the_verdict_of_few_views_says_what_would_help():
    from calib.coverage import Coverage

    views = seen(boards.CHESS, boards.LENS)[:5]
    coverage = Coverage(views[0].size, boards.CHESS)
    coverage.add(views[0])
    verdict = judge(fit(views, boards.CHESS, "pinhole"), coverage, 2.0)
    assert not verdict.good and verdict.words.startswith("usable: ")
    assert "of the picture only" in verdict.words and "not fitted to" in verdict.words


def test_the_command_line_prints_a_board_and_ends_well(tmp_path: Path):
    command = [sys.executable, "-m", "calib.camera", "--print", str(tmp_path / "board.pdf")]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "board.pdf").read_bytes().startswith(b"%PDF")
    assert "100 %" in done.stderr
    again = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=120)
    assert again.returncode == 2 and "--replace" in again.stderr
