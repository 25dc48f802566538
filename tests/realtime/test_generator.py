"""The synthetic person moves like a body: continuous, of constant bones, the same at every frame rate."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest

from realtime.errors import UsageError
from realtime.generator import perform, synthetic_frames
from realtime.generator.motions import ACTIONS
from realtime.recording import read_recording
from realtime.skeleton import KINECT_V2_25
from realtime.wire import poses

ROOT = Path(__file__).resolve().parents[2]
FASTEST = 8.0  # metres a second


def joint(motion, name: str) -> np.ndarray:
    return motion.joints[:, KINECT_V2_25.index(name)]


def speeds(joints: np.ndarray, fps: float) -> np.ndarray:
    return np.linalg.norm(np.diff(joints.astype(np.float64), axis=0), axis=-1) * fps


def every_action() -> list[str]:
    return [f"{name}:{way}" if way else name for name, action in ACTIONS.items() for way in action.variants or ("",)]


@pytest.mark.parametrize("entry", every_action())
def test_every_action_is_continuous_and_keeps_its_bones(entry):
    action = ACTIONS[entry.partition(":")[0]]
    for seed, seconds in ((1, 4.5), (2, max(action.least_s, 0.5))):
        motion = perform([(entry, seconds)], seed=seed, noise=False)
        assert np.isfinite(motion.joints).all()
        assert speeds(motion.joints, 30.0).max() < FASTEST
        for parent, child in KINECT_V2_25.bones:
            length = np.linalg.norm(motion.joints[:, parent] - motion.joints[:, child], axis=-1)
            assert np.ptp(length) < 1e-4, KINECT_V2_25.joints[child]


def test_actions_join_without_a_jump_and_the_truth_covers_every_frame():
    script = [("nothing", 2.0), ("wave", 3.0), ("sit_down", 2.0), ("clap", 2.5), ("wave", 2.5), ("stand_up", 2.0)]
    script += [("walk:across", 7.0), ("kick", 2.0), ("jog", 3.0), ("squat", 2.0), ("push", 2.0), ("pick_up", 2.5)]
    motion = perform(script, seed=5, noise=False)
    assert speeds(motion.joints, 30.0).max() < FASTEST
    assert [segment.label for segment in motion.segments] == [entry.partition(":")[0] for entry, _ in script]
    assert motion.segments[0].start_ns == 0
    for one, following in itertools.pairwise(motion.segments):
        assert one.end_ns == following.start_ns
    assert motion.times_ns[-1] < motion.segments[-1].end_ns
    assert len(motion.times_ns) == round(sum(seconds for _, seconds in script) * 30)


def test_a_person_who_faces_the_sensor_has_the_right_shoulder_at_the_larger_x_and_the_feet_on_the_floor():
    motion = perform([("nothing", 3.0)], seed=0, noise=False)
    assert (joint(motion, "right_shoulder")[:, 0] - joint(motion, "left_shoulder")[:, 0]).min() > 0.2
    assert (joint(motion, "head")[:, 1] - joint(motion, "right_ankle")[:, 1]).min() > 1.2
    assert 2.4 < joint(motion, "hip_center")[:, 2].min() < joint(motion, "hip_center")[:, 2].max() < 4.0
    assert (joint(motion, "right_foot")[:, 1] < -0.6).all()
    assert (joint(motion, "right_foot")[:, 2] < joint(motion, "right_ankle")[:, 2]).all()  # toes to the sensor


def test_facing_turns_the_person_to_their_left():
    motion = perform([("nothing", 2.0)], seed=0, yaw_deg=60.0, noise=False)
    across = joint(motion, "right_shoulder") - joint(motion, "left_shoulder")
    assert (across[:, 2] < -0.1).all()  # the right shoulder comes nearer


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_wave_lifts_that_hand_to_the_head_and_swings_it(side):
    motion = perform([(f"wave:{side}", 4.0)], seed=3, noise=False)
    other = "left" if side == "right" else "right"
    middle = slice(45, 90)
    hand = joint(motion, f"{side}_wrist")[middle]
    assert (hand[:, 1] > joint(motion, f"{side}_shoulder")[middle, 1]).all()
    assert np.ptp(hand[:, 0]) > 0.15
    assert (joint(motion, f"{other}_wrist")[middle, 1] < joint(motion, f"{other}_elbow")[middle, 1]).all()


def test_sitting_down_lowers_the_hips_with_the_trunk_leaning_forward_and_standing_up_undoes_it():
    motion = perform([("sit_down", 2.4), ("nothing", 2.0), ("stand_up", 2.4), ("nothing", 1.0)], seed=4, noise=False)
    hips = joint(motion, "hip_center")
    assert 0.22 < hips[0, 1] - hips[90, 1] < 0.45
    assert 0.25 < hips[90, 2] - hips[0, 2] < 0.45  # backwards, away from the sensor
    lean = hips[:, 2] - joint(motion, "shoulder_center")[:, 2]  # towards the sensor
    assert lean[:72].max() > 0.15 > lean[90]
    assert np.abs(hips[-1] - hips[0]).max() < 0.05
    feet = joint(motion, "left_ankle")
    assert np.ptp(feet[:, 1]) < 0.02


def test_walking_has_the_cadence_and_the_bob_of_walking():
    motion = perform([("walk:treadmill", 8.0)], seed=1, noise=False)
    steady = slice(45, 195)  # five seconds
    ahead = (joint(motion, "left_ankle") - joint(motion, "right_ankle"))[steady, 2]
    steps = np.count_nonzero(np.diff(np.sign(ahead)))
    assert 1.6 * 5 - 1 <= steps <= 2.3 * 5 + 1
    assert 0.4 < ahead.max() < 0.9
    hips = joint(motion, "hip_center")[steady]
    assert 0.01 < np.ptp(hips[:, 1]) < 0.07
    assert np.ptp(hips[:, 2]) < 0.08


def test_a_walk_goes_out_and_comes_home_without_sliding():
    motion = perform([("walk:across", 10.0)], seed=1, noise=False)
    hips = joint(motion, "hip_center")
    assert 1.5 < np.ptp(hips[:, 0]) < 4.5
    assert np.linalg.norm((hips[-1] - hips[0])[[0, 2]]) < 0.05
    ankle = joint(motion, "right_ankle")
    planted = ankle[1:, 1] < ankle[:, 1].min() + 0.01
    assert np.median(speeds(ankle[:, [0, 2]], 30.0)[planted]) < 0.5  # the body itself goes at 1.3


def test_the_same_seed_gives_the_same_motion_at_every_frame_rate():
    script = [("wave", 3.0), ("throw", 2.5), ("walk:depth", 4.5)]
    slow = perform(script, seed=9, fps=15.0, noise=False)
    fast = perform(script, seed=9, fps=60.0, noise=False)
    assert np.array_equal(slow.times_ns, fast.times_ns[::4])
    np.testing.assert_allclose(slow.joints, fast.joints[::4], atol=1e-5)
    assert slow.segments == fast.segments


def test_noise_is_that_of_a_sensor_and_leaves_the_motion_as_it_is():
    script = [("nothing", 10.0), ("walk", 5.0)]
    clean, noisy = (perform(script, seed=2, noise=noise) for noise in (False, True))
    error = np.linalg.norm(noisy.joints - clean.joints, axis=-1)  # (T, V)
    spine, tip = (np.median(error[:, KINECT_V2_25.index(name)]) for name in ("spine", "right_tip"))
    assert 0.003 < spine < 0.015 < tip < 0.04
    assert (clean.confidence == 1).all()
    assert (noisy.confidence >= 0).all()
    assert (noisy.confidence <= 1).all()
    again = perform(script, seed=2)
    assert np.array_equal(again.joints, noisy.joints)
    assert not np.array_equal(perform(script, seed=3).joints, noisy.joints)


def test_a_limb_behind_the_body_is_not_sure():
    motion = perform([("nothing", 3.0)], seed=6, yaw_deg=90.0)
    hidden = motion.confidence[:, KINECT_V2_25.index("left_elbow")]  # the person's right side faces away ...
    shown = motion.confidence[:, KINECT_V2_25.index("right_elbow")]
    assert np.median(hidden) < 0.6 < np.median(shown) or np.median(shown) < 0.6 < np.median(hidden)


def test_frames_go_on_without_a_jump_and_carry_one_track():
    source = synthetic_frames(seed=1, fps=20.0, script=[("nothing", 1.0), ("wave", 2.5)], start_ns=5_000_000_000)
    frames = list(itertools.islice(source, 210))  # three rounds
    assert [frame.index for frame in frames] == list(range(210))
    assert frames[0].captured_ns == 5_000_000_000
    assert {later.captured_ns - one.captured_ns for one, later in itertools.pairwise(frames)} == {50_000_000}
    assert all(len(frame.poses) == 1 and frame.poses[0].track == 1 for frame in frames)
    spine = np.stack([frame.poses[0].joints[KINECT_V2_25.index("spine")] for frame in frames])
    assert speeds(spine, 20.0).max() < 1.5
    assert len(list(synthetic_frames(seed=1, script=[("nothing", 1.0)], forever=False))) == 30


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ([], "at least one"),
        ([("fly", 2.0)], "actions are nothing, wave"),
        ([("wave:foot", 2.0)], "right, left, both"),
        ([("throw", 0.2)], "2.0 to 3600 seconds, got 0.2"),
        ([("nothing", 1.0), ("stand_up", 2.0)], "put sit_down first"),
        ([("sit_down", 2.0), ("walk", 4.0)], "put stand_up first"),
    ],
)
def test_a_script_that_no_body_can_follow_is_refused(script, says):
    with pytest.raises(UsageError, match=says):
        perform(script, seed=0)


def test_the_committed_demo_is_what_the_generator_gives():
    spec = importlib.util.spec_from_file_location("make_demo", ROOT / "scripts" / "make_demo.py")
    make_demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_demo)
    assert make_demo.DEMO.stat().st_size < 2_000_000
    recorded = list(read_recording(make_demo.DEMO))
    made = list(make_demo.demo_messages())
    assert [frame.captured_ns for frame in recorded] == [message.time.mono_ns for message in made]
    for frame, message in zip(recorded, made, strict=True):
        (pose,), (wanted,) = frame.poses, poses(message)
        assert (pose.track, pose.layout) == (wanted.track, wanted.layout)
        # Another processor's sine may round the other way, by one millimetre.
        np.testing.assert_allclose(pose.joints, wanted.joints, atol=0.0011)
        np.testing.assert_allclose(pose.confidence, wanted.confidence, atol=0.011)
