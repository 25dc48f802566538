"""Live windows are slices of the offline stream, and missing joints lie where the rules say."""

from __future__ import annotations

import numpy as np
import pytest

from realtime.resample import HELD_ROWS, offline_windows, resample, runs
from realtime.schema import SECOND_NS, Pose, Window
from realtime.skeleton import CORE_16, KINECT_V2_25, Layout
from realtime.window import WindowBuffer

FPS, LENGTH, STRIDE = 20.0, 64, 4
START_NS = 7_000_000_000_123
ROOT, WRIST, ELBOW = (CORE_16.index(name) for name in ("hip_center", "left_wrist", "left_elbow"))


def times(count: int, fps: float) -> np.ndarray:
    return START_NS + np.rint(np.arange(count) * SECOND_NS / fps).astype(np.int64)


def stream(seed: int, fps: float, missing: float, count: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A hostile stream: jitter, joints and whole bodies lost, gaps below and above the reset."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(SECOND_NS / fps, 0.2 * SECOND_NS / fps, count).clip(1e6)
    steps += np.where(rng.random(count) < 0.02, rng.choice([3e8, 4.5e8, 7e8], count), 0)
    joints = rng.normal(size=(count, 16, 3)).astype(np.float32)
    confidence = np.where(rng.random((count, 16)) < missing, 0, rng.uniform(0.1, 1, (count, 16))).astype(np.float32)
    confidence[rng.random(count) < 0.02] = 0
    return START_NS + np.cumsum(steps).astype(np.int64), joints, confidence


def pose(at: int, joints: np.ndarray, confidence: np.ndarray, track: int = 1, layout: Layout = CORE_16) -> Pose:
    return Pose(0, int(at), track, layout, joints, confidence)


def feed(buffer: WindowBuffer, at: np.ndarray, joints: np.ndarray, confidence: np.ndarray) -> list[Window]:
    windows = []
    for i in range(len(at)):
        windows += buffer.push(i, int(at[i]), [pose(at[i], joints[i], confidence[i])])
    return windows


def body(count: int) -> tuple[np.ndarray, np.ndarray]:
    """A stiff body that walks along +x, 5 cm a pose."""
    joints = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32) + np.zeros((count, 1, 1), np.float32)
    joints[..., 0] += 0.05 * np.arange(count)[:, None]
    return joints, np.ones((count, 16), np.float32)


