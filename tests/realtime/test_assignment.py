"""Rows and columns are paired as well as can be, and never where that makes things worse."""

import numpy as np
import pytest

from realtime.assignment import assign


def total(costs: np.ndarray, chosen: list[int | None]) -> float:
    return float(sum(costs[row, column] for row, column in enumerate(chosen) if column is not None))


def test_the_sum_is_as_small_as_scipys() -> None:
    scipy = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(0)
    for _ in range(500):
        rows, columns = rng.integers(1, 9, 2)
        costs = rng.normal(0, 3, (rows, columns))
        costs[rng.random(costs.shape) < rng.random()] = np.inf
        padded = np.zeros((rows + columns, rows + columns))  # 0: not paired
        padded[:rows, :columns] = np.minimum(costs, 0)
        best = padded[scipy.linear_sum_assignment(padded)].sum()
        chosen = assign(costs)
        assert total(costs, chosen) == pytest.approx(best)
        taken = [column for column in chosen if column is not None]
        assert len(set(taken)) == len(taken)
        assert all(costs[row, column] < 0 for row, column in enumerate(chosen) if column is not None)


def test_sixty_four_people_are_paired_as_well_as_eight() -> None:
    scipy = pytest.importorskip("scipy.optimize")
    costs = np.random.default_rng(1).normal(-20, 3, (64, 64))
    assert total(costs, assign(costs)) == pytest.approx(costs[scipy.linear_sum_assignment(costs)].sum())


def test_the_nearest_pair_gives_way_where_that_serves_both() -> None:
    assert assign(np.array([[-9.0, -8.0], [-8.5, -1.0]])) == [1, 0]


def test_nothing_to_pair_is_no_pair() -> None:
    assert assign(np.zeros((0, 3))) == [] and assign(np.zeros((2, 0))) == [None, None]
    assert assign(np.array([[1.0, np.inf]])) == [None]


def test_costs_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="got NaN"):
        assign(np.array([[np.nan]]))
