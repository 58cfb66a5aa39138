"""A function that is recorded once and replayed; on a CPU, with a stand-in for the graph."""

import torch
from torch import Tensor

from fer_common.captured import Captured
from tests.replayed import Replayed


class Counted:
    """Doubles a tensor and counts its calls from Python."""

    calls = 0

    def __call__(self, x: Tensor) -> tuple[Tensor]:
        self.calls += 1
        return (2 * x,)


def replays_of(captured: Captured, function: Counted, *given: Tensor) -> int:
    before = Replayed.replays
    for one in given:
        (made,) = captured(function, one)
        assert torch.equal(made, 2 * one)
    return Replayed.replays - before


def test_it_is_recorded_at_the_fourth_call_and_replayed_from_the_fifth_on() -> None:
    captured, function = Captured(Replayed), Counted()
    assert [replays_of(captured, function, torch.full((3,), float(call))) for call in range(6)] == [0, 0, 0, 0, 1, 1]


def test_results_are_not_overwritten_by_later_calls() -> None:
    captured, function = Captured(Replayed), Counted()
    made = [captured(function, torch.full((2,), float(call)))[0] for call in range(7)]
    assert [one.tolist() for one in made] == [[2.0 * call] * 2 for call in range(7)]


def test_further_shapes_are_computed_as_usual() -> None:
    captured, function = Captured(Replayed), Counted()
    replays_of(captured, function, *(torch.ones(3) for _ in range(5)))
    assert replays_of(captured, function, *(torch.ones(2) for _ in range(9))) == 0
    both = Captured(Replayed, shapes=2)
    assert replays_of(both, function, *(torch.ones(size) for _ in range(5) for size in (3, 2))) == 2
