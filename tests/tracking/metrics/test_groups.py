"""The mean of a group with its interval."""

import pytest

from tracking.metrics.groups import mean_interval


def test_the_interval_of_a_mean_is_student_s() -> None:
    found = mean_interval([0.4, 0.5, 0.6])
    assert found is not None
    # By hand: the standard deviation is 0.1, t of 2 degrees of freedom is 4.303 (table), so 4.303 · 0.1 / √3 = 0.2484.
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.2516, 0.7484), abs=1e-4)
    assert mean_interval([0.5]) is None


def test_no_accuracy_is_below_0_or_above_1() -> None:
    found = mean_interval([0.3, 0.9])
    assert found is not None
    # By hand: t of 1 degree of freedom is 12.71, so the interval would be 0.6 ± 3.8.
    assert (found.low, found.high) == (0.0, 1.0)
