"""Layouts and the maps between them: sides stay sides, named joints keep their place, and nothing is made up."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from realtime.skeleton import (
    AZURE_32,
    BLAZEPOSE_33,
    COCO_17,
    CORE_16,
    KINECT_V1_20,
    KINECT_V2_25,
    LAYOUTS,
    OPENNI_15,
    Layout,
    convert,
    mapping,
)

every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
every_pair = pytest.mark.parametrize(
    ("source", "target"),
    list(itertools.product(LAYOUTS.values(), repeat=2)),
    ids=lambda layout: layout.name,
)


def someone(layout: Layout, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(len(layout), 3)).astype(np.float32), rng.uniform(0.2, 1, len(layout)).astype(np.float32)


@every_layout
def test_the_name_tells_the_number_of_joints_and_each_joint_comes_once(layout):
    assert layout.name.endswith(f"_{len(layout)}")
    assert len(set(layout.joints)) == len(layout.parents) == len(layout)


@every_layout
def test_the_joints_are_one_tree_under_one_root(layout):
    assert [i for i, parent in enumerate(layout.parents) if i == parent] == [layout.root]
    for joint in range(len(layout)):
        at = joint
        for _ in range(len(layout)):
            at = layout.parents[at]
        assert at == layout.root, layout.joints[joint]
    assert len(layout.bones) == len(layout) - 1


@every_layout
def test_the_order_has_every_joint_once_and_parents_first(layout):
    order = layout.order()
    assert sorted(order) == list(range(len(layout)))
    assert all(order.index(parent) <= order.index(child) for child, parent in enumerate(layout.parents))


@every_layout
def test_mirrored_twice_is_identity(layout):
    mirror = layout.mirror()
    assert [mirror[i] for i in mirror] == list(range(len(layout)))


@every_layout
def test_the_mirror_exchanges_sides_and_keeps_the_tree(layout):
    mirror = layout.mirror()
    for joint, partner in zip(layout.joints, mirror, strict=True):
        side, _, part = joint.partition("_")
        swapped = {"left": f"right_{part}", "right": f"left_{part}"}.get(side, joint)
        assert layout.joints[partner] == swapped
    assert {(mirror[a], mirror[b]) for a, b in layout.bones} == set(layout.bones)


@every_pair
def test_the_weights_of_a_made_joint_add_up_to_one(source, target):
    matrix = mapping(source, target)
    assert matrix.shape == (len(target), len(source))
    for joint, row in zip(target.joints, matrix, strict=True):
        assert row.sum() == pytest.approx(1, abs=1e-6) or not row.any(), joint


@every_pair
def test_a_map_cannot_be_written_to(source, target):
    with pytest.raises(ValueError, match="read-only"):
        mapping(source, target)[0, 0] = 2


@every_pair
def test_a_joint_that_both_layouts_name_keeps_its_place(source, target):
    joints, confidence = someone(source)
    made, sure = convert(joints, confidence, source, target)
    for joint in set(source.joints) & set(target.joints):
        if (source, target) == (BLAZEPOSE_33, KINECT_V2_25) and joint.endswith("_foot"):
            continue  # a toe in the one and the middle of the foot in the other
        np.testing.assert_array_equal(made[target.index(joint)], joints[source.index(joint)], joint)
        assert sure[target.index(joint)] == confidence[source.index(joint)]


@every_pair
def test_a_map_of_the_mirrored_body_is_the_mirrored_map(source, target):
    joints, confidence = someone(source)
    made, sure = convert(joints, confidence, source, target)
    turned, turned_sure = convert(joints[list(source.mirror())], confidence[list(source.mirror())], source, target)
    np.testing.assert_allclose(turned, made[list(target.mirror())], atol=1e-6)
    np.testing.assert_array_equal(turned_sure, sure[list(target.mirror())])


@pytest.mark.parametrize("layout", [KINECT_V1_20, KINECT_V2_25, AZURE_32, BLAZEPOSE_33, COCO_17, OPENNI_15])
def test_every_published_layout_gives_every_joint_of_the_core(layout):
    joints, confidence = someone(layout)
    made, sure = convert(joints, confidence, layout, CORE_16)
    assert made.dtype == sure.dtype == np.float32
    assert (sure > 0).all()
    inside = mapping(layout, CORE_16) @ np.ones(len(layout))
    np.testing.assert_allclose(inside, 1, atol=1e-6)


def test_the_middle_of_the_hips_of_blazepose_lies_between_them():
    joints, confidence = someone(BLAZEPOSE_33)
    made, _ = convert(joints, confidence, BLAZEPOSE_33, CORE_16)
    hips = joints[[BLAZEPOSE_33.index("left_hip"), BLAZEPOSE_33.index("right_hip")]]
    np.testing.assert_allclose(made[CORE_16.index("hip_center")], hips.mean(axis=0), atol=1e-6)


def test_a_made_joint_is_as_sure_as_the_least_sure_it_is_made_of():
    joints, confidence = someone(BLAZEPOSE_33)
    for source, target in itertools.product(LAYOUTS.values(), repeat=2):
        joints, confidence = someone(source)
        _, sure = convert(joints, confidence, source, target)
        for row, weights in enumerate(mapping(source, target)):
            used = [float(confidence[i]) for i, weight in enumerate(weights) if weight]
            assert sure[row] == pytest.approx(min(used, default=0.0)), target.joints[row]


def test_a_joint_made_of_one_that_is_missing_is_missing():
    joints, confidence = someone(BLAZEPOSE_33)
    confidence[BLAZEPOSE_33.index("left_hip")] = 0
    _, sure = convert(joints, confidence, BLAZEPOSE_33, CORE_16)
    assert sure[CORE_16.index("hip_center")] == sure[CORE_16.index("left_hip")] == 0
    assert sure[CORE_16.index("right_hip")] > 0


def test_what_cannot_be_made_has_no_confidence_and_lies_at_the_origin():
    joints, confidence = someone(COCO_17)
    made, sure = convert(joints, confidence, COCO_17, KINECT_V2_25)
    foot = KINECT_V2_25.index("left_foot")
    assert sure[foot] == 0 and not made[foot].any()


def test_many_people_and_times_are_converted_as_one_by_one():
    rng = np.random.default_rng(1)
    joints = rng.normal(size=(2, 5, 33, 3)).astype(np.float32)
    confidence = rng.random((2, 5, 33)).astype(np.float32)
    made, sure = convert(joints, confidence, BLAZEPOSE_33, CORE_16)
    assert made.shape == (2, 5, 16, 3) and sure.shape == (2, 5, 16)
    one, one_sure = convert(joints[1, 3], confidence[1, 3], BLAZEPOSE_33, CORE_16)
    np.testing.assert_allclose(made[1, 3], one, atol=1e-6)
    np.testing.assert_array_equal(sure[1, 3], one_sure)


def test_the_wrong_number_of_joints_is_refused_with_both_numbers():
    joints, confidence = someone(KINECT_V1_20)
    with pytest.raises(ValueError, match=r"KINECT_V2_25 needs joints \(\.\.\., 25, 3\).*\(20, 3\)"):
        convert(joints, confidence, KINECT_V2_25, CORE_16)


def test_an_unknown_joint_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="OPENNI_15 has no joint 'left_wrist'; it has head, neck"):
        OPENNI_15.index("left_wrist")


def test_a_tree_with_too_few_parents_is_refused():
    with pytest.raises(ValueError, match="2 joints but 1 parents"):
        Layout("TWO", ("a", "b"), (0,))
