"""Forecasts the end of a trial's curve, and whether the trial will beat the best one.

A curve is its first value plus a gain times a shape, plus a random walk and noise. The shapes are power laws that begin
at once or later, a flat line, and the curves of the sweep's own complete trials, which have the same schedule. The gain
of each shape is integrated out in closed form, and the shapes are weighted by how well they fit the epochs so far
(Bayesian model averaging). The constants were chosen on half of the table FER-Curves: `docs/search.md`.

Legend: s shapes, n noise levels, t epochs so far, f future epochs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tracking.record.events import OBJECTIVE
from tracking.record.history import SweepHistory, TrialHistory

LEAST_EPOCHS = 2
"""The least number of epochs for a forecast."""
MOST = 100
"""Maximum number of trials that are forecast at once: each takes milliseconds, and thousands may wait at a rung."""
SAMPLES = 200
_POWERS = (0.25, 1.0)
_DELAYS = (0.0, 0.1, 0.25, 0.45)
"""Where a power law begins, as shares of the trial: many nets stay at chance level for some epochs."""
_GAINS = ((0.05, 0.08), (0.2, 0.3))
"""Means and standard deviations of a trial's gain, as shares of the distance to 1."""
_FLAT, _OWN = 0.5, 0.5
"""Prior weight of the flat line among the fixed shapes, and of the sweep's own curves among all shapes."""
_START_SD = 0.06
_NOISES = (0.005, 0.01, 0.02)
_WALK_STEPS = 9
"""Variance of the random walk over a whole trial, as a multiple of the noise variance."""
_MOST_SEEN = _MOST_TO_COME = 12
_MOST_OWN = 20
"""Longer curves are thinned, and only the latest complete trials are used."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Forecast:
    """The best accuracy of a trial at its end if it continues, with an 80 % interval."""

    value: float
    low: float
    high: float
    chance: float | None = None
    """Probability that it ends above the best trial so far. None if there is no other trial."""
    rival: int | None = None
    """That best trial; if this trial is the best, the second best."""

    def __str__(self) -> str:
        found = f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"
        return f"{found}, {self.chance:.0%} to beat trial {self.rival}" if self.chance is not None else found


def forecasts(history: SweepHistory, of: Iterable[TrialHistory] | None = None) -> dict[int, Forecast | None]:
    """Forecasts by number of the unfinished trials, or of those in `of`. None if a trial has too few epochs.

    Also None after the first `MOST` trials: running ones first, then the most accurate.
    """
    unfinished = [trial for trial in (history.unfinished if of is None else of) if not trial.is_over]
    scored = [(one.best_accuracy or 0.0, one.number) for one in history.trials.values() if one.epochs]
    first_two = sorted(scored, key=lambda one: (-one[0], one[1]))[:2]
    found: dict[int, Forecast | None] = dict.fromkeys(trial.number for trial in unfinished)
    for trial in sorted(unfinished, key=lambda one: (one.state != "running", -(one.best_accuracy or 0.0)))[:MOST]:
        samples = end_of(trial, history)
        if samples is None:
            continue
        low, value, high = np.quantile(samples, (0.1, 0.5, 0.9)).tolist()
        others = [one for one in first_two if one[1] != trial.number]
        chance = float((samples > others[0][0]).mean()) if others else None
        found[trial.number] = Forecast(value, low, high, chance, others[0][1] if others else None)
    return found


def end_of(trial: TrialHistory, history: SweepHistory) -> Floats | None:
    """Samples of the trial's best accuracy at its end. None if it has too few epochs."""
    curve, epochs = _curve(trial), trial.started.epochs
    if len(curve) < max(LEAST_EPOCHS, len(trial.epochs)):
        return None
    alike = (one for one in history.trials.values() if one.started.epochs == epochs and one.state == "done")
    complete = [_curve(one) for one in alike]
    return ends(curve, epochs, tuple([one for one in complete if len(one) == epochs][-_MOST_OWN:]))


def _curve(trial: TrialHistory) -> tuple[float, ...]:
    """The finite values of its objective."""
    values = (epoch.metrics[OBJECTIVE] for epoch in trial.epochs)
    return tuple(value for value in values if math.isfinite(value))


