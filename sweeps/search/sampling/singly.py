"""Samplers that draw each parameter independently, as a share of its range; this includes conditional parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

_POINTS = 1 << 14


class Singly(optuna.samplers.BaseSampler):
    """Base class of samplers without a joint model."""

    def infer_relative_search_space(self, study: optuna.Study, trial: Any) -> dict[str, BaseDistribution]:
        """Nothing is drawn jointly."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: Any, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing is drawn jointly."""
        return {}


class EvenSampler(Singly):
    """Trial n takes point n of a sequence that fills each parameter's range evenly at any length.

    Unlike Optuna's QMCSampler it also covers conditional parameters evenly, and stores only the parameters so far.
    Beyond 16,384 trials it draws at random.
    """

    def __init__(self, seed: int, known: Mapping[str, BaseDistribution], further: int = 0) -> None:
        self._seed, self._known, self._further = seed, known, further
        self._rest = optuna.samplers.RandomSampler(seed=seed % 2**32)

    def sample_independent(
        self, study: optuna.Study, trial: Any, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The parameter's coordinate of the trial's point, as a value of its distribution."""
        place = trial.number - self._further  # a subsequence of the points would not be evenly spread
        if place >= _POINTS:
            return self._rest.sample_independent(study, trial, param_name, param_distribution)
        dimension = list(self._known).index(param_name)
        return value_at(float(_even_points(self._seed, dimension)[place]), param_distribution)


@lru_cache(maxsize=256)
def _even_points(seed: int, dimension: int) -> NDArray[np.float64]:
    """Points [16,384] in 0..1: a van der Corput sequence with nested scrambling (Owen 1995), in a shuffled order.

    Each run of 2^k points, k of 3 or more, that begins at a multiple of 2^k has one in each of 2^k equal intervals.
    Dimensions are independent of each other: in the first points of a Sobol sequence many pairs of them are tied.
    """
    random = np.random.default_rng([seed, dimension])
    points, width = np.zeros(1), 1.0
    while (count := len(points)) < _POINTS:
        # Each interval is halved, and the next points are in the free halves. Their order is shuffled by swapping runs
        # of 1, 2, 4 … points with their neighbours, which keeps the runs together.
        width /= 2
        upper, order = random.integers(2, size=count), np.arange(count)
        for run in 2 ** np.arange(math.log2(count), dtype=np.int64):
            order ^= run * np.repeat(random.integers(2, size=count // (2 * run)), 2 * run)
        free = points + width * (1 - upper)
        points = np.concatenate([points + width * upper, free[order]])
    points += width * random.random(len(points))
    # Of the few orders that keep runs of 2 and 4 together, two dimensions would often have the same one.
    return random.permuted(points.reshape(-1, 8), axis=1).ravel()


def interval_of(distribution: FloatDistribution | IntDistribution) -> tuple[float, float]:
    """The interval in which a number is drawn before it is rounded: every value of a range with steps, also the first
    and the last, is in the middle of one step.
    """
    half = (distribution.step or 0) / 2  # a whole number on a log scale has steps of 1
    return distribution.low - half, distribution.high + half


def value_at(share: float, distribution: BaseDistribution) -> Any:
    """The quantile of the distribution at a share of 0 to 1."""
    if isinstance(distribution, CategoricalDistribution):
        count = len(distribution.choices)
        return distribution.choices[min(int(share * count), count - 1)]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high, step = distribution.low, distribution.high, distribution.step
    first, last = interval_of(distribution)
    if distribution.log:
        value = math.exp(math.log(first) + share * math.log(last / first))
    else:
        value = first + share * (last - first)
    if step is not None:
        value = low + round((value - low) / step) * step
    value = min(max(value, low), high)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)


def share_of(value: Any, distribution: BaseDistribution) -> float:
    """The share of its range, 0 to 1, at which a number is; the inverse of `value_at`."""
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high = interval_of(distribution)
    if distribution.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return float(min(max((value - low) / (high - low), 0.0), 1.0))
