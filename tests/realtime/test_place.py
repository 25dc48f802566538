"""Where people stand, told from a picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from realtime.place import Placed, place
from realtime.pose import PassThrough
from realtime.schema import Frame, Pose
from realtime.skeleton import CORE_16
from tests.realtime.hands import figure

WIDTH, HEIGHT, VIEW = 1280, 720, 65.0


def seen_at(spot: tuple[float, float, float], track: int = 1, index: int = 0) -> Pose:
    """The figure with its hips at a spot, as a pose stage gives it: about its hips, and in the picture."""
    body = figure("right") - figure("right")[0]
    stands = body + np.float32(spot)
    focal = 0.5 * WIDTH / np.tan(np.radians(VIEW) / 2)
    pixels = -focal * stands[:, :2] / stands[:, 2:]
    image = 0.5 + pixels / (WIDTH, HEIGHT)
    return Pose(index, 33_000_000 * index, track, CORE_16, body, np.ones(16, np.float32), image.astype(np.float32))


def frame(*poses: Pose) -> Frame:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    return Frame(poses[0].index, poses[0].captured_ns, image=picture, poses=poses)


@pytest.mark.parametrize("spot", [(0.0, 0.0, 3.0), (-1.2, 0.1, 4.0), (0.9, -0.2, 2.5)])
def test_a_person_is_placed_where_the_picture_shows_them(spot):
    np.testing.assert_allclose(place(seen_at(spot), WIDTH, HEIGHT, VIEW), spot, atol=1e-3)


def test_two_people_are_as_far_from_each_other_as_they_are():
    poses = Placed(PassThrough()).find(frame(seen_at((-0.5, 0, 3)), seen_at((0.7, 0, 3.4), track=2)))
    hips = [pose.joints[0] for pose in poses]
    assert np.hypot(*(hips[1] - hips[0])[[0, 2]]) == pytest.approx(np.hypot(1.2, 0.4), abs=0.01)


def test_a_joint_that_is_not_seen_does_not_move_a_person():
    pose = seen_at((0.5, 0, 3))
    wrong = pose.image_joints.copy()
    wrong[5] = 0.9, 0.1
    sure = pose.confidence.copy()
    sure[5] = 0
    moved = place(replace(pose, image_joints=wrong, confidence=sure), WIDTH, HEIGHT, VIEW)
    np.testing.assert_allclose(moved, (0.5, 0, 3), atol=1e-3)


def test_somebody_out_of_the_picture_has_no_place_and_keeps_the_last_one():
    pose = seen_at((0.5, 0, 3))
    gone = replace(pose, index=1, captured_ns=33_000_000, image_joints=pose.image_joints + 2)
    assert place(gone, WIDTH, HEIGHT) is None
    assert Placed(PassThrough()).find(frame(gone)) == ()
    stage = Placed(PassThrough())
    (first,), (second,) = stage.find(frame(pose)), stage.find(frame(gone))
    np.testing.assert_array_equal(first.joints, second.joints)
    stage.reset()
    assert stage.find(frame(replace(gone, index=2, captured_ns=66_000_000))) == ()


def test_skeletons_without_a_picture_stay_where_they_are():
    pose = seen_at((0, 0, 3))
    assert Placed(PassThrough()).find(Frame(0, 0, poses=(pose,))) == (pose,)
