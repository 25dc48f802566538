"""Scores on cases made by hand."""

import numpy as np
import pytest

from realtime.schema import SECOND_NS
from train import scoring
from train.data.clip import Truth
from train.scoring import Detection, EventScore, score_events


def truth(label, start_s, end_s=None):
    return Truth(label, round(start_s * SECOND_NS), round((start_s if end_s is None else end_s) * SECOND_NS))


def event(label, start_s, end_s, decided_s=None):
    decided_s = start_s if decided_s is None else decided_s
    return Detection(label, *(round(second * SECOND_NS) for second in (start_s, end_s, decided_s)))


def score(truths, events, point_truth=False, vocabulary=("wave", "walk"), duration_s=100, **more):
    duration_ns = round(duration_s * SECOND_NS)
    return score_events(truths, events, duration_ns, point_truth=point_truth, vocabulary=vocabulary, **more)


def test_a_perfect_recording():
    found = score(
        [truth("wave", 10, 20), truth("walk", 30, 50)], [event("wave", 10, 20, 11), event("walk", 30, 50, 32)]
    )
    assert (found.precision, found.recall, found.f1, found.false_per_hour) == (1, 1, 1, 0)
    assert found.delay_s == 1.5 and found.free_s == 70


@pytest.mark.parametrize(("end", "matched"), [(13.0, 1), (12.999, 0), (20.0, 1), (10 + 100 / 3, 1), (43.4, 0)])
def test_an_overlap_counts_from_the_threshold_on(end, matched):
    assert score([truth("wave", 10, 20)], [event("wave", 10, end)], duration_s=1000).matched == matched


def test_another_action_does_not_count_and_is_false():
    found = score([truth("wave", 10, 20)], [event("walk", 10, 20)])
    assert (found.matched, found.false, found.recall, found.f1) == (0, 1, 0, 0)
    assert found.false_per_hour == pytest.approx(3600 / 90)


def test_a_second_event_on_one_truth_is_false():
    found = score([truth("wave", 10, 20)], [event("wave", 10, 15), event("wave", 15, 20)])
    assert (found.matched, found.false, found.recall, found.precision) == (1, 1, 1, 0.5)


def test_one_event_over_two_truths_counts_once():
    found = score([truth("wave", 10, 15), truth("wave", 16, 21)], [event("wave", 10, 21)])
    assert (found.matched, found.truths, found.false) == (1, 2, 0)


def test_the_event_that_fits_a_truth_best_does_not_rob_the_next_truth():
    # taken truth by truth, the first would take the second event, its best, and leave nothing for the second truth
    truths = [truth("wave", 0, 10), truth("wave", 8, 18)]
    events = [event("wave", 0, 4), event("wave", 2, 14)]
    assert scoring.iou(truths[0], events[1]) > scoring.iou(truths[0], events[0]) >= 0.3
    assert score(truths, events).matched == 2


def test_of_as_many_pairs_those_that_overlap_most_are_taken():
    found = scoring.match([truth("wave", 10, 20)], [event("wave", 10, 14), event("wave", 11, 20)], point_truth=False)
    assert [pair[1].start_ns for pair in found] == [11 * SECOND_NS]


def test_pairs_never_cross_in_time():
    truths = [truth("wave", 10, 20), truth("wave", 21, 23)]
    found = scoring.match(
        truths, [event("wave", 9, 22), event("wave", 21, 23), event("wave", 50, 60)], point_truth=False
    )
    assert [(a.start_ns // SECOND_NS, b.start_ns // SECOND_NS) for a, b in found] == [(10, 9), (21, 21)]


def test_a_point_counts_in_the_event_widened_by_a_third_of_a_second():
    for at, matched in ((9.66, 0), (9.667, 1), (11, 1), (12.333, 1), (12.34, 0)):
        assert score([truth("wave", at)], [event("wave", 10, 12)], point_truth=True).matched == matched


def test_points_take_the_earliest_event_and_each_event_takes_one_point():
    points = [truth("wave", 10), truth("wave", 10.4), truth("wave", 20)]
    events = [event("wave", 9.5, 10.2, 9.8), event("wave", 10.3, 11, 10.9), event("wave", 30, 31)]
    found = score(points, events, point_truth=True)
    assert (found.matched, found.false) == (2, 1)
    assert found.delays_s == pytest.approx((-0.2, 0.5)) and found.free_s == 100


def test_a_point_that_two_events_hold_leaves_the_later_one_to_the_next_point():
    points = [truth("wave", 10), truth("wave", 11)]
    events = [event("wave", 9, 10), event("wave", 10.2, 10.9)]
    assert score(points, events, point_truth=True).matched == 2


def test_truth_outside_the_vocabulary_is_time_without_truth():
    found = score([truth("wave", 10, 20), truth("bow", 30, 60)], [event("bow", 30, 60)])
    assert (found.truths, found.matched, found.false, found.free_s) == (1, 0, 1, 90)


def test_free_time_counts_overlapping_truths_once_and_none_beyond_the_end():
    truths = [truth("wave", -5, 10), truth("walk", 5, 20), truth("wave", 6, 8), truth("walk", 90, 150)]
    assert score(truths, []).free_s == 70


def test_a_silent_line_on_an_empty_recording_has_no_rates_to_divide_by():
    found = score([], [], duration_s=0)
    assert (found.precision, found.recall, found.f1, found.delay_s, found.false_per_hour) == (0, 0, 0, None, None)


def test_scores_of_recordings_add_up():
    one = score([truth("wave", 10, 20)], [event("wave", 10, 20, 11)])
    two = score([truth("wave", 10, 20)], [event("wave", 40, 50), event("wave", 10, 20, 13)])
    both = sum((one, two), EventScore())
    assert (both.truths, both.detections, both.matched, both.free_s) == (2, 3, 2, 180)
    assert both.delay_s == 2 and both.false_per_hour == pytest.approx(20)


def test_a_threshold_that_everything_would_pass_is_refused():
    with pytest.raises(ValueError, match=r"\(0, 1\], got 0"):
        score([], [], threshold=0)


def test_accuracy_of_clips():
    counts = scoring.confusion(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0]), 3)
    assert counts.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert scoring.accuracy(counts) == pytest.approx(0.6)
    assert scoring.class_accuracy(counts) == pytest.approx([2 / 3, 0.5, np.nan], nan_ok=True)
    assert scoring.mean_class_accuracy(counts) == pytest.approx((2 / 3 + 0.5) / 2)


def test_accuracy_of_no_clips_is_nought_and_classes_out_of_range_are_refused():
    nothing = scoring.confusion(np.array([]), np.array([]), 2)
    assert scoring.accuracy(nothing) == scoring.mean_class_accuracy(nothing) == 0
    with pytest.raises(ValueError, match=r"\[0, 2\)"):
        scoring.confusion(np.array([0]), np.array([2]), 2)
    with pytest.raises(ValueError, match="as many"):
        scoring.confusion(np.array([0]), np.array([0, 1]), 2)
