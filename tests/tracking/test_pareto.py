"""Non-dominated fronts, by hand and against the definition."""

import numpy as np

from tracking.metrics.pareto import fronts, ranked


def test_fronts_by_hand() -> None:
    points = np.array([[3.0, 1], [2, 2], [1, 3], [1, 1], [2, 1], [2, 2], [np.nan, 9]])
    assert fronts(points).tolist() == [0, 0, 0, 2, 1, 0, 3]


def test_fronts_are_those_of_the_definition() -> None:
    random = np.random.default_rng(0)
    for objectives in (1, 2, 3):
        points = random.integers(0, 6, size=(60, objectives)).astype(float)
        left, front = set(range(60)), 0
        found = fronts(points)
        while left:
            best = {
                one
                for one in left
                if not any((points[o] >= points[one]).all() and (points[o] > points[one]).any() for o in left)
            }
            assert {int(one) for one in np.flatnonzero(found == front)} == best
            left, front = left - best, front + 1


def test_within_a_front_the_ends_and_the_lonely_come_first() -> None:
    points = np.array([[0.0, 10], [1, 9], [1.1, 8.9], [5, 5], [10, 0], [0, 0]])
    assert ranked(points)[:3] == [0, 4, 3]
    assert ranked(points)[-1] == 5


def test_one_objective_is_ranked_by_its_value() -> None:
    assert ranked(np.array([[0.2], [0.9], [0.5], [0.9]])) == [1, 3, 2, 0]
    assert ranked(np.empty((0, 2))) == []
