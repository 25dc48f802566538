import math

import numpy as np
import pytest
from scipy.stats import binomtest

from train.scoring import accuracy, confusion, mean_class_accuracy
from train.statistics import discordant, mcnemar, mean_std, per_class, row_shares, wilson

COUNTS = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])  # the third class has neither clips nor answers


def test_precision_recall_and_f1_are_those_counted_by_hand():
    found = per_class(COUNTS)
    assert found.clips.tolist() == [4, 6, 0]
    np.testing.assert_allclose(found.precision, [3 / 5, 4 / 5, np.nan])
    np.testing.assert_allclose(found.recall, [3 / 4, 4 / 6, np.nan])
    np.testing.assert_allclose(found.f1, [2 / 3, 8 / 11, np.nan])


def test_a_class_that_is_never_right_has_an_f1_of_nought_and_not_of_nothing():
    found = per_class(np.array([[0, 2], [0, 3]]))
    assert found.f1[0] == 0 and math.isnan(found.precision[0]) and found.recall[0] == 0


def test_per_class_figures_agree_with_those_of_all_clips():
    rng = np.random.default_rng(0)
    counts = confusion(rng.integers(0, 7, 300), rng.integers(0, 7, 300), 7)
    found = per_class(counts)
    assert (found.recall * found.clips).sum() / 300 == pytest.approx(accuracy(counts))
    assert found.recall.mean() == pytest.approx(mean_class_accuracy(counts))
    assert np.diag(row_shares(counts)) == pytest.approx(found.recall)


def test_rows_of_shares_add_up_to_one_or_to_nought():
    assert row_shares(COUNTS).sum(axis=1).tolist() == [1, 1, 0]


def test_discordant_clips_are_counted_on_each_side():
    first, second = np.array([1, 1, 1, 0, 0], bool), np.array([1, 0, 0, 1, 0], bool)
    assert discordant(first, second) == (2, 1)
    assert discordant(second, first) == (1, 2)
    with pytest.raises(ValueError, match=r"same clips, got \(5,\) and \(4,\)"):
        discordant(first, second[:4])


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),  # both tails of five tosses alike
        (1, 5, 14 / 64),  # (1 + 6) of 64 on each side
        (4, 4, 1.0),
        (2, 12, 212 / 2**14),  # 2 (1 + 14 + 91)
    ],
)
def test_mcnemar_is_the_exact_binomial_test(first, second, p):
    assert mcnemar(first, second) == pytest.approx(p)
    assert mcnemar(second, first) == pytest.approx(p)


def test_mcnemar_agrees_with_its_sum_of_binomials_for_many_counts():
    for first, second in ((7, 19), (30, 31), (400, 460)):
        total, fewer = first + second, min(first, second)
        tail = sum(math.comb(total, k) for k in range(fewer + 1)) / 2**total
        assert mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail))
    with pytest.raises(ValueError, match="at least 0"):
        mcnemar(-1, 2)


def test_wilsons_interval_is_its_formula():
    right, clips, z = 451, 464, 1.959963984540054
    share, wide = right / clips, z * z / clips
    middle = (share + wide / 2) / (1 + wide)
    half = z / (1 + wide) * math.sqrt(share * (1 - share) / clips + wide / (4 * clips))
    assert wilson(right, clips) == pytest.approx((middle - half, middle + half))
    assert wilson(8, 10, 0.9) == pytest.approx(tuple(binomtest(8, 10).proportion_ci(0.9, "wilson")))


def test_wilsons_interval_stays_within_a_share():
    assert wilson(0, 20)[0] == pytest.approx(0, abs=1e-12) and wilson(20, 20)[1] == pytest.approx(1)
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match=r"right clips must be in \[0, 3\], got 4"):
        wilson(4, 3)
    with pytest.raises(ValueError, match="confidence"):
        wilson(1, 3, 95)


def test_the_deviation_is_of_a_sample_and_one_value_has_none():
    assert mean_std([0.90, 0.92, 0.94]) == pytest.approx((0.92, 0.02))
    assert mean_std([0.9]) == (0.9, None)
    with pytest.raises(ValueError, match="at least one"):
        mean_std([])
