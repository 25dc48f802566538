"""When a body becomes a person, stays the same one, and becomes another."""

import numpy as np

from realtime.track import OnePersonTracker

FRAME = 33_000_000  # ns
HEIGHT = 200.0  # pixels


def ids(tracker: OnePersonTracker, places: list[float | None], start: int = 1) -> list[int | None]:
    """Ids for a body whose hips are at x in each frame; None is a frame without a body."""
    found = []
    for i, x in enumerate(places, start):
        if x is None:
            tracker.nobody()
            found.append(None)
        else:
            found.append(tracker.seen(i * FRAME, np.array([x, 100.0]), HEIGHT))
    return found


def test_three_sightings_of_five_begin_a_track() -> None:
    assert ids(OnePersonTracker(), [50] * 4) == [None, None, 1, 1]
    assert ids(OnePersonTracker(), [50, None, 50, None, 50]) == [None, None, None, None, 1]


def test_flicker_never_begins_one() -> None:
    assert set(ids(OnePersonTracker(), [50, None, None] * 20)) == {None}
    assert set(ids(OnePersonTracker(), [50, 400, 800] * 20)) == {None}


def test_a_short_absence_keeps_the_id_and_a_long_one_does_not() -> None:
    tracker = OnePersonTracker()
    ids(tracker, [50] * 3)
    assert ids(tracker, [60], start=3 + 15) == [1]  # 0.495 s later
    assert ids(tracker, [60] * 3, start=18 + 16) == [None, None, 2]  # 0.528 s later


def test_a_walk_across_the_picture_is_one_track() -> None:
    assert ids(OnePersonTracker(), [float(x) for x in range(0, 1200, 30)])[2:] == [1] * 38


def test_a_jump_is_somebody_else_once_confirmed() -> None:
    assert ids(OnePersonTracker(), [50, 50, 50, 400, 400, 400, 400]) == [None, None, 1, None, None, 2, 2]


def test_one_frame_of_nonsense_does_not_end_a_track() -> None:
    assert ids(OnePersonTracker(), [50, 50, 50, 400, 52, 54]) == [None, None, 1, None, 1, 1]


def test_a_doubtful_body_goes_on_with_a_track_but_begins_none() -> None:
    tracker, hips = OnePersonTracker(), np.array([50.0, 100.0])
    assert [tracker.seen(i * FRAME, hips, HEIGHT, sure=False) for i in range(1, 9)] == [None] * 8
    assert [tracker.seen(i * FRAME, hips, HEIGHT) for i in range(9, 12)] == [None, None, 1]
    assert tracker.seen(12 * FRAME, hips, HEIGHT, sure=False) == 1
