"""Several sweeps on the GPUs of one machine, in a clock of the test: the laws of slots hold for shares of GPUs.

`run_until` asserts that no GPU has more than one whole of trials at any moment.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from sweeps.sharing.gpu_places import GpuPlaces
from tests.benchmarks.sharing import FakeSweep, Hall
from tests.sweeps.sharing.visits import VISITS

pytestmark = pytest.mark.timeout(120)


def on(sweep: FakeSweep) -> list[float]:
    assert sweep.places
    return sorted(sweep.places.used.values())


def test_two_sweeps_that_need_a_whole_gpu_each_have_one() -> None:
    hall = Hall(8, gpus=2)
    first, second = FakeSweep("first", 5, wants=1, gpus=1), FakeSweep("second", 5, wants=1, gpus=1)
    hall.come(first)
    hall.come(second)
    hall.run_until(20)
    assert first.places
    assert second.places
    taken = [{name for name, part in one.places.used.items() if part} for one in (first, second) if one.places]
    assert sorted(map(len, taken)) == [1, 1]
    assert taken[0] != taken[1]


def test_weights_divide_halves_of_gpus() -> None:
    hall = Hall(8, gpus=2)
    two, one = FakeSweep("two", 7, gpus=0.5), FakeSweep("one", 11, gpus=0.5)
    hall.come(two, weight=2.0)
    hall.come(one)
    hall.run_until(1200)
    assert two.had / (two.had + one.had) == pytest.approx(2 / 3, rel=0.05)
    assert hall.busy / (4 * 1200) >= 0.95


def test_halves_on_two_gpus_move_together_for_a_sweep_that_needs_a_whole_one() -> None:
    hall = Hall(8, gpus=2)
    halves, whole = FakeSweep("halves", 10, gpus=0.5), FakeSweep("whole", 10, gpus=1)
    hall.come(halves)
    hall.run_until(30)
    assert on(halves) == [1.0, 1.0]
    hall.come(whole)
    hall.run_until(30 + 2 * 12 + 2)
    assert on(whole) == [0.0, 1.0]
    assert on(halves) == [0.0, 1.0]


def test_an_urgent_sweep_has_the_gpus_within_one_report_and_gives_them_back() -> None:
    hall = Hall(8, gpus=2)
    usual, urgent = FakeSweep("usual", 30, gpus=0.5), FakeSweep("urgent", 30, wants=1, gpus=1)
    hall.come(usual)
    hall.run_until(100)
    hall.at(100, lambda: hall.come(urgent, priority=5))
    hall.run_until(100 + 36 + 2)
    assert on(urgent) == [0.0, 1.0]
    assert on(usual) == [0.0, 1.0], "what it does not need stays with the other"
    hall.at(300, lambda: hall.go("urgent"))
    hall.run_until(302)
    assert on(usual) == [1.0, 1.0]


def test_trials_on_two_gpus_each_and_halves() -> None:
    hall = Hall(8, gpus=3)
    pairs, halves = FakeSweep("pairs", 10, gpus=2), FakeSweep("halves", 10, gpus=0.5)
    hall.come(halves)
    hall.run_until(30)
    hall.come(pairs, weight=4.0)
    hall.run_until(200)
    assert on(pairs) == [0.0, 1.0, 1.0]
    assert on(halves) == [0.0, 0.0, 1.0]


@settings(max_examples=40, deadline=None)
@given(
    VISITS,
    some.integers(1, 4),
    some.dictionaries(some.sampled_from("abcdef"), some.sampled_from([0.25, 0.3, 0.5, 1.0])),
    some.integers(0, 99),
)
def test_sweeps_that_come_and_go_never_use_a_share_twice_and_leave_none_unused(
    visits: list[tuple[str, float, int, float]], gpus: int, shares: dict[str, float], seed: int
) -> None:
    hall = Hall(64, seed, gpus)

    def visit(name: str, priority: int, weight: float) -> None:
        if name in hall.sweeps:
            hall.go(name)
        else:
            hall.come(FakeSweep(name, 3.0, gpus=shares.get(name, 0.5)), priority=priority, weight=weight)

    for name, when, priority, weight in visits:
        hall.at(when, lambda name=name, priority=priority, weight=weight: visit(name, priority, weight))  # type: ignore[misc]
    free: list[float] = []
    for eighth in range(16):
        hall.run_until(120 + eighth / 8)
        used = [sum(on(sweep)) for sweep, _ in hall.sweeps.values()]
        free.append(gpus - sum(used))
    largest = max((sweep.gpus for sweep, _ in hall.sweeps.values()), default=0.0)
    assert not hall.sweeps or min(free) < gpus * largest, "a GPU has no room for the largest trial"


def test_a_trial_takes_the_fullest_gpu_that_has_room() -> None:
    places = GpuPlaces(["a", "b"])
    assert places.take(0, 0.5) == ("a",)
    assert places.take(1, 1.0) == ("b",)
    assert places.take(2, 0.5) == ("a",)
    assert places.take(3, 0.5) is None
    places.release(1)
    assert places.take(4, 2) is None
    assert places.take(3, 0.5) == ("b",)
