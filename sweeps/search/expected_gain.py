"""Expected gain of half as many further trials, for `--until-gain`.

With a random half of its trials, a sweep's best accuracy would be lower on average; the difference is computed exactly
from the values. The expected best of random draws is concave in their number, so half as many further draws gain no
more than that on average. No distribution is assumed. The expected gain of the running trials, by their forecasts, is
added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from sweeps.search.forecast import end_of
from sweeps.trial.messages import OBJECTIVE
from tracking.record.history import SweepHistory, TrialGroup

LEAST_TRIALS, LEAST_DONE = 30, 5
"""The estimate needs this many drawn trials, of which this many are done."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ExpectedGain:
    """The expected gain in best val accuracy, in points, by the running trials and `trials` further ones."""

    trials: int
    points: float


def expected_gain(history: SweepHistory) -> ExpectedGain | None:
    """The gain by half as many further trials. None if there are too few trials for an estimate."""
    groups = [one for one in history.groups() if one.confirms is None]
    drawn = [one for one in groups if _is_drawn(one) and (one.accuracies or one.first.is_over)]
    done = sum(one.first.state == "done" for one in drawn)
    if len(drawn) < LEAST_TRIALS or done < LEAST_DONE:
        return None
    best = max(one.mean for one in groups if one.accuracies)
    others = max((one.mean for one in groups if one.accuracies and not _is_drawn(one)), default=0.0)
    values = [max(_value_of(one), others) for one in drawn]
    running = [end_of(one.first, history) for one in groups if one.first.state == "running"]
    ahead = len(values) // 2
    gain = gain_of_draws(values, ahead) + gain_of_running([one for one in running if one is not None], best)
    return ExpectedGain(ahead, 100 * gain)


def gain_of_draws(values: Sequence[float], count: int) -> float:
    """How much lower the maximum is on average if `count` random values (fewer than all) are left out."""
    ranked, n = np.sort(np.array(values))[::-1], len(values)
    place = np.arange(count)
    all_left_out = np.cumprod((count - place) / (n - place))  # P(the largest, the two largest, … are left out)
    return float((all_left_out * -np.diff(ranked[: len(place) + 1])).sum())


def gain_of_running(ends: Sequence[Floats], best: float) -> float:
    """By how much the best of these forecasts is expected to exceed `best`."""
    if not ends:
        return 0.0
    rng = np.random.default_rng(0)  # since the samples of different forecasts are correlated
    highest = np.max([rng.permutation(samples) for samples in ends], axis=0)
    return float(np.maximum(highest - best, 0.0).mean())


def _value_of(group: TrialGroup) -> float:
    """Its mean, or the result of equal trials that its own reuse; 0 if it has none."""
    if group.accuracies:
        return group.mean
    ends = [trial.end.best for trial in group.members.values() if trial.end]
    reused = [best[f"best_{OBJECTIVE}"] for best in ends if f"best_{OBJECTIVE}" in best]
    return fmean(reused) if reused else 0.0


def _is_drawn(group: TrialGroup) -> bool:
    return group.first.started.baseline is None and group.first.started.wanted is None
