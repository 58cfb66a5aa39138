"""A sweep on recorded curves with a clock of its own: an epoch takes the seconds that it took when it was recorded.

A method proposes a point of the space, and the nearest recorded configuration that this sweep has not used is trained
in its place, the same for all methods. Distance is Euclidean in the scaled parameters, each weighted by its importance
for the final accuracy in the whole table, as else those that hardly matter would decide what is near.

Legend: r recorded configurations, e epochs, d parameters.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from fer_data import EXPRESSIONS
from fer_models.nets.registry import count_parameters
from tests.benchmarks.curves.record import recorded_net
from tests.benchmarks.curves.space import distributions, suggest
from tests.benchmarks.curves.table import Curves
from tracking.record.events import OBJECTIVE
from tracking.record.objectives import METRICS

Decision = Literal["go", "stop", "pause"]
End = Literal["done", "pruned", "failed"]
Floats = NDArray[np.float64]


class Method(Protocol):
    """A way to search. Trials are numbered from 0 in the order of their proposals."""

    def thaw(self) -> int | None:
        """A paused trial to continue with now."""
        ...

    def propose(self, number: int) -> Mapping[str, Any] | None:
        """Parameters of the next new trial; None to wait until another trial reports."""
        ...

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> Decision:
        """Take in an epoch's metrics; not asked after the last epoch, which is `ended`."""
        ...

    def ended(self, number: int, curve: list[float], state: End) -> None:
        """Take in that a trial is over."""
        ...


@dataclass(frozen=True, eq=False)
class Board:
    """The first runs of a table, as a sweep meets them."""

    val: Floats
    """[r, e] accuracy, NaN where the run had diverged."""
    val_loss: Floats
    held_out: Floats
    seconds: Floats
    parameters: Floats
    """[r] of each net."""
    points: Floats
    """[r, d] parameters, scaled to 0..1 times the root of their weight."""
    space: dict[str, BaseDistribution]
    weights: dict[str, float]
    runs: NDArray[np.int64]
    """[r] places in the table."""

    @property
    def epochs(self) -> int:
        return self.val.shape[1]

    def metrics(self, configuration: int, epoch: int) -> dict[str, float]:
        """What a trial of that configuration reports after an epoch."""
        return {
            OBJECTIVE: float(self.val[configuration, epoch - 1]),
            "val_loss": float(self.val_loss[configuration, epoch - 1]),
            METRICS["seconds"]: float(self.seconds[configuration, epoch - 1]),
            METRICS["parameters"]: float(self.parameters[configuration]),
        }

    def part(self, rows: NDArray[np.int64]) -> Board:
        """The board with these configurations alone."""
        names = ("val", "val_loss", "held_out", "seconds", "parameters", "points", "runs")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def nearest(self, params: Mapping[str, Any], used: NDArray[np.bool_]) -> int:
        """Place of the unused configuration that is nearest to a proposal."""
        distance = ((self.points - _coordinates([params], self.space, self.weights)[0]) ** 2).sum(1)
        distance[used] = math.inf
        return int(distance.argmin())


def board(curves: Curves) -> Board:
    """Lay out the first run of each configuration."""
    first = curves.firsts
    params = [curves.params[run] for run in first]
    space = distributions()
    val = curves.series["val_accuracy"][first]
    weights = _importances(params, space, np.nanmax(val, axis=1, initial=0.0))
    seconds = curves.epoch_seconds[first].copy()
    typical = np.nanmedian(seconds)
    seconds = np.where(
        np.isnan(seconds), np.nan_to_num(np.nanmedian(seconds, axis=1, keepdims=True), nan=typical), seconds
    )
    held_out = curves.series["held_out_accuracy"][first]
    loss = curves.series["val_loss"][first]
    counts = parameter_counts(params, curves.setting.pixels)
    return Board(val, loss, held_out, seconds, counts, _coordinates(params, space, weights), space, weights, first)


def parameter_counts(params: list[dict[str, Any]], pixels: int) -> Floats:
    """The number of trainable parameters of each configuration's net, which only the kind and the width decide."""
    counts: dict[tuple[Any, ...], int] = {}
    kinds = [tuple(one.get(name) for name in ("net", "lenet.width", "compact_resnet.width")) for one in params]
    for kind, one in zip(kinds, params, strict=True):
        if kind not in counts:
            config, no_image = suggest(optuna.trial.FixedTrial(one)), np.zeros((pixels, pixels), np.float32)
            with torch.device("meta"):
                net = recorded_net(config, one, len(EXPRESSIONS), no_image, pixels, torch.Generator())
            counts[kind] = count_parameters(net)
    return np.array([counts[kind] for kind in kinds], float)


