"""How proposals are drawn: by Optuna's samplers, by a low-discrepancy sequence, or from the points of a grid.

A sampler is rebuilt for each proposal from the sweep's seed and the trial's number, so that a resumed sweep proposes
what an undisturbed one would.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sweeps.errors import InputError
from sweeps.planning.asked_trial import plain
from sweeps.planning.seeds import derive_seed
from sweeps.space import Sampler, Space

_MOST_POINTS = 10_000
_NAMES_SHOWN = 8
_SPREAD_FIRST = 30
"""Trials that qmc-tpe spreads evenly before TPE learns from them."""

_SOBOL_DIMENSIONS = 64
_SOBOL_POINTS = 1 << 14


def make_sampler(
    kind: Sampler, seed: int, number: int, known: Mapping[str, BaseDistribution], further: int = 0, taught: int = 0
) -> optuna.samplers.BaseSampler:
    """The sampler for trial `number` of a sweep, whose parameters so far are `known`, in the order of their appearance.

    `further` of the trials before were not proposed, but train again what others began. `taught` are the trials of
    other sweeps that the sampler learns from: they count among those that qmc-tpe has before TPE.
    The points of a grid are given to the study, so that nothing is left to draw.
    """
    if kind == "qmc" or (kind == "qmc-tpe" and number - further + taught < _SPREAD_FIRST):
        return SobolSampler(seed, known, further)
    seed = derive_seed(seed, "sampler", number) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if kind in ("tpe", "qmc-tpe"):
            # `group` is what keeps TPE's joint model usable beside conditional parameters.
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)
        if kind == "gp":
            return optuna.samplers.GPSampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


class SobolSampler(optuna.samplers.BaseSampler):
    """A scrambled Sobol sequence: trial n is its n-th point, and each parameter has a dimension of its own.

    Unlike Optuna's QMCSampler it covers conditional parameters as evenly, and needs no memory besides the parameters
    met so far. Beyond 64 parameters or 16,384 trials it draws at random.
    """

    def __init__(self, seed: int, known: Mapping[str, BaseDistribution], further: int = 0) -> None:
        self._seed, self._known, self._further = seed, known, further
        self._rest = optuna.samplers.RandomSampler(seed=seed % 2**32)

    def infer_relative_search_space(self, study: optuna.Study, trial: Any) -> dict[str, BaseDistribution]:
        """Nothing is drawn jointly."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: Any, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing is drawn jointly."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: Any, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The parameter's coordinate of the trial's point, as a value of its distribution."""
        dimension = list(self._known).index(param_name)
        place = trial.number - self._further  # every n-th point alone would not be spread evenly
        if dimension >= _SOBOL_DIMENSIONS or place >= _SOBOL_POINTS:
            return self._rest.sample_independent(study, trial, param_name, param_distribution)
        return value_at(float(_sobol(self._seed)[place, dimension]), param_distribution)


@lru_cache(maxsize=4)
def _sobol(seed: int) -> NDArray[np.float64]:
    from scipy.stats import qmc

    points: NDArray[np.float64] = qmc.Sobol(_SOBOL_DIMENSIONS, rng=np.random.default_rng(seed)).random(_SOBOL_POINTS)
    return points


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
        # A whole number covers the unit interval around it.
        around = 0.5 if whole else 0.0
        value = math.exp(math.log(low - around) + share * math.log((high + around) / (low - around)))
    else:
        value = low - half + share * (high - low + 2 * half)
    if step is not None and not (distribution.log and not whole):
        value = low + round((value - low) / step) * step
    value = min(max(value, low), high)
    return int(value) if whole else float(value)


def check_sampler(space: Space, trials: Iterable[Any]) -> None:
    """Raise InputError where the sampler cannot do the space; `trials` are random ones to draw from it."""
    if space.sampler != "gp":
        return
    drawn = []
    for trial in islice(trials, 40):
        space.draw(trial)
        drawn.append(set(trial.distributions))
    if sometimes := sorted(set().union(*drawn) - set.intersection(*drawn)):
        raise InputError(
            f"--sampler gp: {_named(sometimes)} of {space.name} {'is' if len(sometimes) == 1 else 'are'} drawn in some "
            "trials only, which a Gaussian process cannot model; take --sampler tpe, or --set what decides it"
        )


def grid_points(space: Space) -> list[dict[str, Any]]:
    """Every combination that `suggest` can draw, conditional parameters included, in a fixed order.

    Raises InputError where a parameter is a continuous range, or there are too many points.
    """
    points, continuous = [], set[str]()
    prefixes: list[dict[str, Any]] = [{}]
    while prefixes:
        given = prefixes.pop()
        trial = _GridTrial(given)
        try:
            space.draw(trial)
            points.append(trial.params)
        except InputError:
            if not trial.choices and not given:
                raise  # refused whatever is drawn
        continuous |= trial.continuous
        prefixes += trial.siblings()
        if len(points) + len(prefixes) > _MOST_POINTS:
            break
    if continuous:
        raise InputError(
            f"--sampler grid: {_named(sorted(continuous))} of {space.name}: a range without steps has no grid; give it "
            "step= or choices, fix it by --set, or take --sampler qmc, which spreads trials evenly over ranges"
        )
    if len(points) + len(prefixes) > _MOST_POINTS:
        raise InputError(
            f"--sampler grid: {space.name} has more than {_MOST_POINTS:,} combinations; give fewer choices, or take "
            "--sampler qmc"
        )
    return points


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:_NAMES_SHOWN]) + more


class _GridTrial:
    """A trial for `suggest` that has the values `params`, and the first choice of what else it is asked for."""

    number = 0

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self.params: dict[str, Any] = {}
        self.choices: dict[str, list[Any]] = {}
        self.continuous: set[str] = set()

    def siblings(self) -> Iterator[dict[str, Any]]:
        """What leads to the other choices of each parameter that was not given."""
        names = list(self.params)
        for place, name in enumerate(names):
            before = {one: self.params[one] for one in names[:place]}
            for other in self.choices.get(name, [])[1:]:
                yield before | {name: other}

    def _take(self, name: str, values: list[Any]) -> Any:
        if name in self.params:
            return self.params[name]
        if name not in self._given:
            self.choices[name] = values
        self.params[name] = self._given.get(name, values[0])
        return self.params[name]

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """As Optuna's."""
        if step is None and low != high:
            self.continuous.add(name)
        count = 0 if step is None else math.floor((high - low) / step + 1e-9)
        return float(self._take(name, [float(low + place * (step or 0)) for place in range(count + 1)]))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """As Optuna's."""
        return int(self._take(name, list(range(int(low), int(high) + 1, int(step)))))

    def suggest_categorical(self, name: str, choices: Iterable[Any]) -> Any:
        """As Optuna's."""
        choices = list(choices)
        plains = [plain(name, choice) for choice in choices]
        return choices[plains.index(self._take(name, plains))]
