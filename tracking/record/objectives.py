"""The objectives of a sweep: the best val accuracy and, optionally, costs of a trial. Names fix the directions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from fer_common.errors import did_you_mean
from tracking.record.events import OBJECTIVE, PARAMETERS

LATENCY = "latency_milliseconds"
"""Metric: time of the net for one face, on one core."""

METRICS: Mapping[str, str] = {
    OBJECTIVE: OBJECTIVE,
    "parameters": PARAMETERS,
    "seconds": "epoch_seconds",
    "latency": LATENCY,
}
"""Objective → the metric of an epoch that it is. Accuracy is maximised, the others are minimised."""

AXES: Mapping[str, str] = {
    "parameters": "parameters",
    "seconds": "seconds per epoch",
    "latency": "milliseconds per face",
}
"""The labels of the costs in plots."""

ACCURACY_ALONE = (OBJECTIVE,)

Costs = tuple[float, ...]
"""The values of all objectives other than the accuracy, in their order."""


def faults_of(objectives: Sequence[str]) -> list[str]:
    """The faults of a list of objectives."""
    faults = [
        f"no objective '{name}'{did_you_mean(name, METRICS)}"
        for name in dict.fromkeys(objectives)
        if name not in METRICS
    ]
    faults += [f"'{name}' is given {count} times" for name, count in Counter(objectives).items() if count > 1]
    if objectives[:1] != ACCURACY_ALONE:
        faults.append(f"{OBJECTIVE} must be the first, as it chooses each trial's best epoch")
    return faults


def objectives_of(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """The objectives in a sweep's recorded options. Older sweeps recorded none."""
    return tuple(spec.get("objectives") or ACCURACY_ALONE)


def value_at_rung(epoch: int, metrics: Mapping[str, float], loss_epochs: int) -> float:
    """The value by which a trial competes after an epoch, higher is better.

    Up to `loss_epochs` it is the negative of the val loss, then the accuracy. A trial function of the user may report
    no val loss; then it is the accuracy.
    """
    loss = metrics.get("val_loss") if epoch <= loss_epochs else None
    return metrics[OBJECTIVE] if loss is None else -loss


def rank_in_words(rank: int, count: int, epoch: int, loss_epochs: int) -> str:
    """A trial's rank at a rung in words, with `by val loss` if it is not by accuracy; see `value_at_rung`."""
    return f"rank {rank} of {count}{' by val loss' if epoch <= loss_epochs else ''}"


def costs_in(metrics: Mapping[str, float], objectives: Sequence[str]) -> Costs:
    """The costs among an epoch's metrics; NaN for missing ones."""
    return tuple(metrics.get(METRICS[name], math.nan) for name in objectives[1:])


def merit_of(accuracy: float, costs: Costs) -> tuple[float, ...]:
    """A trial's objectives, all to be minimised, for `tracking.metrics.pareto`."""
    return tuple(math.inf if math.isnan(value) else value for value in (-accuracy, *costs))


def costs_of(epochs: Iterable[Costs]) -> Costs:
    """A trial's costs from those of its epochs: the median of each."""
    return tuple(median(values) for values in zip(*epochs, strict=True))


def in_words(name: str, value: float) -> str:
    """An objective's value with its unit."""
    if not math.isfinite(value):
        return "not known"
    match name:
        case "parameters":
            return f"{value:,.0f}"
        case "seconds":
            return f"{value:.3g} s per epoch"
        case "latency":
            return f"{value:.3g} ms"
        case _:
            return f"{value:.2%}"


def point_in_words(objectives: Sequence[str], values: Sequence[float]) -> str:
    """A point of a front, for example "50.00% at 61,000 parameters and 0.2 ms"."""
    accuracy, *costs = (
        in_words(name, value) + (" parameters" if name == "parameters" else "")
        for name, value in zip(objectives, values, strict=True)
    )
    return f"{accuracy} at {' and '.join(costs)}"
