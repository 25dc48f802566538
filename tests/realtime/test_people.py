"""Who is who when several people are in view: when ids begin, go on, end, and that they never change hands."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from realtime.decoder import ActionRule, Decoder
from realtime.generator.crowd import SCENES, crowd
from realtime.generator.sightings import Faults, sightings
from realtime.people import Body, PeopleTracker
from realtime.pipeline import Pipeline
from realtime.pose import PassThrough
from realtime.schema import SECOND_NS, Event, Frame, Pose, Scores, Window
from realtime.skeleton import CORE_16
from realtime.window import WindowBuffer
from scripts.id_truth import Kept, judge
from tests.realtime.hands import figure

FRAME = SECOND_NS // 30
HEIGHT = 200.0  # pixels
OUTLINE = figure()[:, :2] * (-HEIGHT / 1.7, -HEIGHT / 1.7)  # about the hips, which are at 0.1 m
FAULTS = Faults()
SURE = np.ones(len(CORE_16))


def body(x: float, sure: bool = True, height: float = HEIGHT, y: float = 300.0) -> Body:
    """Somebody who stands with the hips at x."""
    hips = np.array([x, y])
    return Body(hips + OUTLINE * (height / HEIGHT), SURE, hips, height, sure)


def ids(tracker: PeopleTracker, given: Sequence[Sequence[float]], start: int = 1) -> list[list[int | None]]:
    """Ids of people at these x, frame after frame at 30 fps."""
    return [tracker.assign(i * FRAME, [body(x) for x in row]) for i, row in enumerate(given, start)]


def played(scene: str, seed: int, fps: float = 30.0, faults: Faults = FAULTS) -> Kept:
    seen, tracker = list(sightings(crowd(scene, seed, fps), seed, faults)), PeopleTracker()
    return judge(seen, [tracker.assign(one.captured_ns, one.bodies) for one in seen])


def summed(scenes: Sequence[str], seeds: Sequence[int], fps: float = 30.0) -> Kept:
    return sum((played(scene, seed, fps) for scene in scenes for seed in seeds), Kept())


def test_three_sure_sightings_of_five_begin_a_track() -> None:
    assert ids(PeopleTracker(), [[50]] * 4) == [[None], [None], [1], [1]]
    assert ids(PeopleTracker(), [[50], [], [50], [], [50]])[-1] == [1]
    assert ids(PeopleTracker(), [[50], [], []] * 20) == [[None], [], []] * 20


def test_a_doubtful_body_goes_on_with_a_track_but_begins_none() -> None:
    tracker = PeopleTracker()
    assert [tracker.assign(i, [body(50, sure=False)]) for i in range(1, 9)] == [[None]] * 8
    assert ids(tracker, [[50]] * 3) == [[None], [None], [1]]
    assert tracker.assign(4 * FRAME, [body(52, sure=False)]) == [1]


def test_an_absence_of_a_third_of_a_second_keeps_the_id_and_one_of_two_seconds_does_not() -> None:
    tracker = PeopleTracker()
    assert ids(tracker, [[50, 400]] * 3)[-1] == [1, 2]
    assert ids(tracker, [[50]] * 9, start=4)[-1] == [1]
    assert ids(tracker, [[50, 404]], start=13) == [[1, 2]]
    assert ids(tracker, [[50]] * 60, start=14)[-1] == [1]
    assert ids(tracker, [[50, 404]] * 3, start=74) == [[1, None], [1, None], [1, 3]]


@pytest.mark.parametrize(("unseen", "expected"), [(14, 1), (15, None)])
def test_a_track_ends_when_its_window_does(unseen: int, expected: int | None) -> None:
    tracker = PeopleTracker()
    ids(tracker, [[50]] * 3)
    assert ids(tracker, [[]] * unseen, start=4)[-1] == []
    assert ids(tracker, [[50]], start=4 + unseen) == [[expected]]  # 0.5 s and 0.533 s later


def test_a_teleport_is_somebody_else() -> None:
    found = ids(PeopleTracker(), [[50]] * 4 + [[400]] * 4)
    assert found == [[None], [None], [1], [1], [None], [None], [2], [2]]


def test_somebody_of_another_size_is_somebody_else() -> None:
    tracker = PeopleTracker()
    ids(tracker, [[50]] * 5)
    assert tracker.assign(6 * FRAME, [body(50, height=HEIGHT / 2)]) == [None]


def test_one_frame_of_nonsense_does_not_end_a_track() -> None:
    assert ids(PeopleTracker(), [[50]] * 5 + [[400], [52]])[-2:] == [[None], [1]]


def test_one_body_found_twice_is_one_person() -> None:
    found = ids(PeopleTracker(), [[50, 52]] * 10)
    assert {number for row in found for number in row} == {None, 1} and all(None in row for row in found)


def test_the_order_of_the_bodies_does_not_matter() -> None:
    seen = list(sightings(crowd("three", 1), 1))
    shuffled, straight, rng = PeopleTracker(), PeopleTracker(), np.random.default_rng(0)
    for one in seen:
        order = rng.permutation(len(one.bodies))
        expected = straight.assign(one.captured_ns, one.bodies)
        found = shuffled.assign(one.captured_ns, [one.bodies[i] for i in order])
        assert found == [expected[i] for i in order]


def test_no_more_than_persons_get_an_id_and_those_followed_keep_theirs() -> None:
    tracker = PeopleTracker(persons=2)
    ids(tracker, [[50, 400]] * 3)
    assert ids(tracker, [[200, 50, 600, 400]] * 20, start=4)[-1] == [None, 1, None, 2]
    assert tracker.crowded == 2 * 18
    assert ids(tracker, [[200, 50, 600]] * 17, start=24)[-1] in ([3, 1, None], [None, 1, 3])


def test_bodies_that_are_no_numbers_are_refused_and_harm_nobody() -> None:
    tracker = PeopleTracker()
    ids(tracker, [[50]] * 3)
    bad = [body(50)._replace(hips=np.array([np.nan, 0.0])), body(50, height=0.0), body(np.inf)]
    assert tracker.assign(4 * FRAME, [*bad, body(50)]) == [None, None, None, 1]
    assert tracker.refused == 3
    with pytest.raises(ValueError, match="J = 16 for all"):
        tracker.assign(5 * FRAME, [body(50), body(90)._replace(confidence=np.ones(3))])


def test_time_must_grow_until_everybody_is_forgotten() -> None:
    tracker = PeopleTracker()
    ids(tracker, [[50]] * 3)
    with pytest.raises(ValueError, match="capture time must grow"):
        tracker.assign(3 * FRAME, [])
    tracker.forget()
    assert tracker.ids == ()
    assert ids(tracker, [[50]] * 3) == [[None], [None], [2]]  # never 1 again


@pytest.mark.parametrize("persons", [0, -1])
def test_following_nobody_is_refused(persons: int) -> None:
    with pytest.raises(ValueError, match="persons must be at least 1"):
        PeopleTracker(persons=persons)


def test_two_who_cannot_be_told_apart_both_get_new_ids() -> None:
    # They walk into one another, are found as one body in the middle for a while, and come out as they went in.
    tracker = PeopleTracker()
    came = ids(tracker, [[100 + 4 * i, 500 - 4 * i] for i in range(49)])
    assert came[3:40] == [[1, 2]] * 37
    met = ids(tracker, [[300]] * 13, start=50)
    parted = ids(tracker, [[300 - 20 - 4 * i, 300 + 20 + 4 * i] for i in range(20)], start=63)
    later = {number for row in (*met[5:], *parted) for number in row}
    assert later <= {None, 3, 4} and parted[-1] != [None, None]
    assert tracker.doubtful > 0


@pytest.mark.parametrize("scene", ["pass", "brush", "behind", "around", "beside"])
def test_people_who_cross_keep_their_ids(scene: str) -> None:
    kept = summed([scene], range(6))
    assert kept.switches == 0
    assert kept.fragments <= kept.gaps + 1
    assert kept.coverage > 0.95


@pytest.mark.parametrize("fps", [5, 10, 15, 24, 30, 60])
def test_the_frame_rate_does_not_change_who_is_who(fps: float) -> None:
    tracker = PeopleTracker()
    for i in range(round(5 * fps)):  # the nearer one walks to the right, the farther one to the left
        given = [body(100 + 80 * i / fps, height=260, y=320), body(500 - 80 * i / fps)]
        found = tracker.assign(round(i * SECOND_NS / fps), given)
        assert found == ([None, None] if i < 2 else [1, 2])


@pytest.mark.parametrize("fps", [10, 15, 30, 60])
def test_people_hidden_in_passing_are_the_same_at_every_frame_rate(fps: float) -> None:
    clean = Faults(missed=0.0, phantom=0.0)
    for seed in range(3):
        kept = played("pass", seed, fps, clean)
        assert (kept.switches, kept.fragments) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("fps", [10, 30])
def test_ids_go_to_the_wrong_person_in_no_more_than_two_scenes_of_a_hundred(fps: float) -> None:
    kept = summed(tuple(SCENES), range(2000, 2020), fps)
    assert kept.switched_scenes <= 0.02 * kept.scenes
    assert kept.purity > 0.995 and kept.fragments < 1.6 * kept.gaps


def test_eight_people_take_less_than_a_millisecond() -> None:
    tracker, spent = PeopleTracker(), []
    rng = np.random.default_rng(0)
    for i in range(1, 121):
        given = [body(100 + 150 * k + 2 * i + rng.normal(0, 2)) for k in range(8)]
        begun = time.process_time_ns()
        tracker.assign(i * FRAME, given)
        spent.append(time.process_time_ns() - begun)
    assert tracker.ids == tuple(range(1, 9))
    assert np.median(spent) < 2_000_000  # 0.4 ms on a quiet machine; this one may be loaded


class Waving:
    """An engine that takes everybody for waving."""

    def score(self, windows: Sequence[Window]) -> list[Scores]:
        sure = np.float32([0.05, 0.95])
        return [Scores(w.index, w.captured_ns, w.track, w.start_ns, sure, sure) for w in windows]


class Tracked(PassThrough):
    """A pose stage that sees people at given x, and gives them ids."""

    def __init__(self, given: Callable[[int], Sequence[float]]) -> None:
        self._given, self._tracker = given, PeopleTracker()

    def find(self, frame: Frame) -> tuple[Pose, ...]:
        places = self._given(frame.index)
        numbers = self._tracker.assign(frame.captured_ns, [body(x) for x in places])
        return tuple(pose(frame, number) for number in numbers if number is not None)


def pose(frame: Frame, track: int) -> Pose:
    return Pose(frame.index, frame.captured_ns, track, CORE_16, figure(), np.float32(SURE))


def told(stage: PassThrough, given: Sequence[Frame]) -> list[Event]:
    rules = [ActionRule("wave", 0.6, 0.4, 0.2, 0.2)]
    windows = WindowBuffer(CORE_16, 16, 20.0, 4, min_observed=8)
    line = Pipeline(stage, windows, Waving(), Decoder(("nothing", "wave"), "nothing", rules, 0.1))
    return [event for frame in given for event in line.step(frame).events if event.phase != "update"]


def empty(count: int) -> list[Frame]:
    return [Frame(i, (i + 1) * FRAME) for i in range(count)]


def closed_and_begun_anew(events: Sequence[Event], old: int, new: int, since: int) -> None:
    """Checks that the old id's event ended as lost, and that the new id's event has nothing of it."""
    first = [event for event in events if event.track == old]
    second = [event for event in events if event.track == new]
    assert [event.phase for event in first] == ["start", "end"] and first[1].end_reason == "track_lost"
    assert second[0].phase == "start" and second[0].id != first[0].id
    assert second[0].onset_ns >= (since + 1) * FRAME


def test_a_lost_person_ends_the_event_and_the_next_id_starts_clean() -> None:
    events = told(Tracked(lambda i: [50.0] if i < 60 or i >= 80 else []), empty(150))
    closed_and_begun_anew(events, 1, 2, since=80)


def test_an_event_is_not_carried_over_to_who_turns_up_elsewhere() -> None:
    events = told(Tracked(lambda i: [50.0] if i < 60 else [700.0]), empty(150))
    closed_and_begun_anew(events, 1, 2, since=60)


def test_a_source_that_renames_somebody_ends_the_event() -> None:
    given = [Frame(f.index, f.captured_ns, poses=(pose(f, 7 if f.index < 60 else 9),)) for f in empty(150)]
    closed_and_begun_anew(told(PassThrough(), given), 7, 9, since=60)


def test_nobodys_event_survives_an_undecidable_meeting() -> None:
    def places(i: int) -> list[float]:
        if i < 60:
            return [300.0 - 4 * (60 - i), 300.0 + 4 * (60 - i)]
        return [300.0] if i < 74 else [280.0 - 4 * (i - 74), 320.0 + 4 * (i - 74)]

    events = told(Tracked(places), empty(200))
    assert [(e.track, e.end_reason) for e in events if e.phase == "end" and e.track < 3] == [
        (1, "track_lost"),
        (2, "track_lost"),
    ]
    assert {e.track for e in events if e.phase == "start"} == {1, 2, 3, 4}
