"""A sweep's Pareto front: the trials that no other trial dominates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tracking.metrics.pareto import fronts, hypervolume
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.objectives import merit_of, objectives_of


@dataclass(frozen=True)
class Scored:
    """A trial with the values of the sweep's objectives, in their order; for a group with the mean accuracy."""

    trial: TrialHistory
    values: tuple[float, ...]
    is_on_front: bool


def scored_trials(history: SweepHistory, *, over: bool = False) -> list[Scored]:
    """The trials that have an epoch and have not failed, the most accurate first. Empty if the sweep has one objective.

    With `over` only trials that are over; of a group, all members must be.
    """
    objectives = objectives_of(history.spec)
    if len(objectives) == 1:
        return []
    groups = [
        group
        for group in history.groups()
        if group.accuracies and group.confirms is None and group.first.best_accuracy is not None
        if not (group.first.end and group.first.end.drops_out)
        if not over or all(trial.is_over for trial in group.members.values())
    ]
    values = [(group.mean, *group.first.costs(objectives)) for group in groups]
    if not values:
        return []
    on_front = fronts(-np.array([merit_of(accuracy, tuple(costs)) for accuracy, *costs in values])) == 0
    found = [
        Scored(group.first, own, bool(front) and np.isfinite(own).all().item())
        for group, own, front in zip(groups, values, on_front, strict=True)
    ]
    return sorted(found, key=lambda one: -one.values[0])


def pareto_front(history: SweepHistory, *, over: bool = False) -> list[Scored]:
    """The trials on the Pareto front, the most accurate first."""
    return [one for one in scored_trials(history, over=over) if one.is_on_front]


def highest_costs(scored: Iterable[Scored]) -> tuple[float, ...]:
    """The highest finite cost of any trial, for each objective other than the accuracy."""
    costs = np.array([one.values[1:] for one in scored], float)
    return tuple(np.where(np.isfinite(costs), costs, 0.0).max(axis=0).tolist()) if len(costs) else ()


def front_volume(front: Sequence[Scored], highest: Sequence[float]) -> float:
    """The hypervolume of a front, in 0..1.

    It is 1 for an accuracy of 1 at no cost, and 0 if nothing is better than an accuracy of 0 at the costs `highest`.
    Fronts are comparable if `highest` is the same.
    """
    scale = np.where(np.array(highest) > 0, highest, 1.0)
    return hypervolume(np.array([(1 - one.values[0], *(np.array(one.values[1:]) / scale)) for one in front]))
