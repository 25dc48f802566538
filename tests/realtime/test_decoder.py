"""Scores -> events: what a person would call one action is one start and one end."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.decoder import ActionRule, Decoder, Ids
from realtime.schema import SECOND_NS, Scores

CLASSES = ("nothing", "wave", "walk")
WAVE = ActionRule("wave", on=0.6, off=0.4, min_on_s=0.4, min_off_s=0.4)
WALK = ActionRule("walk", on=0.6, off=0.4, min_on_s=0.4, min_off_s=0.4)
IDLE, WAVING, WALKING = (1.0, 0.0, 0.0), (0.05, 0.9, 0.05), (0.05, 0.05, 0.9)


def make(rules=(WAVE, WALK), smoothing_s=0.0, **options):
    numbers = itertools.count()
    return Decoder(CLASSES, "nothing", rules, smoothing_s, new_id=lambda: f"id{next(numbers)}", **options)


def score(seconds, probabilities, track=1):
    now_ns = round(seconds * SECOND_NS)
    values = np.asarray(probabilities, np.float32)
    return Scores(round(seconds * 30), now_ns, track, now_ns - 3 * SECOND_NS, np.zeros_like(values), values)


def play(decoder, *parts, rate=10.0, begin=10.0, track=1):
    """Parts are (seconds, probabilities), one after the other; events come back with the decoder left open."""
    events, now = [], begin
    for seconds, probabilities in parts:
        for step in range(round(seconds * rate)):
            events += decoder.decide([score(now + step / rate, probabilities, track)])
        now += seconds
    return events


def told(events, *phases):
    return [(event.phase, event.action) for event in events if event.phase in phases]


def test_a_wave_becomes_one_start_and_one_end():
    events = play(make(), (2, IDLE), (3, WAVING), (2, IDLE))
    assert told(events, "start", "end") == [("start", "wave"), ("end", "wave")]
    start, end = events[0], events[-1]
    assert {event.id for event in events} == {"id0"}
    assert start.onset_ns == 12 * SECOND_NS
    assert start.decided_ns == 12.4 * SECOND_NS
    assert (start.offset_ns, start.end_reason) == (None, None)
    assert (end.onset_ns, end.offset_ns, end.end_reason) == (start.onset_ns, 15 * SECOND_NS, "score")
    assert end.decided_ns == 15.4 * SECOND_NS
    assert end.peak == pytest.approx(0.9)


def test_updates_come_once_a_second_while_it_lasts():
    updates = [event for event in play(make(), (5, WAVING)) if event.phase == "update"]
    assert [event.decided_ns / SECOND_NS for event in updates] == pytest.approx([11.4, 12.4, 13.4, 14.4])


def test_a_flash_shorter_than_min_on_is_no_event():
    assert play(make(), (2, IDLE), (0.3, WAVING), (2, IDLE)) == []


def test_a_dip_shorter_than_min_off_is_the_same_wave():
    events = play(make(), (2, WAVING), (0.3, IDLE), (2, WAVING), (2, IDLE))
    assert told(events, "start", "end") == [("start", "wave"), ("end", "wave")]


def test_a_probability_between_off_and_on_neither_starts_nor_ends():
    between = (0.5, 0.5, 0.0)
    assert play(make(), (5, between)) == []
    assert told(play(make(), (2, WAVING), (5, between)), "start", "end") == [("start", "wave")]


def test_the_onset_is_when_it_rose_above_off():
    events = play(make(), (1, IDLE), (1, (0.5, 0.5, 0.0)), (2, WAVING))
    assert events[0].onset_ns == 11 * SECOND_NS


def test_a_stated_shift_moves_the_onset_back_but_not_before_the_first_window():
    assert play(make(onset_shift_s=1.0), (2, IDLE), (2, WAVING))[0].onset_ns == 11 * SECOND_NS
    assert play(make(onset_shift_s=60.0), (2, IDLE), (2, WAVING))[0].onset_ns == 7 * SECOND_NS


def test_nothing_never_opens_an_event():
    assert play(make(), (60, IDLE)) == []


def test_another_action_replaces_the_open_one():
    events = play(make(), (2, WAVING), (2, WALKING), (2, IDLE))
    expected = [("start", "wave"), ("end", "wave"), ("start", "walk"), ("end", "walk")]
    assert told(events, "start", "end") == expected
    wave_end, walk_start = events[2], events[3]
    assert (wave_end.phase, wave_end.end_reason) == ("end", "score")  # min_off passed when min_on did

    slow = make((ActionRule("wave", 0.6, 0.4, 0.4, min_off_s=2.0), WALK))
    events = [event for event in play(slow, (2, WAVING), (2, WALKING)) if event.phase != "update"]
    assert [event.end_reason for event in events] == [None, "replaced", None]
    assert events[1].offset_ns == events[2].onset_ns == 12 * SECOND_NS
    assert walk_start.id != wave_end.id


def test_the_one_that_is_replaced_keeps_its_time_although_the_other_had_long_risen():
    rules = (ActionRule("wave", 0.5, 0.3, 0.4, 0.4), ActionRule("walk", 0.5, 0.3, 0.4, 0.4))
    parts = (2, (0.6, 0.03, 0.37)), (14, (0.03, 0.6, 0.37)), (2, (0.05, 0.35, 0.6))
    start, end, other = (event for event in play(make(rules), *parts) if event.phase != "update")
    assert (start.action, end.end_reason, other.action) == ("wave", "replaced", "walk")
    assert start.onset_ns == 12 * SECOND_NS
    assert end.offset_ns == other.onset_ns == 26 * SECOND_NS  # when walk overtook wave

    start, end, other = (e for e in play(make(rules, onset_shift_s=1.0), *parts) if e.phase != "update")
    assert end.offset_ns == other.onset_ns == 25 * SECOND_NS
    start, end, other = (e for e in play(make(rules, onset_shift_s=60.0), *parts) if e.phase != "update")
    assert other.onset_ns == end.offset_ns == start.onset_ns  # never before the one it replaces


def test_a_slow_change_dates_the_newcomer_to_when_it_overtook():
    rules = (ActionRule("wave", 0.5, 0.1, 0.4, 0.4), ActionRule("walk", 0.6, 0.3, 0.4, 0.4))
    parts = (2, WAVING), (1, (0.2, 0.45, 0.35)), (1, (0.2, 0.38, 0.42)), (2, (0.1, 0.2, 0.7))
    _, end, other = (event for event in play(make(rules), *parts) if event.phase != "update")
    assert end.offset_ns == other.onset_ns == 13 * SECOND_NS
    assert other.decided_ns == 14.4 * SECOND_NS


def test_one_that_was_less_likely_may_follow_one_that_ended():
    rules = (ActionRule("wave", 0.6, 0.5, 0.2, 0.6), ActionRule("walk", 0.3, 0.2, 0.2, 0.2))
    events = play(make(rules), (2, (0.0, 0.65, 0.35)), (2, (0.2, 0.45, 0.35)))
    assert told(events, "start", "end") == [("start", "wave"), ("end", "wave"), ("start", "walk")]
    assert events[-1].onset_ns >= 12 * SECOND_NS


def test_the_more_likely_of_two_stays_open():
    rules = (ActionRule("wave", 0.5, 0.3, 0.2, 0.2), ActionRule("walk", 0.3, 0.2, 0.2, 0.2))
    events = play(make(rules), (2, WAVING), (3, (0.2, 0.45, 0.35)))
    assert told(events, "start", "end") == [("start", "wave")]


def test_two_people_are_told_apart():
    decoder = make()
    events = []
    for step in range(20):
        now = 10 + step / 10
        events += decoder.decide([score(now, WAVING, track=1), score(now, WALKING, track=2)])
    assert [(event.track, event.action) for event in events if event.phase == "start"] == [(1, "wave"), (2, "walk")]
    assert [event.track for event in decoder.open] == [1, 2]


def test_closing_a_track_ends_its_event_and_forgets_it():
    decoder = make()
    play(decoder, (2, WAVING))
    (end,) = decoder.close(15 * SECOND_NS, "track_lost", track=1)
    assert (end.phase, end.end_reason, end.decided_ns) == ("end", "track_lost", 15 * SECOND_NS)
    assert end.offset_ns == 11.9 * SECOND_NS  # last seen waving
    assert decoder.close(16 * SECOND_NS, "shutdown") == []
    assert play(decoder, (0.3, WAVING), begin=5.0) == []  # the same number again is somebody new


def test_closing_ends_everybody():
    decoder = make()
    play(decoder, (1, WAVING), track=1)
    play(decoder, (1, WALKING), track=2)
    play(decoder, (1, IDLE), track=3)
    ends = decoder.close(12 * SECOND_NS, "shutdown")
    assert [(event.track, event.end_reason) for event in ends] == [(1, "shutdown"), (2, "shutdown")]
    assert decoder.open == ()


@pytest.mark.parametrize(("shift_s", "lasted_s"), [(0.0, 2.0), (0.5, 1.5), (9.0, 0.0)])
def test_an_offset_is_moved_back_but_never_before_its_onset(shift_s, lasted_s):
    end = play(make(offset_shift_s=shift_s), (2, IDLE), (2, WAVING), (2, IDLE))[-1]
    assert end.end_reason == "score"
    assert (end.offset_ns - end.onset_ns) / SECOND_NS == pytest.approx(lasted_s, abs=0.11)


def test_smoothing_delays_by_its_time_constant():
    events = play(make(smoothing_s=0.5), (2, IDLE), (3, WAVING), rate=100.0)
    # 0.9 (1 - exp(-t / 0.5)) reaches off 0.4 at 0.294 s and on 0.6 at 0.549 s
    assert events[0].onset_ns / SECOND_NS == pytest.approx(12.294, abs=0.02)
    assert events[0].decided_ns / SECOND_NS == pytest.approx(12.949, abs=0.02)


def test_the_runners_up_are_named():
    start = play(make(), (1, WAVING))[0]
    assert [name for name, _ in start.alternatives] == ["nothing", "walk"]
    assert start.margin == pytest.approx(0.85)


@pytest.mark.parametrize("smoothing_s", [0.0, 0.3])
@pytest.mark.parametrize("rate", [5.0, 8.0, 15.0, 30.0, 60.0])
def test_the_answer_does_not_depend_on_the_frame_rate(rate, smoothing_s):
    parts = (2, IDLE), (3, WAVING), (3, WALKING), (3, IDLE)
    seen = play(make(smoothing_s=smoothing_s), *parts, rate=rate)
    truth = play(make(smoothing_s=smoothing_s), *parts, rate=1000.0)
    keep = ("start", "end")
    assert told(seen, *keep) == told(truth, *keep)
    pairs = zip(*([e for e in events if e.phase in keep] for events in (seen, truth)), strict=True)
    for one, other in pairs:
        assert one.onset_ns == pytest.approx(other.onset_ns, abs=1.1 * SECOND_NS / rate)
        assert one.decided_ns == pytest.approx(other.decided_ns, abs=2.1 * SECOND_NS / rate)


@pytest.mark.parametrize(
    ("probabilities", "complaint"),
    [
        ((float("nan"), 0.5, 0.5), "finite"),
        ((0.0, float("inf"), 0.0), "finite"),
        ((-0.5, 1.0, 0.5), r"\[0, 1\]"),
        ((0.0, 1.5, 0.0), r"\[0, 1\]"),
        ((0.5, 0.5), r"need 3 probabilities, got shape \(2,\)"),
    ],
)
def test_bad_scores_are_refused_and_change_nothing(probabilities, complaint):
    decoder = make((ActionRule("wave", 0.6, 0.4, 0.0, 0.4),))
    with pytest.raises(ValueError, match=complaint):
        decoder.decide([score(10, WAVING, track=1), score(10, probabilities, track=2)])
    assert decoder.open == ()


def test_time_that_goes_back_is_refused():
    decoder = make()
    decoder.decide([score(10, IDLE)])
    with pytest.raises(ValueError, match="go back"):
        decoder.decide([score(9, IDLE)])
    with pytest.raises(ValueError, match="go back"):
        decoder.decide([score(12, IDLE), score(11, IDLE)])


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"on": 0.3}, "got on 0.3 and off 0.4"),
        ({"off": 0.0}, "off 0.0"),
        ({"on": 1.5}, "on 1.5"),
        ({"on": float("nan")}, "on nan"),
        ({"min_on_s": -1.0}, "min_on_s must be finite and at least 0, got -1.0"),
        ({"min_off_s": float("inf")}, "min_off_s"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(values, complaint):
    good = {"id": "wave", "on": 0.6, "off": 0.4, "min_on_s": 0.4, "min_off_s": 0.4}
    with pytest.raises(ValueError, match=complaint):
        ActionRule(**good | values)


@pytest.mark.parametrize(
    ("classes", "nothing", "rules", "smoothing_s", "complaint"),
    [
        (CLASSES, "idle", (WAVE,), 0.3, "'idle' must be a class"),
        (CLASSES, "wave", (WAVE,), 0.3, "have no rule"),
        (("nothing", "walk"), "nothing", (WAVE,), 0.3, r"rules for \['wave'\]"),
        (CLASSES, "nothing", (WAVE, WAVE), 0.3, "unique"),
        (CLASSES, "nothing", (WAVE,), -0.3, "smoothing_s must be finite and at least 0, got -0.3"),
    ],
)
def test_a_decoder_that_cannot_work_is_refused(classes, nothing, rules, smoothing_s, complaint):
    with pytest.raises(ValueError, match=complaint):
        Decoder(classes, nothing, rules, smoothing_s)


def test_ids_are_ulids_that_sort_by_time():
    ids = Ids()
    made = [ids() for _ in range(1000)]
    assert made == sorted(set(made))
    assert {len(one) for one in made} == {26}


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 2),  # person
            st.floats(0.0, 1.5),  # seconds since the last
            st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
            st.sampled_from(["go on", "go on", "go on", "lose the track"]),
        ),
        max_size=80,
    ),
    smoothing_s=st.sampled_from([0.0, 0.3]),
    min_s=st.sampled_from([0.0, 0.4]),
    shift_s=st.sampled_from([0.0, 2.0]),
)
def test_any_stream_gives_each_id_one_start_then_updates_then_one_end(steps, smoothing_s, min_s, shift_s):
    rules = [ActionRule(name, 0.5, 0.3, min_s, min_s) for name in ("wave", "walk")]
    decoder = make(rules, smoothing_s, onset_shift_s=shift_s, offset_shift_s=shift_s)
    now, events, lives = 10.0, [], [0, 0, 0]
    for person, elapsed, weights, then in steps:
        now += elapsed
        track = 3 * lives[person] + person  # somebody who was lost comes back under a new number
        total = sum(weights)
        events += decoder.decide([score(now, np.divide(weights, total) if total > 0 else IDLE, track)])
        if then != "go on":
            events += decoder.close(round(now * SECOND_NS), "track_lost", track)
            lives[person] += 1
    events += decoder.close(round(now * SECOND_NS), "shutdown")
    for _, story in itertools.groupby(sorted(events, key=lambda event: event.id), key=lambda event: event.id):
        check_story(list(story))
    for track in {event.track for event in events}:
        check_track([event for event in events if event.track == track])


def check_story(story):
    assert [event.phase for event in story] == ["start"] + ["update"] * (len(story) - 2) + ["end"]
    assert len({(event.track, event.action, event.onset_ns) for event in story}) == 1
    times = [event.decided_ns for event in story]
    assert all(later - before >= SECOND_NS for before, later in itertools.pairwise(times[:-1]))
    assert story[0].onset_ns <= story[0].decided_ns
    assert story[-1].onset_ns <= story[-1].offset_ns <= story[-1].decided_ns
    assert all(event.end_reason is None for event in story[:-1])
    assert story[-1].end_reason is not None
    assert all(0 <= event.value <= event.peak <= 1 for event in story)


def check_track(events):
    """One open at a time, and no two occurrences of one person overlap."""
    turns = [event for event in events if event.phase != "update"]
    assert [event.phase for event in turns] == ["start", "end"] * (len(turns) // 2)
    for end, start in itertools.pairwise(turns):
        if end.phase == "end":
            assert end.offset_ns <= start.onset_ns


def of_pair(seconds, probabilities, track, partner):
    return replace(score(seconds, probabilities, track), partner=partner)


def test_a_person_alone_and_in_a_pair_are_told_apart_and_so_are_the_two_orders():
    decoder, found = make(), []
    for step in range(20):
        now = 10 + step / 10
        found += decoder.decide([score(now, WAVING), of_pair(now, WALKING, 1, 2), of_pair(now, WAVING, 2, 1)])
    starts = [(event.track, event.partner, event.action) for event in found if event.phase == "start"]
    assert starts == [(1, None, "wave"), (1, 2, "walk"), (2, 1, "wave")]
    ended = decoder.close(13 * SECOND_NS, "track_lost", track=2)
    assert [(event.track, event.partner) for event in ended] == [(1, 2), (2, 1)]
    assert [event.partner for event in decoder.open] == [None]


def test_what_had_no_scores_for_long_ends_as_a_timeout_once():
    decoder = make()
    play(decoder, (2, WAVING))
    assert decoder.expire(12 * SECOND_NS, SECOND_NS) == []
    ended = decoder.expire(13 * SECOND_NS, SECOND_NS)
    assert told(ended, "end") == [("end", "wave")] and ended[0].end_reason == "timeout"
    assert decoder.expire(14 * SECOND_NS, SECOND_NS) == [] and decoder.open == ()
