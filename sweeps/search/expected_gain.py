"""What a sweep is expected to gain by half as many trials again, for `--until-gain`.

With half of its trials alone, a sweep's best accuracy would on average be lower by a gain that its values give exactly.
The expected best of random draws is concave in their number, so half as many further draws are expected to gain no more
than that. No form of the distribution is assumed. To it is added what the trials that run now are expected to gain by
their forecasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweeps.search.forecast import end_of
from tracking.record.history import SweepHistory, TrialGroup

LEAST_TRIALS, LEAST_DONE = 30, 5
"""Nothing is said before so many trials were drawn, and so many of them are done."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ExpectedGain:
    """What the running and so many further trials are expected to add to the best val accuracy, in points."""

    trials: int
    points: float


def expected_gain(history: SweepHistory) -> ExpectedGain | None:
    """Of half as many trials again. None if there are too few to say."""
    groups = [one for one in history.groups() if one.confirms is None]
    drawn = [one for one in groups if _is_drawn(one) and (one.accuracies or one.first.is_over)]
    done = sum(one.first.state == "done" for one in drawn)
    if len(drawn) < LEAST_TRIALS or done < LEAST_DONE:
        return None
    best = max(one.mean for one in groups if one.accuracies)
    others = max((one.mean for one in groups if one.accuracies and not _is_drawn(one)), default=0.0)
    values = [max(one.mean if one.accuracies else 0.0, others) for one in drawn]
    running = [end_of(one.first, history) for one in groups if one.first.state == "running"]
    ahead = len(values) // 2
    gain = gain_of_draws(values, ahead) + gain_of_running([one for one in running if one is not None], best)
    return ExpectedGain(ahead, 100 * gain)


def gain_of_draws(values: Sequence[float], count: int) -> float:
    """How much lower the greatest value is where `count` of them, fewer than all, are left out at random; the mean."""
    ranked, n = np.sort(np.array(values))[::-1], len(values)
    place = np.arange(count)
    all_left_out = np.cumprod((count - place) / (n - place))  # the greatest one, the greatest two, …
    return float((all_left_out * -np.diff(ranked[: len(place) + 1])).sum())


def gain_of_running(ends: Sequence[Floats], best: float) -> float:
    """By how much the trials of these forecasts together are expected to end above `best`."""
    if not ends:
        return 0.0
    rng = np.random.default_rng(0)  # as the samples of two forecasts go together
    highest = np.max([rng.permutation(samples) for samples in ends], axis=0)
    return float(np.maximum(highest - best, 0.0).mean())


def _is_drawn(group: TrialGroup) -> bool:
    return group.first.started.baseline is None and group.first.started.wanted is None
