"""Prepared clips as network inputs: equal to slow loops of the published protocols, clip by clip."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from realtime.errors import UsageError
from realtime.skeleton import KINECT_V1_20, KINECT_V2_25, Layout
from train.data.prepared import Prepared
from train.feeder import STREAMS, Feeder, streams_of, turn

CPU = torch.device("cpu")


def prepared(data="nw_ucla", layout=KINECT_V1_20, lengths=(30, 1, 80, 52), bodies=1, joints=None, seed=0):
    """A set in memory: people that drift 3 m before the sensor."""
    rng = np.random.default_rng(seed)
    if joints is None:
        joints = rng.normal(0, 0.3, (sum(lengths), bodies, len(layout), 3)).cumsum(axis=0) * 0.2 + (0.4, -0.3, 3)
    frames = np.array(lengths, np.int32)
    zeros = np.zeros(len(lengths), np.int16)
    return Prepared(
        data, layout, ("a", "b"), 30.0, joints.astype(np.float32), np.cumsum(frames, dtype=np.int64) - frames, frames,
        np.arange(len(lengths), dtype=np.int16) % 2, zeros, zeros, zeros,
        np.array([f"c{i}" for i in range(len(lengths))]),
    )  # fmt: skip


def feeder(data, frames=64, streams=("joint",)):
    return Feeder(data, frames, streams, CPU)


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def everything(fed):
    return torch.arange(len(fed.start))


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_rotations_are_rotations_about_x_then_y_then_z():
    angles = torch.rand(50, 3, generator=draws()) * 6 - 3
    matrices = turn(angles)
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(3).expand(50, 3, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(50))
    quarter = torch.tensor(
        [[math.pi / 2, 0, 0], [0, math.pi / 2, 0], [0, 0, math.pi / 2], [math.pi / 2, 0, math.pi / 2]]
    )
    about_x, about_y, about_z, both = turn(quarter)
    x, y, z = torch.eye(3)
    close(about_x @ y, z)
    close(about_y @ z, x)
    close(about_z @ x, y)
    close(both @ y, z)  # first about x (y becomes z), then about z (which leaves it)


@pytest.mark.parametrize("layout", [KINECT_V1_20, KINECT_V2_25])
def test_streams_are_their_definitions(layout):
    joints = np.random.default_rng(0).normal(size=(2, 6, 2, len(layout), 3)).astype(np.float32)
    found = streams_of(torch.from_numpy(joints), layout, STREAMS).numpy()
    assert found.shape == (2, 12, 6, len(layout), 2)
    bones = np.zeros_like(joints)
    for parent, child in layout.bones:
        bones[..., child, :] = joints[..., child, :] - joints[..., parent, :]
    for at, part, motion in ((0, joints, False), (3, bones, False), (6, joints, True), (9, bones, True)):
        for t in range(6):
            if not motion:
                expected = part[:, t]
            else:
                expected = part[:, t + 1] - part[:, t] if t < 5 else np.zeros_like(part[:, t])
            close(found[:, at : at + 3, t], expected.transpose(0, 3, 2, 1))


def test_streams_follow_joints_by_name():
    """The same person in a layout of another joint order gives the same numbers in that order."""
    order = np.random.default_rng(1).permutation(len(KINECT_V2_25))
    place = np.argsort(order)
    other = Layout(
        "SHUFFLED",
        tuple(KINECT_V2_25.joints[i] for i in order),
        tuple(int(place[KINECT_V2_25.parents[i]]) for i in order),
    )
    joints = torch.randn(2, 5, 1, 25, 3)
    found = streams_of(joints[..., order, :], other, STREAMS)
    torch.testing.assert_close(found, streams_of(joints, KINECT_V2_25, STREAMS)[..., order, :], rtol=0, atol=0)


@pytest.mark.parametrize("layout", [KINECT_V1_20, KINECT_V2_25])
def test_streams_of_a_mirrored_person_are_the_mirrored_streams_and_twice_is_nothing(layout):
    partner, flip = list(layout.mirror()), torch.tensor([-1.0, 1, 1])
    joints = torch.randn(2, 5, 1, len(layout), 3)

    def mirrored(x):
        return x[..., partner, :] * flip

    torch.testing.assert_close(mirrored(mirrored(joints)), joints, rtol=0, atol=0)
    sign = flip.repeat(len(STREAMS))[:, None, None, None]
    expected = streams_of(joints, layout, STREAMS)[..., partner, :] * sign
    torch.testing.assert_close(streams_of(mirrored(joints), layout, STREAMS), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("data", "frames", "bodies"), [("nw_ucla", 52, 1), ("ntu60", 64, 2), ("utd_mhad", 20, 1)])
def test_shapes_for_training_and_testing(data, frames, bodies):
    fed = feeder(prepared(data, bodies=bodies), frames, ("joint", "bone"))
    for x in (fed.train(everything(fed), draws()), fed.test(everything(fed))):
        assert x.shape == (4, 6, frames, 20, bodies) and x.dtype == torch.float32 and torch.isfinite(x).all()


def test_training_is_random_by_its_generator_alone():
    for data in ("nw_ucla", "ntu60"):
        fed = feeder(prepared(data), 52)
        one, same, other = (fed.train(everything(fed), draws(seed)) for seed in (3, 3, 4))
        assert torch.equal(one, same) and not torch.allclose(one, other)


@pytest.mark.parametrize("data", ["nw_ucla", "ntu60"])
def test_a_clip_alone_is_the_clip_in_its_batch(data):
    fed = feeder(prepared(data, bodies=2), 52, STREAMS)
    whole = fed.test(everything(fed))
    for i in range(len(whole)):
        assert torch.equal(fed.test(torch.tensor([i]))[0], whole[i])
    assert torch.equal(fed.test(torch.tensor([2, 0]))[:, 0], whole[[2, 0]][:, 0])


def test_nw_ucla_fills_the_box_and_tests_evenly_spaced_frames_from_first_to_last():
    lengths = tuple(range(1, 121))
    data = prepared(lengths=lengths)
    fed = feeder(data, 52)
    x = fed.test(everything(fed)).numpy()[..., 0]  # (N, 3, T, V)
    for i, length in enumerate(lengths):
        clip = data.clip(i)[:, 0].astype(np.float64)
        clip = clip - clip[0, KINECT_V1_20.index("spine")]
        low, high = clip.min(axis=(0, 1)), clip.max(axis=(0, 1))
        clip = 2 * (clip - low) / (high - low) - 1
        chosen = [t * (length - 1) // 51 for t in range(52)]
        assert chosen[0] == 0 and chosen[-1] == length - 1
        close(x[i].transpose(1, 2, 0), clip[chosen])


def test_nw_ucla_trains_on_sorted_draws_of_frames_seen_from_other_sides_in_the_same_box():
    data = prepared()
    fed = feeder(data, 52)
    x = fed.train(everything(fed), draws())
    assert x.abs().max() <= 1 + 1e-6
    ramp = np.zeros((40, 1, 20, 3))
    ramp[..., 1] = np.arange(40)[:, None, None]  # all joints rise together
    ramp[..., 4, 0] = 0.01
    rising = feeder(prepared(lengths=(40,), joints=ramp), 52).train(torch.zeros(200, dtype=torch.long), draws())
    height = rising[:, 1, :, 0, 0]
    assert (height.diff(dim=1) >= -1e-6).all()  # in order, with repeats
    assert (height.diff(dim=1).abs() < 1e-6).any(dim=1).all()
    assert len(torch.unique((height * 1000).round())) > 30  # all of the clip is seen, now and then


def slow_ntu(data, index, first, size, frames):
    """The crop resized by PyTorch, about the spine of the first frame that shows the first body: (T, M, V, 3)."""
    clip = torch.from_numpy(data.clip(index).copy())
    there = [t for t in range(len(clip)) if clip[t, 0].any()]
    origin = clip[there[0] if there else 0, 0, data.layout.index("spine")].clone()
    for t in range(len(clip)):
        for m in range(clip.shape[1]):
            if clip[t, m].any():
                clip[t, m] -= origin
    crop = clip[first : first + size].flatten(1).T[None]  # (1, M V 3, size)
    return interpolate(crop, size=frames, mode="linear", align_corners=False)[0].T.reshape(frames, *clip.shape[1:])


def with_absences():
    """Two bodies; of clip 0 the second is there in the middle only, of clip 1 never, of clip 2 the first comes late."""
    data = prepared("ntu60", KINECT_V2_25, (100, 40, 71, 1), bodies=2)
    data.joints[:30, 1] = data.joints[60:100, 1] = 0
    data.joints[100:140, 1] = 0
    data.joints[140:150, 0] = 0
    return data


@pytest.mark.parametrize("frames", [64, 20])
def test_ntu_is_tested_on_the_middle_95_percent_resized(frames):
    data = with_absences()
    fed = feeder(data, frames)
    x = fed.test(everything(fed)).numpy()
    for i, length in enumerate(data.frames.tolist()):
        cut = int(length * 5 / 200 + 1e-4)  # as published: int(0.05 * length / 2) frames off either end
        expected = slow_ntu(data, i, cut, length - 2 * cut, frames)
        close(x[i].transpose(1, 3, 2, 0), expected)


def test_ntu_is_trained_on_random_crops_turned_by_one_small_angle_a_clip():
    data = with_absences()
    fed = feeder(data, 16)
    picked = torch.tensor([0, 2, 1, 0, 3])
    x = fed.train(picked, draws(7)).numpy()
    generator = draws(7)
    crops = torch.rand(5, 2, generator=generator)
    angles = (2 * torch.rand(5, 3, generator=generator) - 1) * 0.3
    sizes = []
    for n, i in enumerate(picked.tolist()):
        length = int(data.frames[i])
        size = min(max(math.floor(length * (0.5 + 0.5 * crops[n, 0])), 16), length)
        first = math.floor((length - size + 1) * crops[n, 1])
        assert 0 <= first <= length - size
        sizes.append(size / length)
        expected = slow_ntu(data, i, first, size, 16) @ turn(angles[n : n + 1])[0].T
        close(x[n].transpose(1, 3, 2, 0), expected)
    assert len(set(sizes[:4])) == 3  # clips of their own sizes, and clip 0 twice


def test_an_absent_body_stays_zeros():
    fed = feeder(with_absences(), 64, STREAMS)
    for x in (fed.test(everything(fed)), fed.train(everything(fed), draws())):
        assert not x[1, ..., 1].any() and x[0, ..., 1].any()
        assert not x[0, :, :5, :, 1].any() and not x[0, :, -5:, :, 1].any()  # before it comes, after it left


def test_a_body_that_comes_does_not_pass_through_the_sensor():
    """Half-way between absent and there, a body is half as far from the clip's origin, as in the published data."""
    joints = np.full((64, 2, 25, 3), 3.0) + np.random.default_rng(0).normal(0, 0.1, (64, 2, 25, 3))
    joints[:20, 1] = 0
    x = feeder(prepared("ntu60", KINECT_V2_25, (64,), joints=joints), 100).test(torch.tensor([0]))
    assert x.abs().max() < 1


def test_a_layout_without_spine_is_centred_on_its_root_and_unknown_streams_are_refused():
    layout = Layout("TWO", ("hip_center", "head"), (0, 0))
    fed = feeder(prepared("sbu", layout, (8,)), 8)
    assert fed.centre == 0
    for streams in (("joint", "velocity"), ()):
        with pytest.raises(UsageError, match="joint, bone, joint_motion, bone_motion"):
            feeder(prepared(), 52, streams)
