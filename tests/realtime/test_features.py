"""The canonical body: what the network sees of a window, and what it is kept from seeing."""

from __future__ import annotations

import numpy as np
import pytest

from realtime.features import MOTION_GAIN, canonical, channels, features
from realtime.generator import perform
from realtime.skeleton import CORE_16, KINECT_V2_25, convert

STREAMS = ("joint", "bone", "motion")
N, T, V = 3, 24, len(CORE_16)
ROOT = CORE_16.index("hip_center")


@pytest.fixture(scope="module")
def joints() -> np.ndarray:
    """(N, T, V, 3): people who wave, walk and sit down, each facing another way."""
    rows = []
    for seed, (action, yaw) in enumerate((("wave", 0.0), ("walk", 50.0), ("sit_down", -70.0))):
        seen = perform([(action, 3.0)], seed=seed, fps=20.0, yaw_deg=yaw, noise=False)
        made, _ = convert(seen.joints, seen.confidence, KINECT_V2_25, CORE_16)
        rows.append(made[20 : 20 + T])
    return np.stack(rows)


def seen(joints: np.ndarray, streams: tuple[str, ...] = STREAMS) -> np.ndarray:
    return features(joints, np.ones(joints.shape[:3], np.float32), streams)


def turned(joints: np.ndarray, angle: float) -> np.ndarray:
    """Turned about the vertical."""
    cos, sin = np.cos(angle), np.sin(angle)
    return (joints @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]]).T).astype(np.float32)


def other_bones(joints: np.ndarray) -> np.ndarray:
    """The same directions of trunk, head and limbs on a body of other proportions."""
    made = joints.copy()
    rng = np.random.default_rng(5)
    at = {name: CORE_16.index(name) for name in CORE_16.joints}
    trunk, head = rng.uniform(0.6, 1.6, 2)
    made[..., at["shoulder_center"], :] = joints[..., ROOT, :] + trunk * (
        joints[..., at["shoulder_center"], :] - joints[..., ROOT, :]
    )
    made[..., at["spine"], :] = joints[..., ROOT, :]  # the spine's own place is not looked at
    made[..., at["head"], :] = made[..., at["shoulder_center"], :] + head * (
        joints[..., at["head"], :] - joints[..., at["shoulder_center"], :]
    )
    across = joints[..., at["right_hip"], :] - joints[..., at["left_hip"], :]
    made[..., at["left_hip"], :] = joints[..., ROOT, :] - 0.9 * across
    made[..., at["right_hip"], :] = joints[..., ROOT, :] + 0.9 * across
    for side in ("left", "right"):
        for parent, child in (
            ("shoulder_center", f"{side}_shoulder"),
            (f"{side}_shoulder", f"{side}_elbow"),
            (f"{side}_elbow", f"{side}_wrist"),
            (f"{side}_hip", f"{side}_knee"),
            (f"{side}_knee", f"{side}_ankle"),
        ):
            bone = joints[..., at[child], :] - joints[..., at[parent], :]
            made[..., at[child], :] = made[..., at[parent], :] + rng.uniform(0.5, 2.0) * bone
    return made


@pytest.mark.parametrize("where", [(0.3, -1.2, 4.0), (-50.0, 0.0, 0.0)])
def test_where_a_person_stands_does_not_matter(joints, where):
    np.testing.assert_allclose(seen(joints + np.float32(where)), seen(joints), atol=2e-4)


@pytest.mark.parametrize("angle", [0.4, 1.5, 3.1, -2.0])
def test_how_a_person_is_turned_does_not_matter(joints, angle):
    np.testing.assert_allclose(seen(turned(joints, angle)), seen(joints), atol=1e-4)


@pytest.mark.parametrize("scale", [0.5, 1.3, 1000.0])
def test_size_and_unit_do_not_matter(joints, scale):
    np.testing.assert_allclose(seen(joints * np.float32(scale)), seen(joints), atol=1e-4)


def test_the_lengths_of_bones_do_not_matter(joints):
    changed = other_bones(joints)
    assert np.abs(changed - joints).max() > 0.1
    # The heading is an average in metres over shoulders and hips, so their widths move it by a degree.
    np.testing.assert_allclose(seen(changed, ("joint",)), seen(joints, ("joint",)), atol=0.02)
    one = joints[:1]  # who faces the sensor and does not turn: nothing moves at all
    np.testing.assert_allclose(canonical(one)[..., 1], canonical(other_bones(one))[..., 1], atol=1e-5)


