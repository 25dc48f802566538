"""Command lines: a list of words may be broken by a flag."""

from __future__ import annotations

import pytest

from realtime.command import gather


@pytest.mark.parametrize(
    ("given", "gathered"),
    [
        (["tcp://LINE:5656", "--keys", "wall.client", "stats"], ["--keys", "wall.client", "tcp://LINE:5656", "stats"]),
        (["--keys=k", "make", "wall"], ["--keys=k", "make", "wall"]),
        (["stats", "--json", "--timeout-s", "3"], ["--json", "--timeout-s", "3", "stats"]),
        (["--json", "stats"], ["--json", "stats"]),
        (["events", "since", "12", "-h"], ["-h", "events", "since", "12"]),
        (["stats", "--keys"], ["--keys", "stats"]),
        ([], []),
    ],
)
def test_flags_come_first_with_their_values_and_the_words_stay_in_order(given, gathered):
    assert gather(given, "--json") == gathered
