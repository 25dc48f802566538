"""Where a body stands, from a measured lens: the place it was put at, however the lens bends, and no other posture."""

from __future__ import annotations

import numpy as np
import pytest

from realtime.body import Landmarks
from realtime.lens import Lens
from realtime.person import KINECT_AXES, Person, place_seen
from realtime.schema import Frame

LENS = Lens(1280, 720, 880.0, 883.0, 652.3, 349.1, (-0.31, 0.11, 0.0012, -0.0008, -0.019), "pinhole", 0.2)
FISHEYE = Lens(1280, 960, 410.0, 409.0, 642.0, 477.0, (-0.03, 0.012, -0.008, 0.001), "fisheye", 0.3)
PLACE = np.array((0.7, -0.2, 3.1))  # Kinect axes


def seen(lens: Lens, place: np.ndarray, tall: float = 1.0, hidden: int = 0) -> Landmarks:
    world = np.random.default_rng(0).normal(0, (0.2, 0.4, 0.15), (33, 3)).astype(np.float32)
    pixels = lens.pixels((world * tall + place) * KINECT_AXES)
    visibility = np.ones(33, np.float32)
    pixels[:hidden], visibility[:hidden] = 0, 0.0
    return Landmarks(world, ((pixels + 0.5) / (lens.width, lens.height)).astype(np.float32), visibility)


@pytest.mark.parametrize("lens", [LENS, FISHEYE], ids=["pinhole", "fisheye"])
def test_a_body_is_where_it_was_put(lens: Lens):
    np.testing.assert_allclose(place_seen(seen(lens, PLACE), lens, lens.width, lens.height), PLACE, atol=2e-3)


def test_what_is_not_seen_does_not_count():
    np.testing.assert_allclose(place_seen(seen(LENS, PLACE, hidden=9), LENS, 1280, 720), PLACE, atol=2e-3)


def test_a_small_body_is_put_too_far_away_in_proportion():
    place = place_seen(seen(LENS, PLACE, tall=1.2 / 1.7), LENS, 1280, 720)
    assert place[2] / PLACE[2] == pytest.approx(1.7 / 1.2, rel=0.01)


def test_a_lens_changes_the_place_and_not_the_posture():
    found = seen(LENS, PLACE)
    plain, known = (Person(1, lens).pose(Frame(0, 1), found, 1280, 720) for lens in (None, LENS))
    np.testing.assert_allclose(plain.joints - plain.joints[0], known.joints - known.joints[0], atol=1e-5)
    assert np.linalg.norm(plain.joints[0] - known.joints[0]) > 0.1
