"""Landmarks lifted by depth: how near the truth the joints come, and what happens where the depth says nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from realtime.errors import SourceError, UsageError
from realtime.feed import SourceInfo
from realtime.generator.sight import Faults, body_of, seen_by_depth, sensed
from realtime.lifted import HELD_NS, Lifted, with_depth
from realtime.lifting import SITES, Lifting, site_of
from realtime.pose import PassThrough
from realtime.schema import SECOND_NS, Frame, Pose
from realtime.skeleton import AZURE_32, BLAZEPOSE_33, COCO_17, KINECT_V1_20, KINECT_V2_25
from scripts.bench_depth import scenes_of
from tests.realtime.depth_scene import COLOR, DEPTH, RIG, depth_of, guess, posture

IMAGE = np.zeros((COLOR[1], COLOR[0], 3), np.uint8)
ELBOW = KINECT_V2_25.index("right_elbow")


class Says:
    """A pose stage that says what it is told."""

    refused = gated = crowded = 0

    def __init__(self) -> None:
        self.poses: tuple[Pose, ...] = ()

    def find(self, frame: Frame) -> tuple[Pose, ...]:
        return tuple(replace(pose, captured_ns=frame.captured_ns) for pose in self.poses)

    def reset(self) -> None:
        pass

    close = reset


def lifted(pose: Pose, depth: np.ndarray | None, stage: Lifted | None = None, at_ns: int = 0) -> Pose:
    stage = stage or Lifted(Says(), RIG)
    stage._inner.poses = (pose,)
    return stage.find(Frame(0, at_ns, IMAGE, depth=depth))[0]


def off(pose: Pose, joints: np.ndarray) -> np.ndarray:
    """How far each joint is from the truth, (V,) metres."""
    return np.linalg.norm(pose.joints - joints, axis=1)


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, np.ndarray]]:
    """True joints and depth pictures of 24 people: limbs up to a fifth thinner or thicker, turned up to 40 degrees."""
    return scenes_of(24)


def test_joints_come_within_two_centimetres_of_the_truth(scenes):
    """Noise, holes, flying pixels, whole millimetres; landmarks off by a pixel of 640; a body of generic size."""
    rng = np.random.default_rng(1)
    errors = np.array([off(lifted(guess(joints, rng, 1.0), depth), joints) for joints, depth in scenes])
    assert np.median(errors) < 0.02
    assert np.percentile(errors, 90) < 0.06
    limbs = [KINECT_V2_25.index(name) for name in ("head", "left_elbow", "right_wrist", "left_knee", "right_ankle")]
    assert np.median(errors[:, limbs], axis=0).max() < 0.03


def test_without_depth_the_same_landmarks_are_metres_off(scenes):
    rng = np.random.default_rng(1)
    joints, _ = scenes[0]
    assert np.median(off(lifted(guess(joints, rng, 1.0), None), joints)) > 2  # about its own hips, as MediaPipe says


def test_twice_the_holes_and_noise_cost_a_centimetre(scenes):
    rng = np.random.default_rng(1)
    bad = Faults(noise=0.003, lost=0.2, holes=80, flying=0.9)
    errors = []
    for seed, (joints, _) in enumerate(scenes[:8]):
        errors.append(off(lifted(guess(joints, rng, 1.0), depth_of(joints, 1.0, bad, seed)), joints))
    assert np.median(errors) < 0.03


def test_joints_of_coco_are_lifted_from_a_flat_pose(scenes):
    rng = np.random.default_rng(1)
    errors = []
    for joints, depth in scenes[:8]:
        pose = guess(joints, rng, 1.0)
        # Of what the two layouts share: COCO has no spine, Kinect no face.
        names = [name for name in COCO_17.joints if name in KINECT_V2_25.joints]
        own = [KINECT_V2_25.index(name) for name in names]
        flat, places = np.zeros((17, 3), np.float32), np.full((17, 2), np.nan, np.float32)
        rows = [COCO_17.index(name) for name in names]
        flat[rows, :2], places[rows] = pose.joints[own, :2], pose.image_joints[own]
        places[:5], flat[:5, :2] = pose.image_joints[3], pose.joints[3, :2]
        confidence = np.full(17, 0.9, np.float32)
        confidence[:5] = 0
        found = lifted(replace(pose, layout=COCO_17, joints=flat, confidence=confidence, image_joints=places), depth)
        errors.append(np.linalg.norm(found.joints[rows] - joints[own], axis=1))
    assert np.median(errors) < 0.025


def test_measured_joints_are_surer_than_guessed_ones(scenes):
    joints, depth = scenes[0]
    pose = guess(joints, np.random.default_rng(1), 0.0)
    u, v = (RIG.depth.pixels(_in_depth(joints[ELBOW]))).astype(int)
    holed = depth.copy()
    holed[v - 9 : v + 10, u - 9 : u + 10] = 0
    whole, without = lifted(pose, depth), lifted(pose, holed)
    assert whole.confidence[ELBOW] > 0.7 * 0.9 >= 0.6 * 0.9 >= without.confidence[ELBOW] - 1e-6
    assert off(whole, joints)[ELBOW] < 0.03
    assert off(without, joints)[ELBOW] < 0.15  # by the model's own relative depth, off by 5 cm


def test_a_joint_that_the_body_hides_is_not_put_on_what_hides_it(scenes):
    """A hand behind the back: the model hardly sees it, and knows it is behind; depth sees the belly there."""
    joints = posture("nothing", 3, 30)
    joints = joints.copy()
    hand = KINECT_V2_25.index("right_wrist")
    joints[hand] = joints[1] + (0.0, -0.1, 0.3)
    pose = guess(joints, np.random.default_rng(1), 0.0)
    pose = replace(pose, confidence=np.where(np.arange(25) == hand, 0.2, 0.9).astype(np.float32))
    found = lifted(pose, depth_of(posture("nothing", 3, 30)))
    assert off(found, joints)[hand] < 0.15


def test_an_arm_before_the_trunk_does_not_move_the_trunk():
    joints = posture("nothing", 4, 30).copy()
    arm = {"right_elbow": (0.05, 0.1, -0.25), "right_wrist": (-0.1, 0.05, -0.3), "right_hand": (-0.16, 0.05, -0.3)}
    for name, place in arm.items():
        joints[KINECT_V2_25.index(name)] = joints[1] + place
    found = lifted(guess(joints, np.random.default_rng(1), 0.5), depth_of(joints))
    trunk = [KINECT_V2_25.index(name) for name in ("spine", "left_hip", "right_hip", "hip_center")]
    assert off(found, joints)[trunk].max() < 0.06
    assert off(found, joints)[KINECT_V2_25.index("right_wrist")] < 0.05


def _in_depth(point: np.ndarray) -> np.ndarray:
    """A point of Kinect axes in the depth camera's space."""
    return (point * (-1, -1, 1) - RIG.translation_m) @ np.array(RIG.rotation)


