"""The share of the objective's variance that each setting explains (fANOVA, Hutter et al. 2014), with intervals."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial, create_trial

from tracking.figures.search_figures import Setting, searched_settings
from tracking.metrics.scores import Interval
from tracking.record.history import SweepHistory, TrialHistory

LEAST_TRIALS = 30
"""With fewer trials a setting without any effect can get a third by chance."""

_BOOTSTRAPS = 10
_TREES = 32


def importances(history: SweepHistory) -> dict[str, Interval]:
    """Shares that sum to 1, largest first, with 90 % bootstrap intervals, from the sampler's finished trials.

    Only for settings that all of these trials have, each on its scale. Empty if there are too few trials.
    """
    trials = [
        trial
        for trial in history.trials.values()
        if trial.state == "done" and trial.started.params and trial.best_accuracy
    ]
    settings = [one for one in searched_settings(history) if all(one.name in trial.started.params for trial in trials)]
    settings = [one for one in settings if len({str(trial.started.params[one.name]) for trial in trials}) > 1]
    if len(trials) < LEAST_TRIALS or not settings:
        return {}
    points = [_point(trial, settings) for trial in trials]
    draws = np.random.default_rng(0).integers(len(points), size=(_BOOTSTRAPS, len(points)))
    shares = [_shares([points[index] for index in draw], seed) for seed, draw in enumerate(draws)]
    if any(share is None for share in shares):
        return {}  # all trials are equally good
    found = {one.name: [share[one.name] for share in shares if share] for one in settings}
    intervals = {name: _interval(values) for name, values in found.items()}
    return dict(sorted(intervals.items(), key=lambda item: -item[1].value))


def _point(trial: TrialHistory, settings: Sequence[Setting]) -> FrozenTrial:
    """A trial with its settings' positions on their axes; a logarithmic axis uses the logarithm."""
    distributions: dict[str, BaseDistribution] = {
        one.name: CategoricalDistribution(range(len(one.choices))) if one.choices else FloatDistribution(0, 1)
        for one in settings
    }
    places = {one.name: one.position(trial.started.params[one.name]) for one in settings}
    params = {
        one.name: round(places[one.name] * (len(one.choices) - 1)) if one.choices else min(max(places[one.name], 0), 1)
        for one in settings
    }
    return create_trial(params=params, distributions=distributions, value=trial.best_accuracy)


def _shares(points: Sequence[FrozenTrial], seed: int) -> dict[str, float] | None:
    """None if all points have the same value."""
    study = optuna.create_study(direction="maximize")
    study.add_trials(points)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = FanovaImportanceEvaluator(n_trees=_TREES, seed=seed).evaluate(study)
        except RuntimeError:
            return None
    total = sum(found.values())
    return {name: value / total for name, value in found.items()} if total > 0 else None


def _interval(values: Sequence[float]) -> Interval:
    low, high = np.quantile(values, [0.05, 0.95])
    return Interval(float(np.mean(values)), float(low), float(high))
