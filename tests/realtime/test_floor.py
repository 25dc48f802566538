"""Poses brought upright, and pictures of cameras that lie on their side."""

import json

import numpy as np
import pytest

from realtime.calibration import Calibration, load_calibration
from realtime.errors import UsageError
from realtime.floor import Floor, Upright, orientation_of, upright_turn
from realtime.lens import Lens
from realtime.orientation import Turned, box_back, places_back, turn_of, turned_lens, turned_pictures, upright
from realtime.pose import PassThrough
from realtime.schema import Frame, Pose
from realtime.skeleton import KINECT_V1_20


def direction(down: float, roll: float) -> np.ndarray:
    """Up, as a camera sees it that looks down and is rolled clockwise, degrees."""
    down, roll = np.radians(down), np.radians(roll)
    return np.array((np.cos(down) * np.sin(roll), np.cos(down) * np.cos(roll), -np.sin(down)))


def frame(image=None, poses=None):
    return Frame(0, 1, image, poses)


def pose(joints, **other):
    joints = np.asarray(joints, np.float32)
    return Pose(0, 1, 1, KINECT_V1_20, joints, np.ones(20, np.float32), **other)


@pytest.mark.parametrize("down", [-60, -15, 0, 15, 30, 60])
@pytest.mark.parametrize("roll", [-90, -15, 0, 15, 180])
def test_the_turn_brings_up_to_y_and_keeps_the_view_ahead(down, roll):
    up = direction(down, roll)
    turn = upright_turn(up)
    np.testing.assert_allclose(turn @ up, (0, 1, 0), atol=1e-12)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) > 0
    ahead = turn @ (0, 0, 1)
    assert abs(ahead[0]) < 1e-12 and ahead[2] > 0
    floor = Floor(tuple(up))
    assert floor.pitch == pytest.approx(down)
    assert abs((floor.roll - roll + 180) % 360 - 180) < 1e-6


@pytest.mark.parametrize("steep", [88, 90, -88, -90])
def test_a_camera_that_looks_straight_down_has_a_heading_too(steep):
    turn = upright_turn(direction(steep, 0))
    assert np.isfinite(turn).all()
    assert (turn @ (0, 1 if steep > 0 else -1, 0))[2] > 0.99


@pytest.mark.parametrize(("roll", "turn"), [(0, 0), (20, 0), (-30, 0), (90, 90), (75, 90), (180, 180), (-90, 270)])
def test_a_picture_is_turned_as_the_camera_is_rolled(roll, turn):
    assert orientation_of(direction(20, roll)) == turn
    assert orientation_of(direction(90, roll)) == 0


def test_poses_stand_on_the_floor_at_zero():
    up = direction(30, 15)
    on_floor = np.random.default_rng(0).normal(size=(20, 3))
    on_floor -= (on_floor @ up + 1.8)[:, None] * up  # 1.8 m below the camera
    stage = Upright(PassThrough(), Floor(tuple(up), 1.8))
    (found,) = stage.find(frame(poses=(pose(on_floor),)))
    np.testing.assert_allclose(found.joints[:, 1], 0, atol=1e-5)
    assert found.joints.dtype == np.float32 and found.track == 1
    assert (stage.refused, stage.gated, stage.crowded) == (0, 0, 0)


def test_without_a_floor_the_pose_stage_is_the_one_that_was_given():
    stage = PassThrough()
    assert upright(stage, Calibration()) is stage and turned_pictures(stage, Calibration()) is stage
    assert turned_pictures(stage, Calibration(floor=Floor())) is stage


