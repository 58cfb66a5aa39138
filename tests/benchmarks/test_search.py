"""Simulated sweeps: which methods run, and what the hypervolume of a front is."""

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution

from tests.benchmarks.curves.table import load
from tests.benchmarks.search.clock import Board, board, parameter_counts, simulate
from tests.benchmarks.search.fronts import OptunaFront, costs, volume, volumes
from tests.benchmarks.search.methods import HEADLINE, METHODS, chosen
from tests.benchmarks.search.seeds import with_seeds

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
    laid = table()
    method = OptunaFront(optuna.samplers.RandomSampler(seed=0), ("val_accuracy", "parameters"))
    sweep = simulate(method, laid, workers=2, until=100)
    cost = costs(laid, "parameters")
    found = volumes(sweep, cost, np.array([0, 2, 4, 100]))
    assert found[0] == 0
    assert found == sorted(found)
    assert found[-1] == pytest.approx(volume(laid.val.max(axis=1), cost))


def test_wider_nets_have_more_parameters() -> None:
    curves = load()
    counts = parameter_counts([dict(one) for one in curves.params], curves.setting.pixels)
    lenets = {
        one["lenet.width"]: count for one, count in zip(curves.params, counts, strict=True) if "lenet.width" in one
    }
    assert 0 < lenets[4] < lenets[6] < lenets[8]
    assert len(set(counts)) == 5


def test_further_seeds_of_a_configuration_are_the_recorded_ones_first() -> None:
    curves = load()
    first = curves.firsts
    table = Board(
        val=curves.series["val_accuracy"][first],
        val_loss=curves.series["val_loss"][first],
        held_out=curves.series["held_out_accuracy"][first],
        seconds=curves.epoch_seconds[first],
        parameters=np.ones(len(first)),
        points=np.zeros((len(first), 1)),
        space=SPACE,
        weights={"lr": 1.0},
        runs=first,
    )
    many = with_seeds(table, curves, 4)
    recorded, *further = many.val.reshape(4, *table.val.shape)
    np.testing.assert_array_equal(recorded, table.val)
    for repeat in np.flatnonzero(curves.repeats > 0):
        row = np.flatnonzero(curves.numbers[first] == curves.numbers[repeat])[0]
        np.testing.assert_allclose(further[curves.repeats[repeat] - 1][row], curves.series["val_accuracy"][repeat])
    repeated = np.isin(curves.numbers[first], curves.numbers[curves.repeats > 0])
    shifts = (further[2] - recorded)[~repeated, -1]
    at_chance = recorded[~repeated, -1] <= 0.27
    assert (shifts[at_chance] == 0).all()
    assert np.nanstd(shifts[~at_chance]) == pytest.approx(0.008, abs=0.002)  # between two recorded seeds
    assert (np.isnan(shifts) == np.isnan(recorded[~repeated, -1])).all()


def test_smac3_continues_the_configurations_that_its_hyperband_keeps() -> None:
    pytest.importorskip("smac")
    curves = load()
    laid = board(curves)
    sweep = simulate(METHODS["SMAC3, multi-fidelity"](0, laid.epochs), laid, workers=1, until=40)
    trained = {
        configuration: [e for c, e in zip(sweep.configurations, sweep.epochs, strict=True) if c == configuration]
        for configuration in sweep.configurations[:-9]  # the last one may be cut short
        if not np.isnan(laid.val[configuration]).any()
    }
    assert all(epochs == list(range(1, len(epochs) + 1)) for epochs in trained.values())
    assert {len(epochs) for epochs in trained.values()} == {1, 3, 9}  # a third of each rung continues
