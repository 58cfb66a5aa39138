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

_SOBOL_DIMENSIONS = 64
_SOBOL_POINTS = 1 << 14


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


class SobolSampler(Singly):
    """A scrambled, shuffled Sobol sequence: trial n is its n-th point, and each parameter has its own dimension.

    Unlike Optuna's QMCSampler it also covers conditional parameters evenly, and stores only the parameters so far.
    Beyond 64 parameters or 16,384 trials it draws at random.
    """

    def __init__(self, seed: int, known: Mapping[str, BaseDistribution], further: int = 0) -> None:
        self._seed, self._known, self._further = seed, known, further
        self._rest = optuna.samplers.RandomSampler(seed=seed % 2**32)

    def sample_independent(
        self, study: optuna.Study, trial: Any, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The parameter's coordinate of the trial's point, as a value of its distribution."""
        dimension = list(self._known).index(param_name)
        place = trial.number - self._further  # a subsequence of the points would not be evenly spread
        if dimension >= _SOBOL_DIMENSIONS or place >= _SOBOL_POINTS:
            return self._rest.sample_independent(study, trial, param_name, param_distribution)
        return value_at(float(_sobol(self._seed)[place, dimension]), param_distribution)


@lru_cache(maxsize=4)
def _sobol(seed: int) -> NDArray[np.float64]:
    from scipy.stats import qmc

    points: NDArray[np.float64] = qmc.Sobol(_SOBOL_DIMENSIONS, rng=np.random.default_rng(seed)).random(_SOBOL_POINTS)
    # In the first points many dimensions are tied. Each is therefore shuffled separately within every eight points, and
    # stays as even.
    eights = points.reshape(-1, 8, _SOBOL_DIMENSIONS)
    return np.random.default_rng([seed, 1]).permuted(eights, axis=1).reshape(points.shape)


def value_at(share: float, distribution: BaseDistribution) -> Any:
    """The quantile of the distribution at a share of 0 to 1."""
    if isinstance(distribution, CategoricalDistribution):
        count = len(distribution.choices)
        return distribution.choices[min(int(share * count), count - 1)]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high, step = distribution.low, distribution.high, distribution.step
    whole = isinstance(distribution, IntDistribution)
    half = (step or 0) / 2
    if distribution.log:
        # A whole number has the unit interval around it.
        around = 0.5 if whole else 0.0
        value = math.exp(math.log(low - around) + share * math.log((high + around) / (low - around)))
    else:
        value = low - half + share * (high - low + 2 * half)
    if step is not None and not (distribution.log and not whole):
        value = low + round((value - low) / step) * step
    value = min(max(value, low), high)
    return int(value) if whole else float(value)


def share_of(value: Any, distribution: BaseDistribution) -> float:
    """The share of its range, 0 to 1, at which a number is; the inverse of `value_at`."""
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high = float(distribution.low), float(distribution.high)
    around = 0.5 if isinstance(distribution, IntDistribution) and distribution.log else 0.0
    half = 0.0 if distribution.log else (distribution.step or 0) / 2
    low, high = low - around - half, high + around + half
    if distribution.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return float(min(max((value - low) / (high - low), 0.0), 1.0))
