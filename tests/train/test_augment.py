import numpy as np
import pytest

from realtime.skeleton import CORE_16, LAYOUTS
from train.augment import augment, drop_joints, mirror, rotation


def windows(n=4, t=64):
    return np.random.default_rng(0).normal(size=(n, t, len(CORE_16), 3)).astype(np.float32)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_mirrored_twice_is_identity_and_once_swaps_sides(layout):
    joints = np.random.default_rng(1).normal(size=(2, 3, len(layout), 3)).astype(np.float32)
    once = mirror(joints, layout)
    np.testing.assert_array_equal(mirror(once, layout), joints)
    left, right = layout.index("left_shoulder"), layout.index("right_shoulder")
    np.testing.assert_array_equal(once[..., left, :], joints[..., right, :] * [-1, 1, 1])


def test_rotations_are_rotations_about_the_named_axes():
    angles = np.random.default_rng(2).uniform(-3, 3, (3, 5))
    for matrix in rotation(*angles):
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-6)
        assert np.linalg.det(matrix) == pytest.approx(1)
    quarter, zero = np.array([np.pi / 2]), np.zeros(1)
    np.testing.assert_allclose(rotation(quarter, zero, zero)[0] @ [0, 1, 0], [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(rotation(zero, quarter, zero)[0] @ [1, 0, 0], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(rotation(zero, zero, quarter)[0] @ [0, 0, 1], [0, 0, 1], atol=1e-6)


def test_strength_zero_changes_nothing_and_one_changes_everything_finitely():
    joints = windows()
    np.testing.assert_array_equal(augment(joints, np.random.default_rng(3), 0.0), joints)
    changed = augment(joints, np.random.default_rng(3), 1.0)
    assert changed.shape == joints.shape and changed.dtype == np.float32 and np.isfinite(changed).all()
    assert (np.abs(changed - joints).max(axis=(1, 2, 3)) > 1e-3).all()


def test_the_same_generator_augments_alike():
    a, b = (augment(windows(), np.random.default_rng(4), 1.0) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_a_dropped_joint_is_held_then_lies_on_its_parent():
    joints = windows(64)
    dropped = drop_joints(joints, np.random.default_rng(5), share=1.0, hold=5)
    on_parent = (dropped == dropped[:, :, list(CORE_16.parents)]).all(axis=-1)  # (N, T, V)
    on_parent[:, :, CORE_16.root] = False
    assert on_parent.any(axis=(1, 2)).sum() > 32  # most gaps are longer than the hold
    np.testing.assert_array_equal(drop_joints(joints, np.random.default_rng(5), share=0.0), joints)
