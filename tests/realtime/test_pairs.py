"""Windows of two people: whose rows, who is near, and that live ones are the offline ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from realtime.features import PAIR_STREAMS, canonical_pair, features
from realtime.pairs import PairWindows, offline_pairs, row_times_back, swapped
from realtime.resample import Trail, trail_of
from realtime.schema import SECOND_NS, Pose, Window
from realtime.skeleton import CORE_16, KINECT_V2_25, Layout
from realtime.window import WindowBuffer
from tests.realtime.hands import figure

STREAMS = ("joint", "bone", "motion", *PAIR_STREAMS)
LENGTH, FPS, STRIDE = 64, 20.0, 5
RELATION = slice(18, 21)


def person(times_ns: np.ndarray, x: float, seed: int) -> np.ndarray:
    """(T, V, 3): a figure at x metres that sways, smoothly in time, in a way of its own."""
    rng = np.random.default_rng(seed)
    seconds = (times_ns / SECOND_NS)[:, None, None]
    sway = sum(0.08 * np.sin(rng.uniform(0.5, 3, (16, 3)) * seconds + rng.uniform(0, 6, (16, 3))) for _ in range(3))
    return (figure() + np.float32([x, 0, 0]) + sway).astype(np.float32)


def poses_at(index: int, now: int, bodies: Sequence[tuple[int, np.ndarray]], layout: Layout = CORE_16) -> list[Pose]:
    return [Pose(index, now, track, layout, joints, np.ones(len(layout), np.float32)) for track, joints in bodies]


def two(seconds: float = 6.0, fps: float = 30.0, apart: float = 1.0, jitter: float = 0.0) -> tuple:
    """Times (T,), joints (T, 2, V, 3) and confidence (T, 2, V) of two people `apart` metres from each other."""
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.uniform(1 - jitter, 1 + jitter, round(seconds * fps)) * SECOND_NS / fps).astype(np.int64)
    joints = np.stack([person(times, 0.0, 1), person(times, apart, 2)], axis=1)
    return times, joints, np.ones(joints.shape[:3], np.float32)


def live(
    times: np.ndarray, joints: np.ndarray, confidence: np.ndarray, layout: Layout = CORE_16, **settings: float
) -> list[Window]:
    """What the line's own stages make of two bodies; one without a joint is not there."""
    buffer = WindowBuffer(CORE_16, LENGTH, FPS, STRIDE)
    pairs, found = PairWindows(buffer, **settings), []
    for index, now in enumerate(times.tolist()):
        there = [
            Pose(index, now, 7 + body, layout, joints[index, body], confidence[index, body])
            for body in (0, 1)
            if confidence[index, body].any()
        ]
        found += pairs.of(buffer.push(index, now, there))
        buffer.lost()
    return found


def made(joints: np.ndarray) -> np.ndarray:
    return features(joints, np.ones(joints.shape[:-1], np.float32), STREAMS)


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    """(W, T, 2, V, 3)."""
    return offline_pairs(*two(), CORE_16, LENGTH, FPS, STRIDE).joints


def turned(joints: np.ndarray, degrees: float) -> np.ndarray:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (joints @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])).astype(np.float32)


# rows


def test_at_its_own_rows_a_trail_is_its_rows():
    times, joints, confidence = two(seconds=1)
    trail = Trail(times, joints[:, 0], confidence[:, 0])
    got, sure = trail.at(times)
    np.testing.assert_array_equal(got, joints[:, 0])
    np.testing.assert_array_equal(sure, confidence[:, 0])


def test_between_its_rows_a_trail_is_read_linearly_and_outside_it_stands_still_unseen():
    joints = np.zeros((3, 16, 3), np.float32)
    joints[:, :, 0] = np.array([0.0, 1.0, 3.0])[:, None]
    sure = np.ones((3, 16), np.float32)
    sure[2, 4] = 0
    got, confidence = Trail(np.array([0, 50, 100]), joints, sure).at(np.array([-10, 25, 75, 100, 130]))
    np.testing.assert_allclose(got[:, 0, 0], [0, 0.5, 2, 3, 3])
    np.testing.assert_array_equal(confidence[:, 0], [0, 1, 1, 1, 0])
    assert confidence[2, 4] == confidence[3, 4] == 0


def test_the_newest_pose_reaches_beyond_the_last_row_but_for_joints_it_lacks():
    joints, sure = np.zeros((2, 16, 3), np.float32), np.ones((2, 16), np.float32)
    newest, seen = np.ones((16, 3), np.float32), np.ones(16, np.float32)
    seen[3] = 0
    trail = trail_of(np.array([0, 50]), joints, sure, (70, newest, seen))
    got, confidence = trail.at(np.array([60]))
    assert got[0, 0, 0] == pytest.approx(0.5) and got[0, 3, 0] == 0
    assert confidence[0, 3] == 0 and confidence[0, 0] == 1


