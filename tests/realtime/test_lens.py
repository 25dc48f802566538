"""A lens: the same numbers as OpenCV's, back and forth, and the same as undistorting a whole picture."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime.calibration import load_calibration
from realtime.errors import UsageError
from realtime.lens import Lens

WIDE = Lens(1280, 720, 880.0, 883.0, 652.3, 349.1, (-0.31, 0.11, 0.0012, -0.0008, -0.019), "pinhole", 0.2)
LENSES = {
    "barrel": WIDE,
    "pincushion": replace(WIDE, distortion=(0.12, 0.05, -0.001, 0.0007, 0.01)),
    "plain": replace(WIDE, distortion=(0.0,) * 5),
    "rational": replace(WIDE, distortion=(0.9, 0.25, 0.0005, -0.0004, 0.012, 1.2, 0.45, 0.05)),
    "fisheye": Lens(1280, 960, 410.0, 409.0, 642.0, 477.0, (-0.03, 0.012, -0.008, 0.001), "fisheye", 0.3),
}
every_lens = pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES.keys())


def matrix(lens: Lens) -> np.ndarray:
    return np.array(((lens.fx, 0, lens.cx), (0, lens.fy, lens.cy), (0, 0, 1)))


def grid(lens: Lens, step: int = 20) -> np.ndarray:
    return np.mgrid[0 : lens.width : step, 0 : lens.height : step].reshape(2, -1).T.astype(np.float64)


@every_lens
def test_rays_are_those_of_opencv(lens: Lens):
    pixels = grid(lens)
    if lens.model == "fisheye":
        # Ours ends at 85 degrees, and OpenCV's is clipped where a ray appears further than pi/2 from the middle.
        seen = np.hypot(*((pixels - (lens.cx, lens.cy)) / (lens.fx, lens.fy)).T)
        pixels = pixels[seen < 1.35]
        known = cv2.fisheye.undistortPoints(pixels[None], matrix(lens), np.array(lens.distortion))[0]
    else:
        many = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-12)
        distortion = np.array(lens.distortion)
        known = cv2.undistortPointsIter(pixels[:, None], matrix(lens), distortion, np.eye(3), np.eye(3), many)[:, 0]
    rays = lens.rays(pixels, lens.width, lens.height)
    assert rays.dtype == np.float32
    np.testing.assert_allclose(rays, known, atol=1e-6, rtol=1e-6)


@every_lens
def test_points_appear_where_opencv_puts_them(lens: Lens):
    rays = lens.rays(grid(lens), lens.width, lens.height)[::7]
    rays = rays[np.hypot(*rays.T) < 4]
    points = np.concatenate((rays, np.ones((len(rays), 1))), axis=1).astype(np.float64) * 2.5
    zero = np.zeros(3)
    project = cv2.fisheye.projectPoints if lens.model == "fisheye" else cv2.projectPoints
    known = project(points[:, None], zero, zero, matrix(lens), np.array(lens.distortion))[0].reshape(-1, 2)
    np.testing.assert_allclose(lens.pixels(points), known, atol=1e-6)


@every_lens
def test_there_and_back_is_where_one_began_even_outside_the_picture(lens: Lens):
    pixels = grid(lens, 40) * 3 - (lens.width, lens.height)
    rays = lens.rays(pixels, lens.width, lens.height)
    assert np.isfinite(rays).all()
    back = lens.pixels(np.concatenate((rays, np.ones((len(rays), 1), np.float32)), axis=1))
    inside = ((pixels >= 0) & (pixels <= (lens.width, lens.height))).all(axis=1)
    np.testing.assert_allclose(back, pixels, atol=20)  # where the model ends, its tangential terms do
    if lens.whole:
        np.testing.assert_allclose(back[inside], pixels[inside], atol=1e-3)
    assert lens.whole or lens.model == "fisheye"


def test_undistorting_points_is_undistorting_the_picture_and_reading_it():
    """Dots are drawn as the lens shows them; their middles in the undistorted picture are the rays of their pixels."""
    lens = LENSES["barrel"]
    picture = np.full((lens.height, lens.width), 255, np.uint8)
    places = np.array([(x, y) for x in range(80, 1240, 120) for y in range(60, 700, 115)], np.float64)
    for x, y in places:
        cv2.circle(picture, (round(x * 16), round(y * 16)), 6 * 16, 0, -1, cv2.LINE_AA, 4)
    straight = cv2.undistort(picture, matrix(lens), np.array(lens.distortion))
    rays = lens.rays(places, lens.width, lens.height)
    expected = rays * (lens.fx, lens.fy) + (lens.cx, lens.cy)
    inside = (expected > 15).all(axis=1) & (expected < (lens.width - 15, lens.height - 15)).all(axis=1)
    assert inside.sum() >= 30
    moved = np.linalg.norm(expected - places, axis=1)[inside]
    assert moved.max() > 30  # pixels: there is something to undo
    for x, y in expected[inside]:
        left, top = round(x) - 14, round(y) - 14
        dark = 255.0 - straight[top : top + 29, left : left + 29]
        rows, columns = np.mgrid[0:29, 0:29]
        read = np.array(((columns * dark).sum(), (rows * dark).sum())) / dark.sum() + (left, top)
        assert np.abs(read - (x, y)).max() < 0.3  # a dot's middle moves a little as the lens bends the dot


def test_a_smaller_picture_has_the_same_rays():
    lens = LENSES["barrel"]
    pixels = grid(lens)
    small = (pixels + 0.5) / 2 - 0.5
    np.testing.assert_allclose(lens.rays(small, 640, 360), lens.rays(pixels, 1280, 720), atol=1e-6)
    lens.rays(small, 640, 361)  # a pixel off, as rounding leaves it


def test_a_picture_of_another_shape_is_refused_by_both_sizes():
    with pytest.raises(UsageError, match=r"1280x720.*640x480"):
        LENSES["barrel"].rays(np.zeros((1, 2)), 640, 480)


@every_lens
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_turned_lens_sees_the_turned_picture(lens: Lens, degrees: int):
    pixels, turned = grid(lens, 60), lens.turned(degrees)
    x, y, width, height = pixels[:, 0], pixels[:, 1], lens.width, lens.height
    there = {0: (x, y), 90: (height - 1 - y, x), 180: (width - 1 - x, height - 1 - y), 270: (y, width - 1 - x)}[degrees]
    rays = lens.rays(pixels, width, height)
    a, b = rays[:, 0], rays[:, 1]
    expected = {0: (a, b), 90: (-b, a), 180: (-a, -b), 270: (b, -a)}[degrees]
    found = turned.rays(np.stack(there, axis=1), turned.width, turned.height)
    np.testing.assert_allclose(found, np.stack(expected, axis=1), atol=2e-6, rtol=2e-6)
    with pytest.raises(UsageError, match="45"):
        lens.turned(45)


def test_what_is_not_in_front_of_the_camera_is_nowhere():
    places = LENSES["barrel"].pixels(np.array(((0.0, 0.0, -1.0), (0.0, 0.0, 0.0), (0.0, 0.0, 2.0))))
    assert np.isnan(places[:2]).all() and np.allclose(places[2], (652.3, 349.1))


def test_the_landmarks_of_a_body_take_well_under_a_millisecond():
    lens, pixels = LENSES["barrel"], grid(LENSES["barrel"])[:33]
    lens.rays(pixels, 1280, 720)
    best = 1.0
    for _ in range(50):
        begun = time.perf_counter()
        lens.rays(pixels, 1280, 720)
        best = min(best, time.perf_counter() - begun)
    assert best < 1e-3, f"{best * 1e3:.2f} ms"


def written(folder: Path, **changes: object) -> Path:
    document = {"schema": "calib-camera/1", **WIDE.described(), "measured": {}, **changes}
    path = folder / "cam.json"
    path.write_text(json.dumps(document))
    return path


def test_a_file_gives_the_lens_that_was_written(tmp_path: Path):
    assert load_calibration(written(tmp_path)).lens == WIDE


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model": "mirror"}, "pinhole, fisheye"),
        ({"distortion": [0.1, 0.2]}, "5 or 8 numbers"),
        ({"distortion": [0.1, 0.2, None, 0, 0]}, "5 or 8 numbers"),
        ({"fx": -5}, "'fx'"),
        ({"width": 0}, "'width'"),
        ({"cx": 1e9}, "'cx'"),
        ({"model": "fisheye"}, "4 numbers"),
    ],
)
def test_what_no_lens_has_is_refused(tmp_path: Path, changes: dict[str, object], complaint: str):
    with pytest.raises(UsageError, match=complaint):
        load_calibration(written(tmp_path, **changes))
