"""What the networks' numbers mean: anchors, suppression, turned regions, landmarks that come back where they were."""

from __future__ import annotations

import numpy as np
import pytest

from realtime import blazepose
from realtime.blazepose import Detections, Region, SteadyRegion
from realtime.image import SquareCrop

STEP = 33_333_333  # ns


def test_anchors_are_the_centres_of_three_grids() -> None:
    anchors = blazepose.anchors()
    assert anchors.shape == (28 * 28 * 2 + 14 * 14 * 2 + 7 * 7 * 6, 2)
    np.testing.assert_allclose(
        anchors[[0, 1, 2, -1]], [(1 / 56, 1 / 56), (1 / 56, 1 / 56), (3 / 56, 1 / 56), (13 / 14,) * 2]
    )
    assert anchors.min() > 0 and anchors.max() < 1


def test_a_detection_is_read_about_its_anchor() -> None:
    raw, logits = np.zeros((2254, 12), np.float32), np.full(2254, -5.0, np.float32)
    raw[100] = (22.4, 0, 44.8, 22.4, 0, 0, 0, -112, 0, 0, 0, 0)
    logits[100] = 2.0
    found = blazepose.decode_detections(raw, logits)
    anchor = blazepose.anchors()[100]
    assert found.scores == pytest.approx([1 / (1 + np.exp(-2))])
    np.testing.assert_allclose(found.boxes[0], np.add(np.tile(anchor, 2), (0, -0.05, 0.2, 0.05)), atol=1e-6)
    np.testing.assert_allclose(found.points[0, :2], [anchor, anchor - (0, 0.5)], atol=1e-6)
    nobody = blazepose.decode_detections(raw, np.full(2254, -1e9, np.float32))
    assert nobody.scores.shape == (0,) and nobody.points.shape == (0, 4, 2)


def test_what_overlaps_is_averaged_by_score_and_what_does_not_stays() -> None:
    scores = np.array((0.6, 0.9, 0.8), np.float32)
    boxes = np.array(((0, 0, 1, 1), (0.1, 0, 1.1, 1), (2, 2, 3, 3)), np.float32)
    points = np.zeros((3, 4, 2), np.float32) + boxes[:, None, :2]
    merged = blazepose.merge(Detections(scores, boxes, points))
    np.testing.assert_allclose(merged.scores, (0.9, 0.8))
    np.testing.assert_allclose(merged.boxes, ((0.06, 0, 1.06, 1), (2, 2, 3, 3)), atol=1e-6)
    np.testing.assert_allclose(merged.points[:, 0], ((0.06, 0), (2, 2)), atol=1e-6)


def test_overlap_is_the_common_part_of_both() -> None:
    boxes = np.array(((0, 0, 1, 1), (0.5, 0, 1.5, 1), (2, 2, 3, 3), (1, 1, 0, 0)), np.float32)
    np.testing.assert_allclose(blazepose.overlap(boxes[0], boxes), (1, 1 / 3, 0, 0), atol=1e-6)


@pytest.mark.parametrize(("top", "angle"), [((100, 20), 0), ((180, 100), 90), ((20, 100), -90), ((100, 180), 180)])
def test_a_turned_body_gives_a_turned_region(top: tuple[float, float], angle: float) -> None:
    one = blazepose.region(np.array((100.0, 100.0)), np.array(top, float))
    assert one.side == pytest.approx(2 * 80 * 1.25)
    assert np.cos(one.angle - np.radians(angle)) == pytest.approx(1)
    above = blazepose.in_picture(np.array((0.5, 0.0)), one)  # the crop's upper edge lies beyond the head
    np.testing.assert_allclose(above, 100 + (np.array(top) - 100) * 1.25, atol=1e-3)


def test_a_crop_shows_the_body_upright_and_its_points_come_back() -> None:
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[60:64, 200:204] = (250, 0, 0)  # the head of a body that lies to the right
    one = blazepose.region(np.array((150.0, 62.0)), np.array((202.0, 62.0)))
    crop = SquareCrop(256, 0.0, 1.0, spread=True)(picture, blazepose.crop_matrix(one, 256))[0]
    rows, columns = np.nonzero(crop[..., 0] > 0.5)
    seen = np.array((columns.mean(), rows.mean()))
    assert seen[1] < 60 and abs(seen[0] - 128) < 4  # up in the crop
    np.testing.assert_allclose(blazepose.in_picture(seen / 256, one), (201.5, 61.5), atol=1.0)
    assert crop[..., 2].max() == 0  # the colours keep their order


