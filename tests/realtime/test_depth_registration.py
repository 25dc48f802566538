"""Depth laid on colour: where each pixel lands, what hides what, and that no holes open where colour is finer."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from realtime.errors import SourceError
from realtime.generator.sight import body_of, seen_by_depth, seen_in_color
from realtime.lens import Lens
from realtime.registration import Registration, without_flying
from realtime.rig import make_rig
from scripts.bench_depth import within_a_pixel
from tests.realtime.depth_scene import COLOR, DEPTH, RIG, posture


@pytest.fixture(scope="module")
def person() -> np.ndarray:
    return posture("wave:right", 1)


def as_sensor(metres: np.ndarray) -> np.ndarray:
    return np.rint(metres * 1000).astype(np.uint16)


def test_each_depth_pixel_lands_within_one_pixel_of_the_truth(person):
    depth = as_sensor(seen_by_depth(RIG, [body_of(person)]))
    _, truth = seen_in_color(RIG, [body_of(person)])
    laid = Registration(RIG, COLOR, DEPTH)(depth)
    assert within_a_pixel(laid, truth) > 0.999
    inside = laid[20:-20, 20:-20]
    assert (inside > 0).mean() > 0.98  # colour is twice as fine as depth, and no holes open
    unlaid = Registration(make_rig(RIG.color, RIG.depth, np.eye(3), np.zeros(3)), COLOR, DEPTH)(depth)
    assert within_a_pixel(unlaid, truth) < 0.97  # the test sees a registration that leaves the cameras' places out


def test_points_fall_where_opencv_projects_them():
    """Single bright pixels of a depth picture, each to the pixel that OpenCV's own projection names."""
    lens, depth_lens = RIG.color, RIG.depth
    matrix = lambda one: np.array(((one.fx, 0, one.cx), (0, one.fy, one.cy), (0, 0, 1)))  # noqa: E731
    register = Registration(RIG, COLOR, DEPTH)
    rng = np.random.default_rng(2)
    for _ in range(40):
        column, row, z = int(rng.integers(40, 280)), int(rng.integers(30, 210)), int(rng.integers(700, 6000))
        depth = np.zeros(DEPTH[::-1], np.uint16)
        depth[row, column] = z
        seen = np.array([[[column, row]]], float)
        ray = cv2.undistortPoints(seen, matrix(depth_lens), np.array(depth_lens.distortion)).ravel()
        point = np.array((*ray, 1.0)) * z / 1000
        turn = cv2.Rodrigues(np.array(RIG.rotation))[0]
        shift = np.array(RIG.translation_m)
        there = cv2.projectPoints(point[None], turn, shift, matrix(lens), np.array(lens.distortion))[0].ravel()
        laid = np.argwhere(register(depth))  # rows, columns of its splat
        assert len(laid) == 9  # 2.08 times finer: three pixels a side
        assert np.abs(laid.mean(axis=0)[::-1] - there).max() <= 0.51


def test_what_the_colour_camera_cannot_see_does_not_show_through():
    """A near plate before a far wall, from a camera beside it: the plate's pixels are the plate's, whole."""
    lens = Lens(320, 240, 260.0, 260.0, 159.5, 119.5, (0.0,) * 5, "pinhole", 0.0)
    fine = Lens(640, 480, 520.0, 520.0, 319.5, 239.5, (0.0,) * 5, "pinhole", 0.0)
    rig = make_rig(fine, lens, np.eye(3), np.array((0.1, 0.0, 0.0)))
    depth = np.full((240, 320), 4000, np.uint16)
    depth[80:160, 100:200] = 1000
    laid = Registration(rig, (640, 480), (320, 240))(depth)
    columns = np.flatnonzero(laid[240] == 1000)
    assert (np.diff(columns) == 1).all()  # no wall between two points of the plate
    assert abs(columns[0] - (100 * 2 + 0.5 + 52)) <= 1 and abs(columns[-1] - (199 * 2 + 0.5 + 52)) <= 1
    behind = laid[240, columns[0] - 30 : columns[0] - 2]  # what the plate hid from the depth camera: never measured
    assert (behind == 0).sum() > 20


def test_pictures_that_are_registered_already_stay_as_they_are():
    lens = RIG.depth
    depth = np.arange(DEPTH[0] * DEPTH[1], dtype=np.uint16).reshape(DEPTH[::-1])
    same = make_rig(lens, lens, np.eye(3), np.zeros(3))
    np.testing.assert_array_equal(Registration(same, DEPTH, DEPTH)(depth), depth)


def test_a_box_of_the_depth_picture_gives_the_same_there(person):
    depth = as_sensor(seen_by_depth(RIG, [body_of(person)]))
    register = Registration(RIG, (320, 240), DEPTH, straight=True)
    rays = person[:, :2] * (-1, -1) / person[:, 2:]
    box = register.box_around(rays, 2.5, 4.5)
    assert 0 < (box[2] - box[0]) * (box[3] - box[1]) < 0.5 * DEPTH[0] * DEPTH[1]
    whole, part = register(depth), register(depth, box)
    pixels = np.rint(register.straightened(rays)).astype(int)
    np.testing.assert_array_equal(whole[pixels[:, 1], pixels[:, 0]], part[pixels[:, 1], pixels[:, 0]])


def test_flying_pixels_go_and_edges_stay():
    depth = np.full((20, 20), 3000, np.uint16)
    depth[:, :8] = 1500
    flying = depth.copy()
    flying[4:16, 8] = 2200  # between the near and the far side
    cleaned = without_flying(flying)
    assert (cleaned[4:16, 8] == 0).all()
    np.testing.assert_array_equal(without_flying(depth), depth)
    holes = depth.copy()
    holes[5, 3:6] = 0
    np.testing.assert_array_equal(without_flying(holes), holes)  # a hole is no neighbour


def test_a_fisheye_bends_also_where_its_coefficients_are_all_zero():
    lens = Lens(640, 480, 300.0, 300.0, 320.0, 240.0, (0.0,) * 4, "fisheye", 0.0)
    assert not lens.straight and replace(lens, model="pinhole", distortion=(0.0,) * 5).straight
    registration = Registration(make_rig(lens, lens, np.eye(3), np.zeros(3)), COLOR, COLOR, straight=True)
    depth = np.zeros(COLOR[::-1], np.uint16)
    depth[235:246, 445:456] = 2000
    column, row = registration.straightened(lens.rays(np.array((450.0, 240.0)), *COLOR))
    laid = registration(depth)
    assert laid[round(float(row)), round(float(column))] == 2000 and not laid[240, 450]


@pytest.mark.parametrize("bad", [np.zeros((120, 320), np.uint16), np.zeros((240, 320), np.float32)])
def test_another_size_or_type_is_refused(bad):
    with pytest.raises(ValueError, match=r"depth must be \(240, 320\) uint16, got"):
        Registration(RIG, COLOR, DEPTH)(bad)


def test_pictures_of_another_shape_are_refused_by_name():
    RIG.fits((1280, 960), (640, 480), "it")  # larger, of the same shape
    with pytest.raises(SourceError, match="its colour pictures are 1280x720, the colour lens was measured on 640x480"):
        RIG.fits((1280, 720), DEPTH, "it")
    with pytest.raises(SourceError, match="its depth pictures are 320x200"):
        RIG.fits(COLOR, (320, 200), "it")
    with pytest.raises(SourceError, match="1280x964"):  # by a few pixels: its lens would refuse each frame
        RIG.fits((1280, 964), DEPTH, "it")
    assert not replace(RIG, depth=RIG.color).registered
