"""What counts as a switched id, and what the script says about it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from realtime.errors import UsageError
from realtime.generator.sightings import Sighting
from realtime.people import Body, PeopleTracker
from realtime.schema import SECOND_NS
from scripts import id_switches
from scripts.id_switches import Config, main, play
from scripts.id_truth import judge
from scripts.plain_trackers import BoxOverlap, NearestHips

ANYBODY = Body(np.array([[0.0, 0.0], [50.0, 200.0]]), np.ones(2), np.array([25.0, 100.0]), 200.0)


def seen(*truth: list[set[int]], every_s: float = 0.1) -> list[Sighting]:
    """Frames in which these people, or mixtures of them, are found."""
    return [
        Sighting(round(i * every_s * SECOND_NS), (ANYBODY,) * len(row), tuple(map(frozenset, row)))
        for i, row in enumerate(truth)
    ]


def test_ids_that_stay_with_their_people_are_perfect() -> None:
    kept = judge(seen(*[[{0}, {1}]] * 4), [[1, 2]] * 4)
    assert (kept.switches, kept.fragments, kept.purity, kept.coverage, kept.idf1) == (0, 0, 1.0, 1.0, 1.0)


def test_an_exchange_is_two_switches_and_costs_purity() -> None:
    kept = judge(seen(*[[{0}, {1}]] * 4), [[1, 2], [1, 2], [1, 2], [2, 1]])
    assert (kept.switches, kept.switched_scenes, kept.fragments) == (2, 1, 2)
    assert kept.purity == kept.idf1 == 0.75


def test_a_new_id_is_a_fragment_and_no_switch() -> None:
    kept = judge(seen(*[[{0}]] * 4), [[1], [1], [2], [2]])
    assert (kept.switches, kept.fragments, kept.gaps, kept.purity, kept.idf1) == (0, 1, 0, 1.0, 0.5)


def test_a_long_absence_forces_a_new_id() -> None:
    assert judge(seen([{0}], *[[]] * 5, [{0}]), [[1], *[[]] * 5, [2]]).gaps == 1
    assert judge(seen([{0}], *[[]] * 4, [{0}]), [[1], *[[]] * 4, [1]]).gaps == 0


def test_a_body_between_two_people_is_neithers_and_a_phantom_counts_against() -> None:
    kept = judge(seen([{0, 1}, set()], [{0}]), [[7, 8], [1]])
    assert (kept.sightings, kept.named, kept.identified, kept.switches) == (1, 1, 2, 0)


def test_plain_trackers_switch_where_ours_does_not() -> None:
    make = {"people": PeopleTracker, "hips": NearestHips, "boxes": BoxOverlap}
    kept = play("around", range(3), 30.0, make)
    assert kept["people"].switches == 0 and min(kept["hips"].switches, kept["boxes"].switches) > 3


def test_too_many_switched_scenes_are_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(scenes=("around",), seeds=2)
    assert main(config, Console()) == 0
    monkeypatch.setattr(id_switches, "trackers", lambda baseline, persons: {"people": NearestHips})
    assert main(config, Console()) == 1


@pytest.mark.parametrize("wrong", [{"scenes": ("nowhere",)}, {"seeds": 0}, {"every": 0}])
def test_wrong_flags_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError):
        main(replace(Config(), **wrong), Console())