def test_people_who_came_at_different_times_are_brought_onto_the_same_rows():
    """Both sway alike, so on the same rows one is the other a metre aside, whatever grid each is on."""
    buffer = WindowBuffer(CORE_16, LENGTH, FPS, STRIDE)
    pairs, worst, count = PairWindows(buffer), 0.0, 0
    for index in range(180):
        now = round(index * SECOND_NS / 30)
        body = person(np.array([now]), 0.0, 1)[0]
        bodies = [(1, body)] if index < 7 else [(1, body), (2, body + np.float32([1, 0, 0]))]
        for window in pairs.of(buffer.push(index, now, poses_at(index, now, bodies))):
            seen = (window.confidence > 0).all(axis=(1, 2))
            apart = window.joints[:, 1] - window.joints[:, 0]
            sign = 1 if window.track == 1 else -1
            worst = max(worst, float(np.abs(apart[seen] - np.float32([sign, 0, 0])).max()))
            count += 1
    assert count > 30 and worst < 0.002  # rows merely laid side by side are up to 0.010 apart


def test_a_pair_on_one_grid_is_the_two_windows_themselves():
    times, joints, _ = two()
    buffer = WindowBuffer(CORE_16, LENGTH, FPS, STRIDE)
    pairs = PairWindows(buffer)
    for index, now in enumerate(times.tolist()):
        single = buffer.push(index, now, poses_at(index, now, [(1, joints[index, 0]), (2, joints[index, 1])]))
        for window in pairs.of(single):
            if window.track == 1:
                np.testing.assert_array_equal(window.joints[:, 0], single[0].joints)
                np.testing.assert_array_equal(window.joints[:, 1], single[1].joints)
                assert window.end_ns == single[0].end_ns and window.captured_ns == now


@pytest.mark.parametrize(("fps", "jitter"), [(30, 0.0), (15, 0.0), (24, 0.4), (7, 0.2)])
def test_live_windows_are_the_offline_ones_bit_for_bit(fps, jitter):
    times, joints, confidence = two(fps=fps, jitter=jitter)
    confidence[:10, 1] = 0  # the second comes later, on a grid of its own
    confidence[60:64, 1] = 0
    confidence[30:40, 0, 5:8] = 0  # an arm out of sight
    confidence[80:110, 0] = 0  # the first is lost and comes again
    found = [window for window in live(times, joints, confidence) if window.track == 7]
    wanted = offline_pairs(times, joints, confidence, CORE_16, LENGTH, FPS, STRIDE)
    assert len(found) == len(wanted.joints) > 0
    np.testing.assert_array_equal(np.stack([window.joints for window in found]), wanted.joints)
    np.testing.assert_array_equal(np.stack([window.confidence for window in found]), wanted.confidence)
    assert [window.end_ns for window in found] == wanted.end_ns.tolist()


def test_live_windows_are_the_offline_ones_in_another_layout():
    rng = np.random.default_rng(0)
    times, _, _ = two(seconds=4)
    joints = rng.normal(0, 0.3, (len(times), 2, 25, 3)).astype(np.float32)
    confidence = np.ones(joints.shape[:3], np.float32)
    found = [window for window in live(times, joints, confidence, KINECT_V2_25) if window.track == 7]
    wanted = offline_pairs(times, joints, confidence, KINECT_V2_25, LENGTH, FPS, STRIDE)
    np.testing.assert_array_equal(np.stack([window.joints for window in found]), wanted.joints)


def test_rows_are_told_back_from_the_newest():
    assert row_times_back(1000, 3, 1e9 / 250).tolist() == [500, 750, 1000]


# who is a pair


def test_each_pair_gives_a_window_for_either_actor_and_they_are_each_other_changed_over():
    found = live(*two())
    first, second = found[0], found[1]
    assert (first.track, first.partner, second.track, second.partner) == (7, 8, 8, 7)
    np.testing.assert_array_equal(second.joints, swapped(first.joints))
    np.testing.assert_array_equal(second.confidence, first.confidence[:, ::-1])
    assert first.observed == second.observed >= 20


def test_people_far_from_each_other_are_no_pair():
    assert live(*two(apart=2.4)) and not live(*two(apart=2.6)) and live(*two(apart=2.6), near_m=3.0)


def test_somebody_who_came_near_for_less_than_half_of_the_time_is_no_pair_yet():
    times, joints, confidence = two(seconds=5)
    joints[:120, 1, :, 0] += 5
    ends = [window.captured_ns for window in live(times, joints, confidence)]
    assert not ends or min(ends) > times[120] + 1.2 * SECOND_NS


def test_one_person_alone_and_an_absent_partner_make_no_pair():
    times, joints, confidence = two()
    confidence[:, 1] = 0
    assert not live(times, joints, confidence)


