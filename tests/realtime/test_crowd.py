"""Generated people who cross each other's way, and what is found of them."""

from __future__ import annotations

import numpy as np
import pytest

from realtime.errors import UsageError
from realtime.generator.crowd import SCENES, crowd
from realtime.generator.sightings import FOCAL, HEIGHT, WIDTH, Faults, project, sightings
from realtime.skeleton import KINECT_V2_25

CLEAN = Faults(wander=0.0, jitter=0.0, size=0.0, missed=0.0, phantom=0.0, both=0.0)


@pytest.mark.parametrize("scene", SCENES)
def test_every_scene_has_people_of_natural_size_on_one_floor(scene: str) -> None:
    joints = crowd(scene, 4).joints  # (P, T, V, 3)
    assert np.isfinite(joints).all() and 2 <= len(joints) <= 3
    assert ((np.ptp(joints[..., 1], axis=2) > 1.3) & (np.ptp(joints[..., 1], axis=2) < 2.1)).all()
    assert np.ptp(joints[..., 1].min(axis=(1, 2))) < 0.1
    steps = np.linalg.norm(np.diff(joints[:, :, KINECT_V2_25.root], axis=1), axis=2)
    assert steps.max() * 30 < 4.0  # metres a second


def test_the_same_seed_gives_the_same_ways_at_every_frame_rate() -> None:
    slow, fast = crowd("three", 2, 15.0), crowd("three", 2, 30.0)
    np.testing.assert_allclose(slow.joints[:, :, 0], fast.joints[:, ::2, 0], atol=0.03)
    assert not np.allclose(fast.joints[0, 0], crowd("three", 3, 30.0).joints[0, 0])


def test_a_scene_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="scenes are pass"):
        crowd("nowhere", 0)


def test_the_camera_shows_the_sensors_left_on_the_left_and_up_above() -> None:
    assert project(np.array([0.0, 0.0, 2.0])).tolist() == [WIDTH / 2, HEIGHT / 2]
    left_and_up = project(np.array([0.5, 0.5, 2.0]))
    assert left_and_up.tolist() == [WIDTH / 2 - FOCAL / 4, HEIGHT / 2 - FOCAL / 4]


def test_who_is_in_full_view_is_found_where_the_camera_sees_them() -> None:
    people = crowd("beside", 1)
    first = next(sightings(people, 1, CLEAN))
    for found, (who,) in zip(first.bodies, first.truth, strict=True):
        np.testing.assert_allclose(found.joints, project(people.joints[who, 0]), atol=1e-6)
        tall = FOCAL * people.heights[who] / people.joints[who, 0, KINECT_V2_25.root, 2]
        assert found.height == pytest.approx(tall) and found.sure
    assert len(first.bodies) == 2


def test_faults_are_the_same_for_the_same_seed_and_all_kinds_happen() -> None:
    kinds, missing = set(), 0
    for seed in range(8):
        seen, again = (list(sightings(crowd("hidden", seed), seed)) for _ in range(2))
        assert [one.truth for one in seen] == [one.truth for one in again]
        kinds |= {len(who) for one in seen for who in one.truth}
        kinds |= {"twice" for one in seen if len(set(one.truth)) < len(one.truth)}
        missing += sum(len(one.bodies) < 2 for one in seen)
    assert kinds == {0, 1, 2, "twice"} and missing > 50
