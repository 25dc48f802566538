"""The best way to pair rows with columns: an exact assignment for the few people in a picture.

What can be paired at all falls apart into groups that share nothing (people who stand apart); each is solved by itself,
a group of one row and one column at sight.
"""

from __future__ import annotations

import numpy as np


def assign(costs: np.ndarray) -> list[int | None]:
    """The column of each row, None where it has none, so that the sum of what is paired is as small as can be.

    costs: (N, M); a pair is made only where its cost is below 0, never where it is infinite. NaN is refused with
    ValueError. Exact (Kuhn 1955 in the form of Jonker and Volgenant 1987), O(n^3) in the largest group.
    """
    costs = np.asarray(costs, float)
    if np.isnan(costs).any():
        raise ValueError("costs must be numbers, got NaN")
    chosen: list[int | None] = [None] * len(costs)
    worth = costs < 0  # whatever else is paired, these only make the sum larger
    for rows, columns in _groups(worth.tolist()):
        if len(rows) == 1:
            chosen[rows[0]] = columns[int(np.argmin(costs[rows[0], columns]))]
            continue
        size = max(len(rows), len(columns))
        square = np.zeros((size, size))  # 0: not paired
        square[: len(rows), : len(columns)] = np.where(worth, costs, 0.0)[np.ix_(rows, columns)]
        for row, column in zip(rows, _square(square.tolist()), strict=False):
            if column < len(columns) and worth[row, columns[column]]:
                chosen[row] = columns[column]
    return chosen


def _groups(worth: list[list[bool]]) -> list[tuple[list[int], list[int]]]:
    """Rows and columns joined by what is worth pairing, group by group."""
    reach = {row: {column for column, good in enumerate(line) if good} for row, line in enumerate(worth)}
    groups, waiting = [], [row for row, columns in reach.items() if columns]
    while waiting:
        rows, columns, grew = {waiting[0]}, set(reach[waiting[0]]), True
        while grew:
            fresh = [row for row in waiting if row not in rows and reach[row] & columns]
            rows.update(fresh)
            columns.update(*(reach[row] for row in fresh))
            grew = bool(fresh)
        waiting = [row for row in waiting if row not in rows]
        groups.append((sorted(rows), sorted(columns)))
    return groups


def _square(costs: list[list[float]]) -> list[int]:
    """The column of each row of a full square assignment: shortest augmenting paths with dual prices.

    Plain lists: for a handful of people they are faster than arrays.
    """
    size = len(costs)
    row_price, column_price = [0.0] * size, [0.0] * (size + 1)
    owner = [-1] * (size + 1)  # column -> row; the last column is where each path begins
    for begin in range(size):
        owner[size], column = begin, size
        nearest, came = [float("inf")] * size, [size] * size
        done = [False] * (size + 1)
        while owner[column] != -1:
            done[column] = True
            row, step, following = owner[column], float("inf"), -1
            for other in range(size):
                if done[other]:
                    continue
                reduced = costs[row][other] - row_price[row] - column_price[other]
                if reduced < nearest[other]:
                    nearest[other], came[other] = reduced, column
                if nearest[other] < step:
                    step, following = nearest[other], other
            for other in range(size + 1):
                if done[other]:
                    row_price[owner[other]] += step
                    column_price[other] -= step
                elif other < size:
                    nearest[other] -= step
            column = following
        while column != size:
            owner[column] = owner[came[column]]
            column = came[column]
    chosen = [0] * size
    for column in range(size):
        chosen[owner[column]] = column
    return chosen
