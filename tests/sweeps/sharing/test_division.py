"""The division of slots between sweeps: laws over random claims."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as some

from sweeps.sharing.division import Capacity, Claim, divide, entitled, grants

QUANTUM = 20.0


def claim(name: str, **more: object) -> Claim:
    return Claim.model_validate({"id": name, "sweep": name, "wanted": 100, "since": float(ord(name[0]))} | more)


claims = some.lists(
    some.builds(
        Claim,
        id=some.uuids().map(str),
        sweep=some.just("night"),
        priority=some.integers(-2, 2),
        weight=some.floats(0.1, 10),
        cores=some.sampled_from([0.5, 1, 2, 3]),
        gpus=some.sampled_from([0, 0, 0.25, 0.5, 1, 2]),
        wanted=some.integers(0, 12),
        held=some.integers(0, 4),
        owed=some.floats(-100, 100),
        since=some.floats(0, 5),
    ),
    max_size=7,
    unique_by=lambda claim: claim.id,
)


def capacity_with(cores: float, gpus: int = 0) -> Capacity:
    return Capacity(cores, frozenset(map(str, range(gpus))))


capacities = some.builds(capacity_with, some.integers(1, 16).map(float), some.integers(0, 4))


@given(claims, capacities)
def test_no_slot_twice_none_unasked_and_none_left_over(claims: list[Claim], capacity: Capacity) -> None:
    granted = grants(claims, capacity, QUANTUM)
    cores = capacity.cores - sum(granted[one.id].slots * one.cores for one in claims)
    on = [granted[one.id].on for one in claims]
    free = {name: 1 - sum(parts.get(name, 0.0) for parts in on) for name in capacity.names}
    assert cores >= -1e-6
    assert all(left >= -1e-6 for left in free.values())
    for one in claims:
        grant = granted[one.id]
        assert 0 <= grant.slots <= one.wanted
        assert sum(grant.on.values()) == pytest.approx(grant.slots * one.gpus)
        assert all(part / min(1, one.gpus) % 1 == pytest.approx(0) for part in grant.on.values())
        fits = sum(left > min(1, one.gpus) - 1e-9 for left in free.values()) >= one.gpus
        assert grant.slots == one.wanted or one.cores > cores or (one.gpus and not fits)


@given(claims, capacities, some.randoms())
def test_every_driver_comes_to_the_same_division(claims: list[Claim], capacity: Capacity, order: object) -> None:
    shuffled = list(claims)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert divide(claims, capacity, QUANTUM) == divide(shuffled, capacity, QUANTUM)


@given(claims, capacities)
def test_a_lower_priority_takes_nothing_from_a_higher_one(claims: list[Claim], capacity: Capacity) -> None:
    granted, shares = divide(claims, capacity, QUANTUM), entitled(claims, capacity)
    top = max((one.priority for one in claims), default=0)
    alone = [one for one in claims if one.priority == top]
    assert divide(alone, capacity, QUANTUM) == {one.id: granted[one.id] for one in alone}
    assert entitled(alone, capacity) == pytest.approx({one.id: shares[one.id] for one in alone})


@given(claims, capacities)
def test_nobody_is_entitled_to_more_than_there_is_or_than_it_wants(claims: list[Claim], capacity: Capacity) -> None:
    shares = entitled(claims, capacity)
    assert sum(shares[one.id] * one.cores for one in claims) <= capacity.cores + 1e-6
    assert sum(shares[one.id] * one.gpus for one in claims) <= capacity.gpus + 1e-6
    assert all(0 <= shares[one.id] <= one.wanted + 1e-6 for one in claims)


@given(some.lists(some.floats(0.1, 10), min_size=2, max_size=6), some.integers(1, 64))
def test_equal_slots_are_entitled_to_by_weight(weights: list[float], cores: int) -> None:
    claims = [claim(chr(97 + place), weight=weight) for place, weight in enumerate(weights)]
    shares = entitled(claims, Capacity(cores))
    assert sum(shares.values()) == pytest.approx(cores)
    for one, other in pairwise(claims):
        assert shares[one.id] / one.weight == pytest.approx(shares[other.id] / other.weight)
    granted = divide(claims, Capacity(cores), QUANTUM)
    assert all(math.floor(shares[one.id]) - 1 <= granted[one.id] <= math.ceil(shares[one.id]) + 1 for one in claims)


def test_in_numbers() -> None:
    two_to_one = [claim("a", weight=2), claim("b")]
    assert entitled(two_to_one, Capacity(4)) == pytest.approx({"a": 8 / 3, "b": 4 / 3})
    assert divide(two_to_one, Capacity(4), QUANTUM) == {"a": 3, "b": 1}
    owed = [claim("a", weight=2, held=3), claim("b", held=1, owed=25)]
    assert divide(owed, Capacity(4), QUANTUM) == {"a": 2, "b": 2}
    assert divide([claim("a"), claim("b", priority=1)], Capacity(2), QUANTUM) == {"a": 0, "b": 2}
    assert divide([claim("a"), claim("b", priority=1, wanted=1)], Capacity(2), QUANTUM) == {"a": 1, "b": 1}
    assert divide([claim("a", held=1), claim("b")], Capacity(1), QUANTUM) == {"a": 1, "b": 0}
    beside_a_gpu = [claim("a", gpus=1, wanted=1), claim("b")]
    assert divide(beside_a_gpu, capacity_with(16, 1), QUANTUM) == {"a": 1, "b": 15}
    assert divide([claim("a", cores=3), claim("b")], Capacity(2), QUANTUM) == {"a": 0, "b": 2}


def test_slots_are_on_gpus() -> None:
    """Three slots of 0.6 would fit two GPUs by their sum."""
    assert divide([claim("a", gpus=0.6)], capacity_with(16, 2), QUANTUM) == {"a": 2}
    halves_and_whole = [claim("a", gpus=0.5), claim("b", gpus=1)]
    found = grants(halves_and_whole, capacity_with(16, 2), QUANTUM)
    assert (found["a"].on, found["b"].on) == ({"0": 1.0}, {"1": 1.0})
    assert grants([claim("a", gpus=2)], capacity_with(16, 3), QUANTUM)["a"].on == {"0": 1.0, "1": 1.0}
    only_its_own = [claim("a", gpus=0.5, all_gpus={"1"}), claim("b", gpus=0.5, all_gpus={"0", "1"}, priority=-1)]
    found = grants(only_its_own, capacity_with(16, 2), QUANTUM)
    assert (found["a"].on, found["b"].on) == ({"1": 1.0}, {"0": 1.0})


def test_a_slot_stays_on_its_gpu_and_a_new_one_displaces_none() -> None:
    here = claim("a", gpus=0.5, wanted=2, held=2, on={"0": 1.0})
    found = grants([here, claim("b", gpus=0.5, wanted=2)], capacity_with(16, 2), QUANTUM)
    assert (found["a"].on, found["b"].on) == ({"0": 1.0}, {"1": 1.0})
    scattered = claim("a", gpus=0.5, wanted=2, held=2, on={"0": 0.5, "1": 0.5})
    found = grants([scattered, claim("b", gpus=1, wanted=1, owed=5)], capacity_with(16, 2), QUANTUM)
    assert (sum(found["a"].on.values()), sum(found["b"].on.values())) == (1.0, 1.0), "it moves for a whole one"
    assert len(found["a"].on) == 1
