"""What going on is expected to gain: from the values of the trials, and from the forecasts of those that run."""

from __future__ import annotations

from itertools import combinations
from statistics import fmean

import pytest

from sweeps.search.expected_gain import gain_of_draws, gain_of_running
from sweeps.search.forecast import ends

VALUES = [0.31, 0.4, 0.25, 0.38, 0.4, 0.36, 0.29, 0.42]


@pytest.mark.parametrize("count", [1, 3, 7])
def test_the_gain_of_draws_is_what_as_many_fewer_would_have_lost(count: int) -> None:
    kept = combinations(VALUES, len(VALUES) - count)
    assert gain_of_draws(VALUES, count) == pytest.approx(fmean(max(VALUES) - max(some) for some in kept))


def test_equal_values_gain_nothing() -> None:
    assert gain_of_draws([0.4] * 30, 15) == 0


def test_a_trial_that_rises_is_worth_waiting_for() -> None:
    rising = ends((0.25, 0.3, 0.35, 0.39), 9)
    assert gain_of_running([rising], 0.4) > 0.01
    assert gain_of_running([rising, ends((0.25, 0.3, 0.35, 0.385), 9)], 0.4) > gain_of_running([rising], 0.4)
    assert gain_of_running([ends((0.25, 0.25, 0.25, 0.25), 9)], 0.5) < 0.004
    assert gain_of_running([], 0.4) == 0