class Painted:
    """Finds the one red pixel of a picture, as a pose whose joints lie on its ray."""

    refused = gated = crowded = 0
    shape = None

    def find(self, frame):
        height, width = frame.image.shape[:2]
        self.shape = frame.image.shape
        row, column = np.argwhere(frame.image[:, :, 2] == 255)[0]
        place = np.array(((column + 0.5) / width, (row + 0.5) / height))
        joints = np.tile((width / 2 - column - 0.5, height / 2 - row - 0.5, 100.0), (20, 1))
        return (pose(joints, image_joints=np.tile(place, (20, 1)), box=(*(place - 0.01), 0.02, 0.02)),)

    def reset(self):
        pass

    def close(self):
        pass


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_what_is_found_in_a_turned_picture_comes_back_to_the_picture_as_it_came(degrees):
    image = np.zeros((48, 64, 3), np.uint8)
    image[10, 50, 2] = 255
    inside = Painted()
    (found,) = Turned(inside, degrees).find(frame(image))
    (plain,) = Painted().find(frame(image))
    assert inside.shape == ((48, 64, 3) if degrees in (0, 180) else (64, 48, 3))
    np.testing.assert_allclose(found.joints, plain.joints, atol=1e-4)
    np.testing.assert_allclose(found.image_joints, plain.image_joints, atol=1e-6)
    np.testing.assert_allclose((found.box[0], found.box[1]), (plain.box[0], plain.box[1]), atol=0.01)
    assert box_back((0.1, 0.2, 0.3, 0.1), degrees)[2:] == pytest.approx(
        (0.3, 0.1) if degrees in (0, 180) else (0.1, 0.3)
    )


def test_a_turned_picture_with_its_turned_lens_gives_the_same_rays():
    lens = Lens(640, 480, 500.0, 510.0, 300.0, 250.0, (0.1, -0.05, 0.001, 0.002, 0.0), "pinhole", 0.2)
    for degrees in (90, 180, 270):
        site = Calibration(lens=lens, floor=Floor(orientation=degrees))
        turned = turned_lens(site)
        size = np.array((turned.width, turned.height))
        there = np.array((0.3, 0.6))
        ray = np.array((*turned.rays(there * size - 0.5, *size), 1.0)) * (-1, -1, 1)
        back = turn_of(degrees).T @ ray
        plain = lens.rays(places_back(there, degrees) * (640, 480) - 0.5, 640, 480)
        np.testing.assert_allclose(back[:2] * (-1, -1), plain, atol=1e-5)
    assert turned_lens(Calibration(lens=lens)) is lens


def test_other_turns_are_refused():
    with pytest.raises(UsageError, match="0, 90, 180 or 270"):
        Turned(PassThrough(), 45)


GOOD = {"schema": "calib-floor/1", "up": [0.0, 0.866, -0.5], "height_m": 1.9, "orientation": 90, "measured": {}}


def test_a_floor_file_is_read(tmp_path):
    path = tmp_path / "floor.json"
    path.write_text(json.dumps(GOOD))
    floor = load_calibration(path).floor
    assert floor.height_m == 1.9 and floor.orientation == 90 and floor.pitch == pytest.approx(30, abs=0.01)
    path.write_text(json.dumps(GOOD | {"height_m": None}))
    assert load_calibration(path).floor.height_m is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("up", [0, 1]), ("up", [0, 2, 0]), ("up", "y"), ("up", [0, True, 0]), ("up", [0, None, 1]),
        ("up", [float("nan"), 1, 0]), ("height_m", 21), ("height_m", "2"), ("height_m", -3.0),
        ("orientation", 45), ("orientation", "90"), ("orientation", True), ("measured", None),
    ],
)  # fmt: skip
def test_a_floor_file_that_no_floor_can_have_is_refused(tmp_path, key, value):
    path = tmp_path / "floor.json"
    path.write_text(json.dumps(GOOD | {key: value}))
    with pytest.raises(UsageError, match=key):
        load_calibration(path)


def test_upright_poses_of_a_tilted_camera_are_those_of_a_level_one():
    joints = np.random.default_rng(1).normal((0.3, -0.2, 3.0), size=(20, 3))
    up = direction(30, 15)
    seen = joints @ upright_turn(up)  # R^T of each joint, as rows
    (found,) = Upright(PassThrough(), Floor(tuple(up))).find(frame(poses=(pose(seen),)))
    np.testing.assert_allclose(found.joints, joints, atol=1e-5)
