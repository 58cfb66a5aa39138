"""Simulated sweeps: which methods run, and what the hypervolume of a front is."""

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution

from tests.benchmarks.curves.table import load
from tests.benchmarks.search.clock import Board, parameter_counts, simulate
from tests.benchmarks.search.fronts import OptunaFront, costs, volume, volumes
from tests.benchmarks.search.methods import HEADLINE, METHODS, chosen

SPACE: dict[str, BaseDistribution] = {"lr": FloatDistribution(1e-4, 1, log=True)}


def table(configurations: int = 6, epochs: int = 3) -> Board:
    random = np.random.default_rng(0)
    val = random.uniform(0.2, 0.4, (configurations, epochs))
    return Board(
        val=val,
        val_loss=-val,
        held_out=val,
        seconds=np.ones((configurations, epochs)),
        parameters=random.permutation(configurations) + 1.0,
        points=np.linspace(0, 1, configurations)[:, None],
        space=SPACE,
        weights={"lr": 1.0},
        runs=np.arange(configurations),
    )


def test_the_headline_runs_unless_others_are_asked_for() -> None:
    assert chosen([]) == list(HEADLINE)
    assert chosen(["ours: qmc, promoting"]) == ["ours: qmc, promoting"]
    assert chosen(["Hyperband", "random"]) == ["Optuna TPE, Hyperband", "random"]
    assert set(HEADLINE) <= METHODS.keys()


def test_the_hypervolume_of_a_sweep_grows_to_that_of_the_whole_table() -> None:
    board = table()
    method = OptunaFront(optuna.samplers.RandomSampler(seed=0), ("val_accuracy", "parameters"))
    sweep = simulate(method, board, workers=2, until=100)
    cost = costs(board, "parameters")
    found = volumes(sweep, cost, np.array([0, 2, 4, 100]))
    assert found[0] == 0
    assert found == sorted(found)
    assert found[-1] == pytest.approx(volume(board.val.max(axis=1), cost))


def test_wider_nets_have_more_parameters() -> None:
    curves = load()
    counts = parameter_counts([dict(one) for one in curves.params], curves.setting.pixels)
    lenets = {
        one["lenet.width"]: count for one, count in zip(curves.params, counts, strict=True) if "lenet.width" in one
    }
    assert 0 < lenets[4] < lenets[6] < lenets[8]
    assert len(set(counts)) == 5
