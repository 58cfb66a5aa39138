"""Sweeps of several objectives, simulated on FER-Curves: how soon each method finds how good a front.

    python -m tests.benchmarks.search.fronts [--repeats 50] [--workers 1,4] [--costs parameters,seconds] [--only TEXT,TEXT]

A front has the configurations of a sweep that no other one of the sweep beats in accuracy without a higher cost. Its
hypervolume is that of `compare`: accuracies from 0, costs up to the highest of the whole table. The cost of a
configuration is the number of its net's parameters, or its median seconds per epoch. T is that of
`tests.benchmarks.search`.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from tests.benchmarks.curves.table import FER_CURVES, load
from tests.benchmarks.search.__main__ import budget
from tests.benchmarks.search.clock import Board, Decision, Method, Sweep, board, simulate
from tests.benchmarks.search.measures import interval
from tests.benchmarks.search.methods import End, OurMethod, parameters
from tracking.metrics.pareto import hypervolume
from tracking.record.events import OBJECTIVE
from tracking.record.objectives import Costs, costs_in, costs_of

SHARES = (0.125, 0.25, 0.5, 1.0)
"""Of T: when the fronts are compared."""


class OptunaFront:
    """A study of Optuna with several objectives. It has no pruner, since Optuna does not prune such studies."""

    def __init__(self, sampler: optuna.samplers.BaseSampler, objectives: tuple[str, ...]) -> None:
        directions = ["maximize", *["minimize"] * (len(objectives) - 1)]
        self._study = optuna.create_study(directions=directions, sampler=sampler)
        self._objectives = objectives
        self._trials: dict[int, optuna.Trial] = {}
        self._costs: dict[int, list[Costs]] = {}

    def thaw(self) -> int | None:
        return None

    def propose(self, number: int) -> Mapping[str, Any] | None:
        self._trials[number], self._costs[number] = self._study.ask(), []
        return parameters(self._trials[number])

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> Decision:
        self._costs[number].append(costs_in(metrics, self._objectives))
        return "go"

    def ended(self, number: int, curve: list[float], state: End) -> None:
        trial, costs = self._trials.pop(number), self._costs.pop(number)
        if state == "failed":
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, [max(curve), *costs_of(costs)])


def methods(objectives: tuple[str, ...]) -> dict[str, Callable[[int, int], Method]]:
    """Name -> maker of the method from a seed and the length of a trial."""
    ours = partial(OurMethod, pruner="promoting", objectives=objectives)
    return {
        "random, no pruner": lambda seed, _: OptunaFront(optuna.samplers.RandomSampler(seed=seed), objectives),
        "Optuna TPE, no pruner": lambda seed, _: OptunaFront(optuna.samplers.TPESampler(seed=seed), objectives),
        "ours: qmc-tpe, promoting (default)": partial(ours, sampler="qmc-tpe"),
        "ours: nsgaii, promoting": partial(ours, sampler="nsgaii"),
        "ours: random, promoting": partial(ours, sampler="random"),
    }


def volume(best: NDArray[np.float64], cost: NDArray[np.float64]) -> float:
    """The hypervolume of configurations with these accuracies and costs as shares of the highest."""
    return hypervolume(np.stack([1 - best, cost], axis=1))


def volumes(sweep: Sweep, cost: NDArray[np.float64], at: NDArray[np.float64]) -> list[float]:
    """The hypervolume of a sweep's front at each of these seconds."""
    best, found, done = np.full(len(cost), -1.0), [], 0
    for seconds in at:
        until = int(np.searchsorted(sweep.seconds, seconds, side="right"))
        np.maximum.at(best, sweep.configurations[done:until], sweep.values[done:until])
        met, done = best >= 0, until
        found.append(volume(best[met], cost[met]))
    return found


def costs(table: Board, name: str) -> NDArray[np.float64]:
    """Each configuration's cost, as a share of the highest."""
    each = table.parameters if name == "parameters" else np.median(table.seconds, axis=1)
    return np.asarray(each / each.max())


def main() -> None:
    """Print one row per cost, number of workers and method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--workers", type=lambda text: [int(part) for part in text.split(",")], default=[1, 4])
    parser.add_argument("--costs", type=lambda text: text.split(","), default=["parameters", "seconds"])
    parser.add_argument("--only", type=lambda text: text.split(","), default=[""], help="methods whose names have this")
    parser.add_argument("--table", type=Path, default=FER_CURVES)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = board(load(given.table))
    for name in given.costs:
        cost = costs(table, name)
        whole = volume(np.nanmax(table.val, axis=1, initial=0.0), cost)
        print(f"{OBJECTIVE},{name}: the whole table's front has {100 * whole:.2f}", flush=True)
        for workers in given.workers:
            _compare(table, name, cost, workers, given.repeats, given.only)


def _compare(table: Board, name: str, cost: NDArray[np.float64], workers: int, repeats: int, only: list[str]) -> None:
    until = budget(table, workers)
    for title, make in methods((OBJECTIVE, name)).items():
        if not any(part in title for part in only):
            continue
        found = [
            volumes(simulate(make(6_000 + seed, table.epochs), table, workers, until), cost, until * np.array(SHARES))
            for seed in range(repeats)
        ]
        cells = (
            "{:.2f} ({:.2f}–{:.2f})".format(*interval(np.mean, column)) for column in (100 * np.array(found)).T.tolist()
        )
        print(f"{workers:2} {title:36} n {repeats}  {'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