def test_a_partner_who_was_just_lost_makes_no_pair():
    times, joints, confidence = two()
    confidence[90:, 1] = 0
    ends = [window.captured_ns for window in live(times, joints, confidence)]
    assert ends and max(ends) <= times[90] + SECOND_NS // 2


def test_of_many_people_the_nearest_pairs_are_taken_and_the_others_counted():
    buffer = WindowBuffer(CORE_16, LENGTH, FPS, STRIDE)
    pairs, found = PairWindows(buffer, most=2), []
    for index in range(60):
        now = round(index * SECOND_NS / 30)
        bodies = [(track, figure() + np.float32([x, 0, 0])) for track, x in ((1, 0.0), (2, 1.0), (3, 1.4), (4, 2.0))]
        found += pairs.of(buffer.push(index, now, poses_at(index, now, bodies)))
    assert {(window.track, window.partner) for window in found if window.track < window.partner} == {(2, 3), (3, 4)}
    assert pairs.crowded > 0


def test_settings_that_make_no_sense_are_refused():
    buffer = WindowBuffer(CORE_16, LENGTH, FPS, STRIDE)
    with pytest.raises(ValueError, match="near_m must be above 0"):
        PairWindows(buffer, near_m=0)
    with pytest.raises(ValueError, match="CORE_16"):
        PairWindows(WindowBuffer(KINECT_V2_25, LENGTH, FPS, STRIDE))
    with pytest.raises(ValueError, match="two bodies"):
        offline_pairs(np.arange(3), np.zeros((3, 1, 16, 3)), np.zeros((3, 1, 16)), CORE_16, LENGTH, FPS, STRIDE)


# what the network sees


def test_turning_both_or_moving_both_changes_nothing(windows):
    np.testing.assert_allclose(made(turned(windows, 70)), made(windows), atol=2e-5)
    np.testing.assert_allclose(made(windows + np.float32([2, 0.3, -1])), made(windows), atol=2e-5)


def test_moving_the_partner_changes_the_relation_alone(windows):
    moved = windows.copy()
    moved[:, :, 1] += np.float32([0.4, 0, 0])
    before, after = made(windows), made(moved)
    np.testing.assert_allclose(after[:, :18], before[:, :18], atol=2e-5)
    difference = np.linalg.norm(after[:, RELATION] - before[:, RELATION], axis=1)
    np.testing.assert_allclose(difference, 0.4, atol=1e-4)


def test_turning_the_partner_alone_turns_what_is_seen_of_them_alone(windows):
    alone = windows.copy()
    root = alone[:, :, 1, :1]
    alone[:, :, 1] = turned(alone[:, :, 1] - root, 90) + root
    before, after = made(windows), made(alone)
    np.testing.assert_array_equal(after[:, :9], before[:, :9])
    assert np.abs(after[:, 9:12] - before[:, 9:12]).max() > 0.1


def test_changed_over_each_sees_their_own_body_as_a_single_window_does(windows):
    one = ("joint", "bone", "motion")
    for body, pair in enumerate((windows, swapped(windows))):
        single = features(windows[:, :, body], np.ones((*windows.shape[:2], 16), np.float32), one)
        np.testing.assert_array_equal(made(pair)[:, :9], single)


def test_mirroring_both_mirrors_the_features(windows):
    mirrored = windows[..., list(CORE_16.mirror()), :] * np.float32([-1, 1, 1])
    got, wanted = made(mirrored), made(windows)[..., list(CORE_16.mirror())].copy()
    wanted[:, ::3] *= -1
    np.testing.assert_allclose(got, wanted, atol=2e-5)


def test_the_relation_is_cut_where_it_is_out_of_reach(windows):
    far = windows.copy()
    far[:, :, 1] += np.float32([50, 0, 0])
    assert np.abs(canonical_pair(far)[2]).max() == 3.0


def test_streams_and_bodies_that_do_not_go_together_are_refused(windows):
    sure = np.ones(windows.shape[:-1], np.float32)
    with pytest.raises(ValueError, match="two bodies"):
        features(windows[:, :, 0], sure[:, :, 0], STREAMS)
    with pytest.raises(ValueError, match="one body"):
        features(windows, sure, ("joint",))
    broken = windows.copy()
    broken[0, 0, 1, 0, 0] = np.nan
    with pytest.raises(ValueError, match="non-finite"):
        features(broken, sure, STREAMS)


def test_a_window_of_one_person_knows_no_partner():
    times, joints, _ = two(seconds=2)
    buffer = WindowBuffer(CORE_16, LENGTH, FPS, STRIDE)
    given = [
        window
        for index, now in enumerate(times.tolist())
        for window in buffer.push(index, now, poses_at(index, now, [(1, joints[index, 0])]))
    ]
    assert given and all(window.partner is None and window.joints.shape == (LENGTH, 16, 3) for window in given)
    assert replace(given[0], partner=2).partner == 2