def _importances(
    params: list[dict[str, Any]], space: Mapping[str, BaseDistribution], reached: Floats
) -> dict[str, float]:
    """Each parameter's share of what permuting it costs a forest that predicts the accuracy reached."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    even = _coordinates(params, space, dict.fromkeys(space, 1.0))
    forest = RandomForestRegressor(300, min_samples_leaf=2, random_state=0).fit(even, reached)
    found = permutation_importance(forest, even, reached, n_repeats=10, random_state=0).importances_mean.clip(0)
    return dict(zip(space, (found / found.sum()).tolist(), strict=True))


def _coordinates(
    params: list[Mapping[str, Any]] | list[dict[str, Any]],
    space: Mapping[str, BaseDistribution],
    weights: Mapping[str, float],
) -> Floats:
    """Choices stand in their order; a parameter that a configuration lacks stands in the middle."""
    columns = []
    for name, distribution in space.items():
        column = np.array([_scaled(one[name], distribution) if name in one else 0.5 for one in params])
        columns.append(math.sqrt(weights[name]) * column)
    return np.stack(columns, axis=1)


def _scaled(value: Any, distribution: BaseDistribution) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices.index(value) / max(len(distribution.choices) - 1, 1)
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    if distribution.log:
        return math.log(value / low) / math.log(high / low)
    return float((value - low) / (high - low))


@dataclass
class Sweep:
    """What happened: one entry per epoch that was trained, in the order in which they ended."""

    seconds: list[float] = field(default_factory=list)
    configurations: list[int] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    pruned: list[int] = field(default_factory=list)
    started: int = 0


@dataclass
class _Trial:
    configuration: int
    epoch: int = 0


def simulate(
    method: Method, table: Board, workers: int, until: float, target: float = math.inf, at_least: float = 0.0
) -> Sweep:
    """Run a sweep until the clock shows `until` seconds, or nothing is left to train, or a val accuracy has reached
    `target` and the clock `at_least` seconds."""
    sweep, used, trials = Sweep(), np.zeros(len(table.val), bool), list[_Trial]()
    queue: list[tuple[float, int, int]] = []  # when, turn, trial
    idle, now, turn, best = workers, 0.0, 0, 0.0
    while True:
        while idle:
            number = _next(method, table, used, trials)
            if number is None:
                break
            turn, idle = turn + 1, idle - 1
            heapq.heappush(queue, (now + _cost(table, trials[number]), turn, number))
        if not queue:
            break
        now, _, number = heapq.heappop(queue)
        if now > until or (now > at_least and best >= target):
            break
        if _advance(method, table, sweep, trials[number], number, now):
            turn += 1
            heapq.heappush(queue, (now + _cost(table, trials[number]), turn, number))
        else:
            idle += 1
        best = max(best, sweep.values[-1]) if sweep.values else best
    sweep.started = len(trials)
    return sweep


def _next(method: Method, table: Board, used: NDArray[np.bool_], trials: list[_Trial]) -> int | None:
    number = method.thaw()
    if number is not None or used.all():
        return number
    params = method.propose(len(trials))
    if params is None:
        return None
    configuration = table.nearest(params, used)
    used[configuration] = True
    trials.append(_Trial(configuration))
    return len(trials) - 1


def _cost(table: Board, trial: _Trial) -> float:
    return float(table.seconds[trial.configuration, trial.epoch])


def _advance(method: Method, table: Board, sweep: Sweep, trial: _Trial, number: int, now: float) -> bool:
    """Let a trial's epoch end; whether it trains another one."""
    curve = table.val[trial.configuration]
    value = float(curve[trial.epoch])
    if math.isnan(value):
        method.ended(number, curve[: trial.epoch].tolist(), "failed")
        return False
    trial.epoch += 1
    sweep.seconds.append(now)
    sweep.configurations.append(trial.configuration)
    sweep.epochs.append(trial.epoch)
    sweep.values.append(value)
    decision = method.report(number, trial.epoch, table.metrics(trial.configuration, trial.epoch))
    if trial.epoch == table.epochs:
        method.ended(number, curve.tolist(), "done")
        return False
    if decision == "stop":
        sweep.pruned.append(trial.configuration)
        method.ended(number, curve[: trial.epoch].tolist(), "pruned")
    return decision == "go"