@pytest.mark.parametrize("missing", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("fps", [10, 15, 30, 60])
def test_live_windows_are_slices_of_the_offline_stream(fps, missing):
    at, joints, confidence = stream(fps, fps, missing)
    live = feed(WindowBuffer(CORE_16, LENGTH, FPS, STRIDE), at, joints, confidence)
    offline = offline_windows(at, joints, confidence, CORE_16, LENGTH, FPS, STRIDE)
    assert len(live) == len(offline.joints) > 0
    np.testing.assert_array_equal(np.stack([w.joints for w in live]), offline.joints)
    np.testing.assert_array_equal(np.stack([w.confidence for w in live]), offline.confidence)
    assert [w.observed for w in live] == offline.observed.tolist()


def test_windows_are_slices_of_resample():
    joints, confidence = body(200)
    at = times(200, 30)
    rows, sure, _ = resample(at, joints, confidence, FPS)
    windows = offline_windows(at, joints, confidence, CORE_16, LENGTH, FPS, STRIDE)
    ends = np.rint((windows.end_ns - at[0]) * FPS / SECOND_NS).astype(int)
    assert (ends % STRIDE == STRIDE - 1).all()
    for k, end in enumerate(ends[ends >= LENGTH - 1]):
        k += int((ends < LENGTH - 1).sum())
        np.testing.assert_array_equal(windows.joints[k], rows[end - LENGTH + 1 : end + 1])
        np.testing.assert_array_equal(windows.confidence[k], sure[end - LENGTH + 1 : end + 1])


@pytest.mark.parametrize("fps", [10, 15, 30, 60])
def test_one_motion_gives_the_same_rows_at_any_camera_rate(fps):
    at = times(6 * fps + 1, fps)
    phase = (at - START_NS)[:, None, None] / SECOND_NS * 3.0 + np.arange(48).reshape(16, 3)
    joints, confidence = np.sin(phase).astype(np.float32), np.ones((len(at), 16), np.float32)
    rows, _, observed = resample(at, joints, confidence, FPS)
    truth = np.sin(np.arange(len(rows))[:, None, None] / FPS * 3.0 + np.arange(48).reshape(16, 3))
    assert len(rows) == 121 and observed.all()
    assert np.abs(rows - truth).max() < (3.0 / fps) ** 2 / 8 + 1e-5  # what a straight line may cost


def test_a_missing_joint_walks_along_for_five_rows_then_lies_on_its_parent():
    joints, confidence = body(40)
    confidence[20:, WRIST], joints[20:, WRIST] = 0, 0
    rows, sure, _ = resample(times(40, FPS), joints, confidence, FPS)
    held = rows[19, WRIST] - rows[19, ROOT]
    np.testing.assert_allclose(
        rows[20 : 20 + HELD_ROWS, WRIST] - rows[20 : 20 + HELD_ROWS, ROOT], held + np.zeros((5, 3))
    )
    np.testing.assert_array_equal(rows[20 + HELD_ROWS :, WRIST], rows[20 + HELD_ROWS :, ELBOW])
    assert (sure[20:, WRIST] == 0).all() and (sure[:20] == 1).all()


def test_a_limb_never_seen_lies_on_its_nearest_seen_ancestor():
    joints, confidence = body(10)
    for joint in (WRIST, ELBOW):
        confidence[:, joint], joints[:, joint] = 0, 0
    rows, _, _ = resample(times(10, FPS), joints, confidence, FPS)
    shoulder = rows[:, CORE_16.index("left_shoulder")]
    np.testing.assert_array_equal(rows[:, WRIST], shoulder)
    np.testing.assert_array_equal(rows[:, ELBOW], shoulder)


def test_a_missing_root_goes_with_the_body():
    joints, confidence = body(60)
    truth = joints.copy()
    confidence[20:, ROOT], joints[20:, ROOT] = 0, 0
    rows, sure, observed = resample(times(60, FPS), joints, confidence, FPS)
    np.testing.assert_allclose(rows, truth, atol=1e-5)
    assert (sure[20:, ROOT] == 0).all() and observed.all()


def test_a_joint_in_only_one_of_two_near_poses_is_taken_from_it():
    joints, confidence = body(40)
    confidence[20, WRIST], joints[20, WRIST] = 0, 99
    _, sure, _ = resample(times(40, 30), joints, confidence, FPS)
    assert (sure > 0).all()


def test_a_missing_root_trusts_a_joint_whose_offset_is_known():
    joints, confidence = body(40)
    truth, spine = joints[:, ROOT].copy(), CORE_16.index("spine")
    confidence[:20, spine], joints[:20, spine] = 0, 0  # first in tree order, but never seen together with the root
    confidence[20:, ROOT], joints[20:, ROOT] = 0, 0
    rows, _, _ = resample(times(40, FPS), joints, confidence, FPS)
    np.testing.assert_allclose(rows[:, ROOT], truth, atol=1e-5)


def test_a_row_is_as_sure_as_the_less_sure_of_its_two_poses():
    joints, confidence = body(4)
    confidence[:, WRIST] = [0.9, 0.3, 0.8, 0.5]
    _, sure, _ = resample(times(4, 30), joints, confidence, FPS)  # rows at poses 0, 1.5 and 3
    np.testing.assert_allclose(sure[:, WRIST], [0.9, 0.3, 0.5])


def test_a_body_that_vanishes_is_not_observed():
    joints, confidence = body(40)
    confidence[20:30] = 0
    rows, _, observed = resample(times(40, FPS), joints, confidence, FPS)
    assert not observed[20:30].any() and observed[:20].all() and observed[30:].all()
    np.testing.assert_allclose(rows[20, ROOT], rows[19, ROOT])


def test_rows_inside_a_gap_are_not_observed():
    joints, confidence = body(40)
    at = times(40, FPS)
    at[20:] += 250_000_000  # 0.3 s between poses 19 and 20: five rows
    _, _, observed = resample(at, joints, confidence, FPS)
    assert np.flatnonzero(~observed).tolist() == [20, 21, 22, 23, 24]


def test_a_gap_of_more_than_half_a_second_ends_the_track_and_starts_it_anew():
    joints, confidence = body(60)
    at = times(60, FPS)
    at[30:] += SECOND_NS
    buffer = WindowBuffer(CORE_16, LENGTH, FPS, STRIDE)
    assert feed(buffer, at[:30], joints[:30], confidence[:30])
    assert buffer.lost() == []
    assert feed(buffer, at[30:48], joints[30:48], confidence[30:48]) == []
    assert buffer.lost() == [1] and buffer.lost() == []
    window = feed(buffer, at[48:], joints[48:], confidence[48:])[0]
    assert window.start_ns == at[30] and window.observed == 20
    assert [len(run) for run in runs(at)] == [30, 30]


def test_a_track_without_poses_is_lost_after_half_a_second():
    joints, confidence = body(1)
    buffer = WindowBuffer(CORE_16, LENGTH, FPS, STRIDE)
    buffer.push(0, START_NS, [pose(START_NS, joints[0], confidence[0], track=5)])
    buffer.push(1, START_NS + 500_000_000, [])
    assert buffer.lost() == []
    buffer.push(2, START_NS + 500_000_001, [])
    assert buffer.lost() == [5]


def test_before_the_window_is_full_the_first_row_stands_in_front():
    joints, confidence = body(24)
    window = feed(WindowBuffer(CORE_16, LENGTH, FPS, STRIDE), times(24, FPS), joints, confidence)[0]
    assert window.observed == 20 and window.start_ns == START_NS and window.index == 19
    np.testing.assert_array_equal(window.joints[: LENGTH - 20], np.broadcast_to(joints[0], (LENGTH - 20, 16, 3)))
    assert (window.confidence[: LENGTH - 20] == 0).all() and (window.confidence[LENGTH - 20 :] == 1).all()


def test_a_full_window_says_when_its_oldest_row_was():
    joints, confidence = body(100)
    window = feed(WindowBuffer(CORE_16, LENGTH, FPS, STRIDE), times(100, FPS), joints, confidence)[-1]
    assert window.captured_ns - window.start_ns == 63 * 50_000_000


def test_a_window_does_not_change_when_more_poses_come():
    joints, confidence = body(200)
    buffer = WindowBuffer(CORE_16, LENGTH, FPS, STRIDE)
    first = feed(buffer, times(200, FPS)[:20], joints[:20], confidence[:20])[0]
    before = first.joints.copy(), first.confidence.copy()
    feed(buffer, times(200, FPS)[20:], joints[20:], confidence[20:])
    np.testing.assert_array_equal(first.joints, before[0])
    np.testing.assert_array_equal(first.confidence, before[1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_values_that_are_no_positions_are_missing_and_counted(value):
    joints, confidence = body(40)
    joints[20, WRIST, 1], confidence[25, ELBOW] = value, np.nan
    buffer = WindowBuffer(CORE_16, LENGTH, FPS, 1)
    windows = feed(buffer, times(40, FPS), joints, confidence)
    assert buffer.refused == 2
    assert all(np.isfinite(w.joints).all() and np.isfinite(w.confidence).all() for w in windows)
    assert windows[-1].confidence[-20, WRIST] == 0 and windows[-1].confidence[-15, ELBOW] == 0


def test_a_bad_value_in_another_layout_does_not_spread_through_the_conversion():
    joints, confidence = np.ones((25, 3), np.float32), np.ones(25, np.float32)
    joints[KINECT_V2_25.index("left_tip")] = np.nan
    buffer = WindowBuffer(CORE_16, 4, FPS, 1, min_observed=1)
    window = buffer.push(0, START_NS, [pose(START_NS, joints, confidence, layout=KINECT_V2_25)])[0]
    assert np.isfinite(window.joints).all() and (window.confidence[-1] == 1).all() and buffer.refused == 1


def test_poses_of_several_layouts_become_the_models_layout_by_name():
    joints = np.arange(75, dtype=np.float32).reshape(25, 3)
    core = np.stack([joints[KINECT_V2_25.index(name)] for name in CORE_16.joints])
    buffer = WindowBuffer(CORE_16, 4, FPS, 1, min_observed=1)
    poses = [
        pose(START_NS, joints, np.ones(25, np.float32), 1, KINECT_V2_25),
        pose(START_NS, core, np.ones(16, np.float32), 2),
    ]
    first, second = buffer.push(0, START_NS, poses)
    assert (first.track, second.track) == (1, 2)
    np.testing.assert_allclose(first.joints, second.joints, atol=1e-4)


def test_a_pose_that_goes_back_in_time_is_dropped_and_counted():
    joints, confidence = body(60)
    at = times(60, FPS)
    order = [*range(30), 28, 29, *range(30, 60)]
    buffer = WindowBuffer(CORE_16, LENGTH, FPS, STRIDE)
    windows = feed(buffer, at[order], joints[order], confidence[order])
    straight = feed(WindowBuffer(CORE_16, LENGTH, FPS, STRIDE), at, joints, confidence)
    assert buffer.late == 2 and len(windows) == len(straight)
    np.testing.assert_array_equal(windows[-1].joints, straight[-1].joints)
    offline = offline_windows(at[order], joints[order], confidence[order], CORE_16, LENGTH, FPS, STRIDE)
    np.testing.assert_array_equal(offline.joints[-1], straight[-1].joints)


def test_a_clock_that_jumps_back_ends_the_track_instead_of_silencing_it():
    joints, confidence = body(40)
    buffer = WindowBuffer(CORE_16, LENGTH, FPS, STRIDE)
    feed(buffer, times(40, FPS) + 60 * SECOND_NS, joints, confidence)
    assert len(feed(buffer, times(40, FPS), joints, confidence)) == 6
    assert buffer.lost() == [1]


def test_a_flood_of_tracks_is_bounded():
    joints, confidence = body(1)
    buffer = WindowBuffer(CORE_16, LENGTH, FPS, STRIDE, max_tracks=8)
    for track in range(100):
        buffer.push(track, START_NS + track, [pose(START_NS + track, joints[0], confidence[0], track=track)])
    assert buffer.crowded == 92
    buffer.push(101, START_NS + SECOND_NS, [])
    assert buffer.lost() == list(range(8))


def test_a_recording_without_poses_has_no_windows():
    none = np.zeros((0, 16, 3), np.float32)
    assert len(resample(np.zeros(0, int), none, none[..., 0], FPS)[0]) == 0
    assert offline_windows(np.zeros(0, int), none, none[..., 0], CORE_16, LENGTH, FPS, STRIDE).joints.shape == (
        0,
        64,
        16,
        3,
    )


def test_wrong_numbers_are_refused_with_the_rule():
    with pytest.raises(ValueError, match=r"stride must be in \[1, 64\], got 65"):
        WindowBuffer(CORE_16, LENGTH, FPS, 65)
    with pytest.raises(ValueError, match="fps must be above 0, got 0"):
        WindowBuffer(CORE_16, LENGTH, 0, 1)
    with pytest.raises(ValueError, match=r"CORE_16 need joints \(3, 16, 3\)"):
        resample(times(3, FPS), np.zeros((3, 25, 3)), np.zeros((3, 25)), FPS)