def walk(stage: Lifted, frames: int = 20, step_m: float = 0.05) -> list[tuple[Pose, np.ndarray]]:
    """A person who comes nearer, at 30 frames a second."""
    rng = np.random.default_rng(6)
    found = []
    for number in range(frames):
        joints = posture("nothing", 3, 30) + np.array((0.3, 0.05, 0.4 - number * step_m), np.float32)
        depth = sensed(seen_by_depth(RIG, [body_of(joints)]), rng)
        found.append((lifted(guess(joints, rng, 1.0), depth, stage, round(number * SECOND_NS / 30)), joints))
    return found


def test_the_body_moves_as_it_does_in_the_room():
    """1.5 m/s towards the camera: the joints follow, steadied, with no more than the filter's lag."""
    found = walk(Lifted(Says(), RIG))
    after = [(pose, joints) for pose, joints in found[5:]]
    assert np.median([off(pose, joints) for pose, joints in after]) < 0.03
    z = np.array([np.median(pose.joints[:, 2]) for pose, _ in after])
    np.testing.assert_allclose(np.diff(z).mean(), -0.05, atol=0.005)


def test_a_body_whose_depth_is_lost_stays_where_it_was_for_half_a_second():
    stage = Lifted(Says(), RIG)
    joints = posture("nothing", 3, 30)
    rng = np.random.default_rng(6)
    pose = guess(joints, rng, 0.0)
    lifted(pose, depth_of(joints), stage, 0)
    for at_ns, depth in ((SECOND_NS // 5, None), (2 * SECOND_NS // 5, np.zeros((240, 320), np.uint16))):
        held = lifted(pose, depth, stage, at_ns)
        assert np.median(off(held, joints)) < 0.08
        np.testing.assert_allclose(held.confidence, 0.54, atol=1e-6)
    gone = lifted(pose, None, stage, HELD_NS + 3 * SECOND_NS // 5)
    np.testing.assert_array_equal(gone.joints, pose.joints)  # as the stage within gave it


def test_two_people_keep_their_own_depths():
    near, far = posture("nothing", 3, 30), posture("nothing", 5, 30)
    near, far = near + np.float32((0.6, 0, -0.9)), far + np.float32((-0.4, 0, 0.4))
    depth = sensed(seen_by_depth(RIG, [body_of(near), body_of(far)]), np.random.default_rng(1))
    stage, rng = Lifted(Says(), RIG), np.random.default_rng(2)
    stage._inner.poses = (guess(near, rng, 1.0, track=1), guess(far, rng, 1.0, track=2))
    found = stage.find(Frame(0, 0, IMAGE, depth=depth))
    for pose, truth in zip(found, (near, far), strict=True):
        assert np.median(off(pose, truth)) < 0.025


def test_people_whom_depth_never_saw_are_not_kept():
    stage = Lifted(Says(), RIG)
    for track in range(50):
        pose = guess(posture("nothing", 3, 30), np.random.default_rng(track), 1.0, track=track)
        lifted(pose, np.zeros(DEPTH[::-1], np.uint16), stage, at_ns=track * SECOND_NS)
    assert len(stage._bodies) <= 1


def test_frames_and_poses_without_pictures_pass():
    stage = Lifted(PassThrough(), RIG)
    pose = replace(guess(posture("nothing", 1), np.random.default_rng(1), 0.0), image_joints=None)
    assert stage.find(Frame(0, 0, poses=(pose,)))[0] is pose
    said = Says()
    said.poses = (pose,)
    np.testing.assert_array_equal(Lifted(said, RIG).find(Frame(0, 0, IMAGE))[0].joints, pose.joints)


def test_pictures_that_change_their_shape_under_way_are_refused():
    pose = guess(posture("nothing", 1), np.random.default_rng(1), 0.0)
    with pytest.raises(SourceError, match="depth pictures are 320x180"):
        lifted(pose, np.full((180, 320), 3000, np.uint16))


def test_the_stage_is_added_where_a_source_has_depth():
    bare, within = SourceInfo("cam", "camera", 640, 480), PassThrough()
    assert with_depth(within, bare, None) == (within, "")
    assert with_depth(within, bare, RIG)[0] is within  # --calib knows of a depth camera, and the source has none
    deep = replace(bare, depth_size=(320, 240))
    with pytest.raises(
        UsageError, match=r"nothing says how its two cameras stand to each other.*python -m calib\.depth"
    ):
        with_depth(within, deep, None)
    stage, words = with_depth(within, replace(deep, rig=RIG), None)
    assert isinstance(stage, Lifted) and "as the source states" in words
    assert "as measured" in with_depth(within, replace(deep, rig=RIG), RIG)[1]
    with pytest.raises(SourceError, match="another shape"):
        with_depth(within, replace(deep, width=1280, height=720), RIG)


@pytest.mark.parametrize("layout", [KINECT_V1_20, KINECT_V2_25, COCO_17, BLAZEPOSE_33, AZURE_32])
def test_every_joint_of_every_layout_has_its_site(layout):
    Lifting(layout)
    for joint in layout.joints:
        site = site_of(joint)
        assert 0 < site.disc <= 0.1 and 0 < site.behind <= 0.12 and site.bone > site.disc
    assert set(SITES) >= {name.removeprefix("left_").removeprefix("right_") for name in layout.joints}