@pytest.mark.parametrize(("spread", "outside"), [(True, 1.0), (False, -1.0)])
def test_outside_the_picture_is_its_edge_or_black(spread: bool, outside: float) -> None:
    white = np.full((20, 40, 3), 255, np.uint8)
    crop = SquareCrop(32, -1.0, 1.0, spread)(white, blazepose.crop_matrix(blazepose.whole(40, 20), 32))[0]
    assert crop[16, 16, 0] == pytest.approx(1.0) and crop[0, 0, 0] == pytest.approx(outside)


def answers(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Raw landmarks at points (39, 2) of the crop, a heat map without heat, world landmarks on the x axis."""
    raw = np.zeros((39, 5), np.float32)
    raw[:, :2], raw[:, 3] = points * 256, 3.0
    world = np.zeros((39, 3), np.float32)
    world[:, 0] = 1.0
    return raw.ravel(), np.full((64, 64, 39), -20.0, np.float32), world.ravel()


def test_landmarks_come_back_to_the_picture_and_the_world_turns_with_the_region() -> None:
    points = np.random.default_rng(0).uniform(0.1, 0.9, (39, 2)).astype(np.float32)
    raw, heat, world = answers(points)
    one = Region(np.array((150.0, 100.0), np.float32), 200.0, np.pi / 2)
    found = blazepose.decode_landmarks(raw, 0.9, heat, world, one)
    expected = (150, 100) + 200 * (points - 0.5) @ np.array(((0, 1), (-1, 0)))  # a quarter turn clockwise
    np.testing.assert_allclose(found.pixels, expected[:33], atol=1e-3)
    np.testing.assert_allclose(found.circle, expected[33:35], atol=1e-3)
    np.testing.assert_allclose(found.world, np.tile((0, 1, 0), (33, 1)), atol=1e-6)
    assert found.visibility == pytest.approx(1 / (1 + np.exp(-3)))


def test_heat_moves_a_point_where_there_is_enough_of_it() -> None:
    points = np.full((39, 2), (32.5 / 64, 20.5 / 64), np.float32)
    heat = np.full((64, 64, 39), -20.0, np.float32)
    heat[22, 34, 0] = 5.0  # two cells right and below
    heat[22, 34, 1] = -1.0  # too weak
    heat[22, 40, 2] = 5.0  # too far
    heat[18, 30, 3] = heat[22, 34, 3] = 5.0  # two of a kind: their middle
    moved = blazepose.refine(points, heat)
    np.testing.assert_allclose(moved[0] * 64, (34, 22), atol=1e-3)
    np.testing.assert_array_equal(moved[1:3], points[1:3])
    np.testing.assert_allclose(moved[3] * 64, (32, 20), atol=1e-3)


def test_heat_at_the_edge_and_points_outside_are_no_error() -> None:
    points = np.array([(0.0, 0.0), (1.5, 0.5), (-0.2, 0.5), (0.999, 0.999)] + [(0.5, 0.5)] * 35, np.float32)
    heat = np.full((64, 64, 39), 3.0, np.float32)
    moved = blazepose.refine(points, heat)
    np.testing.assert_allclose(moved[0] * 64, (2, 2), atol=1e-3)  # cells 0 to 4
    np.testing.assert_array_equal(moved[1:3], points[1:3])
    np.testing.assert_allclose(moved[3] * 64, (61, 61), atol=1e-3)


def test_a_still_region_rests_and_a_quick_one_follows() -> None:
    rng = np.random.default_rng(1)
    still, quick = SteadyRegion(), SteadyRegion()
    circle = np.array(((100.0, 100.0), (100.0, 20.0)))
    rests = [still(circle + rng.normal(0, 1, (2, 2)), (i + 1) * STEP).centre for i in range(60)]
    assert np.std(np.array(rests)[30:], axis=0).max() < 0.25
    moved = [quick(circle + 12 * i, (i + 1) * STEP).centre[0] for i in range(30)]
    assert 100 + 12 * 29 - moved[-1] < 12  # less than a frame behind


def test_people_are_looked_for_in_the_whole_picture_and_in_parts_that_cover_it() -> None:
    whole, *parts = blazepose.views(640, 360)
    assert whole.side == 640 and len(parts) == 7
    assert min(one.centre[0] - one.side / 2 for one in parts) == pytest.approx(0)
    assert max(one.centre[0] + one.side / 2 for one in parts) == pytest.approx(640)
    assert all(one.centre[0] == pytest.approx(180) for one in blazepose.views(360, 640))