@lru_cache(maxsize=2048)
def ends(curve: tuple[float, ...], epochs: int, complete: tuple[tuple[float, ...], ...] = ()) -> Floats:
    """Samples of the best accuracy after `epochs`, given the curve so far and the curves of complete trials."""
    if len(curve) >= epochs:
        return np.full(SAMPLES, max(curve))
    seen = _thinned(0, len(curve), _MOST_SEEN)
    at = np.concatenate([seen, _thinned(len(curve), epochs, _MOST_TO_COME)])
    values, t = np.array(curve)[seen], len(seen)
    shapes, gains, spreads, priors = _shapes(epochs, at, 1.0 - values[0], complete)
    mean = values[0] + gains[:, None] * shapes  # [s, t + f]
    steps = np.minimum.outer(at + 1, at + 1) * _WALK_STEPS / epochs
    noises = np.square(_NOISES)[:, None, None] * (np.eye(len(at)) + steps)  # [n, t + f, t + f]
    signal = (spreads**2)[:, None, None] * shapes[:, :, None] * shapes[:, None, :] + _START_SD**2
    covariance = (signal[:, None] + noises).reshape(-1, len(at), len(at))  # [s n, t + f, t + f]
    mean, priors = np.repeat(mean, len(_NOISES), axis=0), np.repeat(priors, len(_NOISES))
    root = np.linalg.cholesky(covariance[:, :t, :t])
    surprise = np.linalg.solve(root, (values - mean[:, :t])[:, :, None])
    evidence = -0.5 * (surprise[:, :, 0] ** 2).sum(1) - np.log(np.diagonal(root, axis1=1, axis2=2)).sum(1)
    weights = priors * np.exp(evidence - evidence.max())
    rng = np.random.default_rng(0)
    drawn = rng.choice(len(weights), SAMPLES, p=weights / weights.sum())
    picked, place = np.unique(drawn, return_inverse=True)  # only few shapes have weight, so the others are skipped
    across = np.linalg.solve(root[picked], covariance[picked, :t, t:])
    future = mean[picked, t:] + (across * surprise[picked]).sum(1)
    left = covariance[picked, t:, t:] - np.swapaxes(across, 1, 2) @ across
    walks = (np.linalg.cholesky(left)[place] @ rng.standard_normal((SAMPLES, len(at) - t, 1)))[:, :, 0]
    best: Floats = np.maximum((future[place] + walks).max(1), max(curve)).clip(0, 1)
    return best


def _shapes(
    epochs: int, at: NDArray[np.int64], missing: float, complete: Sequence[tuple[float, ...]]
) -> tuple[Floats, Floats, Floats, Floats]:
    """Shapes [s, t + f], the mean and standard deviation of their gains [s], and their prior weights [s]."""
    found: list[tuple[Floats, float, float, float]] = [(np.zeros(len(at)), 0.0, 0.0, _FLAT)]
    weight = (1 - _FLAT) / (len(_DELAYS) * len(_POWERS) * len(_GAINS))
    for delay in _DELAYS:
        since = np.maximum(at + 1 - delay * epochs, 1.0)
        for power in _POWERS:
            whole = 1 - max(epochs * (1 - delay), 2.0) ** -power
            shape = (1 - since**-power) / whole
            found += [(shape, missing * mean, missing * sd, weight) for mean, sd in _GAINS]
    if complete:
        found = [(shape, mean, sd, (1 - _OWN) * weight) for shape, mean, sd, weight in found]
        own = (np.array(curve)[at] - curve[0] for curve in complete)
        found += [(shape, 1.0, 0.5, _OWN / len(complete)) for shape in own]
    shapes, means, spreads, weights = zip(*found, strict=True)
    return np.array(shapes), np.array(means), np.array(spreads), np.array(weights)


def _thinned(first: int, stop: int, most: int) -> NDArray[np.int64]:
    """At most `most` epochs from `first` (counted from 0) to before `stop`, including the first and the last."""
    return np.unique(np.linspace(first, stop - 1, min(stop - first, most)).round().astype(np.int64))
