import numpy as np
import pytest

from realtime.schema import SECOND_NS
from realtime.skeleton import KINECT_V1_20
from train import pool as pool_module
from train.data.clip import Clip, Recording, Truth
from train.pool import Pool, Unit, draw, weights
from train.synthesis import synthetic_recordings
from train.vocabulary import ACTIONS, CLASSES, MEANING, MIRRORED, NOTHING, action_of

FPS = 20.0


def clip(label="wave", data="utd_mhad", seconds=4.0, fps=20):
    frames = int(seconds * fps)
    joints = np.random.default_rng(0).normal(size=(frames, 1, 20, 3)).astype(np.float32)
    times = (np.arange(frames) * SECOND_NS / fps).astype(np.int64)
    return Clip(data, "c", 1, label, times, joints, np.ones((frames, 1, 20), np.float32), KINECT_V1_20)


def recording(truths, seconds=20, point=True):
    made = clip(seconds=seconds)
    return Recording(
        "msrc12", "r", 1, made.times_ns, made.joints, made.confidence, KINECT_V1_20, tuple(truths), point, ("kick",)
    )  # fmt: skip


def test_every_label_means_an_action_that_exists():
    for data, labels in MEANING.items():
        assert set(labels.values()) <= set(ACTIONS), data
    assert CLASSES[0] == NOTHING and len(set(CLASSES)) == len(CLASSES)
    assert {MIRRORED[MIRRORED[name]] for name in MIRRORED} == set(MIRRORED)
    assert action_of("msr_action3d", "two_hand_wave") == action_of("utkinect", "wave_hands") == "wave"
    assert action_of("msrc12", "no such label") is None


def test_a_clip_is_one_unit_and_a_foreign_label_none():
    pool = Pool(FPS).add([clip("wave"), clip("no such action")])
    assert [unit.action for unit in pool.units] == [CLASSES.index("wave")]
    assert len(pool.rows()) == pool.units[0].stop


def test_nothing_is_taken_only_far_from_a_point_truth():
    tag = 10 * SECOND_NS
    pool = Pool(FPS).add([recording([Truth("kick", tag, tag)])])
    idle = [unit for unit in pool.units if unit.action == 0]
    kick = [unit for unit in pool.units if unit.action == CLASSES.index("kick")]
    assert len(kick) == 1 and kick[0].start <= 200 <= kick[0].stop
    assert len(idle) == 2
    assert idle[0].stop <= (10 - pool_module.IDLE_BEFORE_S) * FPS + 1
    assert idle[1].start >= (10 + pool_module.IDLE_AFTER_S) * FPS - 1


def test_rows_are_about_the_root_at_the_models_rate():
    pool = Pool(FPS).add([clip(fps=60, seconds=3)])
    assert len(pool.rows()) == pytest.approx(3 * FPS, abs=1)
    np.testing.assert_array_equal(pool.rows()[:, 0], 0)


def test_windows_are_finite_and_their_labels_sum_to_one():
    pool = Pool(FPS).add(synthetic_recordings(1, 0))
    rng = np.random.default_rng(0)
    joints, labels = draw(pool, rng.integers(0, len(pool.units), 64), 64, rng)
    assert joints.shape == (64, 64, 16, 3) and np.isfinite(joints).all()
    np.testing.assert_allclose(labels.sum(axis=1), 1)
    assert (labels[:, 0] > 0).any() and (labels[:, 1:].sum(axis=1) > 0.99).any()


def test_the_label_grows_with_what_is_seen_of_the_action():
    unit = Unit("nw_ucla", 5, 0, 60, 0, 60, True)
    rng = np.random.default_rng(0)
    ends = [pool_module._ends(unit, 64, 1.0, FPS, rng) for _ in range(2000)]
    early = [share for end, share in ends if end < 0.26 * 60]
    late = [share for end, share in ends if 0.5 * 60 < end < 60]
    assert early and max(early) < 0.1 and min(late) == 1.0


def test_a_mirrored_swipe_is_the_other_swipe():
    pool = Pool(FPS).add([clip("swipe_left", data="utd_mhad")])
    _, labels = draw(pool, np.zeros(200, int), 64, np.random.default_rng(0))
    seen = labels.sum(axis=0)
    assert seen[CLASSES.index("swipe_left")] > 20 and seen[CLASSES.index("swipe_right")] > 20


def test_weights_follow_shares_and_lift_rare_classes():
    pool = Pool(FPS).add([clip("wave")] * 9 + [clip("clap")] + [clip("walk", data="utkinect")])
    chance = weights(pool, {"utd_mhad": 1.0, "utkinect": 0.5})
    assert chance.sum() == pytest.approx(1)
    assert chance[10] == pytest.approx(1 / 3)
    assert chance[9] / chance[:9].sum() == pytest.approx(1 / 3)


def rows_of(unit, before, at, seed):
    first, second, part = pool_module._places(unit, before, at, FPS, np.random.default_rng(seed))
    return first * (1 - part) + second * part


def test_in_front_of_a_clip_lies_its_first_row_or_the_end_of_another():
    unit, before = Unit("nw_ucla", 5, 100, 160, 100, 160, True), Unit("nw_ucla", 6, 0, 50, 0, 50, True)
    at = np.arange(120.0, 140) - 60  # rows 60 to 79, all before the clip
    seen = [rows_of(unit, before, at, seed) for seed in range(40)]
    held = [rows for rows in seen if (rows == 100).all()]
    other = [rows for rows in seen if (rows < 50).all()]
    assert len(held) > 8 and len(other) > 8 and len(held) + len(other) == 40
    inside = rows_of(unit, before, np.arange(110.0, 150), 0)
    np.testing.assert_allclose(inside, np.arange(110.0, 150))


def test_a_piece_of_a_recording_is_shown_with_what_really_came_before_or_alone():
    unit = Unit("utkinect", 5, 100, 160, 0, 400, True)
    fronts = {float(rows_of(unit, unit, np.array([80.0, 130.0]), seed)[0]) for seed in range(40)}
    assert fronts == {80.0, 100.0}


def test_an_action_that_is_over_is_nothing():
    unit = Unit("nw_ucla", 5, 0, 60, 0, 60, True)
    rng = np.random.default_rng(0)
    ends = [pool_module._ends(unit, 64, 1.0, FPS, rng) for _ in range(4000)]
    over = [share for end, share in ends if end > 60 + pool_module.AFTER_S * FPS + 1]
    assert len(over) > 200 and max(over) == 0.0