def test_mirrored_joints_give_mirrored_features(joints):
    order = list(CORE_16.mirror())
    mirrored = joints[:, :, order] * np.float32((-1, 1, 1))
    expected = seen(joints)[..., order]
    expected[:, 0::3] *= -1  # x of every stream
    np.testing.assert_allclose(seen(mirrored), expected, atol=1e-4)


def test_left_and_right_are_told_apart(joints):
    assert np.abs(seen(joints) - seen(joints)[..., list(CORE_16.mirror())]).max() > 0.2


def test_the_body_faces_the_sensor_and_stands_on_its_hips(joints):
    body = canonical(joints)
    assert not body[:, :, ROOT].any()
    across = (body[:, :, CORE_16.index("right_hip")] - body[:, :, CORE_16.index("left_hip")]).sum(axis=1)
    across += (body[:, :, CORE_16.index("right_shoulder")] - body[:, :, CORE_16.index("left_shoulder")]).sum(axis=1)
    assert (across[:, 0] > 0).all()
    assert np.abs(across[:, 2]).max() < 0.05 * across[:, 0].min()


def test_the_bones_of_the_canonical_body_have_its_lengths(joints):
    body = canonical(joints)
    for start, end, length in (
        ("hip_center", "shoulder_center", 0.5),
        ("shoulder_center", "head", 0.24),
        ("left_shoulder", "left_elbow", 0.28),
        ("right_elbow", "right_wrist", 0.25),
        ("left_hip", "left_knee", 0.42),
        ("right_knee", "right_ankle", 0.40),
        ("left_hip", "right_hip", 0.20),
    ):
        bone = body[:, :, CORE_16.index(end)] - body[:, :, CORE_16.index(start)]
        np.testing.assert_allclose(np.linalg.norm(bone, axis=-1), length, atol=1e-5, err_msg=f"{start} {end}")


def test_bones_and_motion_by_slow_loops(joints):
    out = seen(joints)
    body = out[:, :3]
    for n, t, v in np.ndindex(N, T, V):
        parent = CORE_16.parents[v]
        np.testing.assert_allclose(out[n, 3:6, t, v], body[n, :, t, v] - body[n, :, t, parent], atol=1e-6)
        step = body[n, :, t + 1, v] - body[n, :, t, v] if t + 1 < T else np.zeros(3)
        np.testing.assert_allclose(out[n, 6:9, t, v], MOTION_GAIN * step, atol=1e-5)


def test_streams_come_in_the_order_asked_for(joints):
    out = seen(joints)
    again = seen(joints, ("motion", "joint"))
    np.testing.assert_array_equal(again[:, :3], out[:, 6:9])
    np.testing.assert_array_equal(again[:, 3:], out[:, :3])
    assert channels(("motion", "joint")) == again.shape[1] == 6


def test_a_window_alone_is_seen_as_it_is_among_others(joints):
    together = seen(joints)
    for n in range(N):
        np.testing.assert_allclose(seen(joints[n : n + 1])[0], together[n], atol=1e-6)


def test_the_result_is_what_the_network_takes(joints):
    out = seen(joints)
    assert out.shape == (N, channels(STREAMS), T, V)
    assert out.dtype == np.float32 and out.flags.c_contiguous


def test_a_missing_joint_on_its_parent_stays_there(joints):
    lost = joints.copy()
    wrist, elbow = CORE_16.index("left_wrist"), CORE_16.index("left_elbow")
    lost[:, :, wrist] = lost[:, :, elbow]
    body = canonical(lost)
    np.testing.assert_array_equal(body[:, :, wrist], body[:, :, elbow])


def test_a_body_in_one_point_is_finite_and_still():
    out = seen(np.ones((1, T, V, 3), np.float32))
    assert np.isfinite(out).all() and not out.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_position_that_is_not_finite_is_refused(joints, value):
    broken = joints.copy()
    broken[1, 2, 3, 0] = value
    with pytest.raises(ValueError, match="non-finite joint"):
        seen(broken)


def test_wrong_shapes_and_streams_are_refused_by_name(joints):
    with pytest.raises(ValueError, match=r"joints \(N, T, 16, 3\), got \(3, 24, 15, 3\)"):
        seen(joints[:, :, :15])
    with pytest.raises(ValueError, match=r"confidence must be \(3, 24, 16\), got \(24, 16\)"):
        features(joints, np.ones((T, V), np.float32), STREAMS)
    for streams in ((), ("joint", "velocity")):
        with pytest.raises(ValueError, match="streams must be some of joint, bone, motion"):
            seen(joints, streams)
