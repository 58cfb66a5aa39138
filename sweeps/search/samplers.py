"""Samplers: Optuna's, a low-discrepancy sequence, evolution, or the points of a grid.

A sampler is rebuilt for each proposal from the sweep's seed and the trial's number, so that a resumed sweep proposes
the same as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from fer_common.errors import did_you_mean
from sweeps.errors import InputError
from sweeps.search.asked_trial import AskedTrial, in_words, is_inside
from sweeps.search.sampling.evolution import NsgaSampler
from sweeps.search.sampling.singly import EvenSampler, interval_of, value_at
from sweeps.search.seeds import derive_seed
from sweeps.space import Prior, Sampler, Space

_MOST_POINTS = 10_000
_NAMES_SHOWN = 8
_RANDOM_FIRST = 10
"""Number of random trials before TPE and the Gaussian process learn."""
_SPREAD_FIRST = 30
"""Number of evenly spread trials of qmc-tpe before it uses TPE."""
_TPE_EVERY = 4
"""Then TPE draws one trial of this many; the others remain evenly spread. When it drew all, simulated sweeps with 4 and
16 workers needed a quarter longer or more (docs/search.md)."""

DRAWS_FOR_NAMES = 200
"""Number of random draws to find all parameters of a space."""


def make_sampler(
    kind: Sampler,
    seed: int,
    number: int,
    known: Mapping[str, BaseDistribution],
    further: int = 0,
    taught: int = 0,
    near_priors: int = 0,
) -> optuna.samplers.BaseSampler:
    """The sampler for trial `number` of a sweep. `known` has the parameters so far, in the order of their appearance.

    `further` is the number of earlier trials that repeat a configuration and were not proposed. `taught` is the number
    of trials of other sweeps that the sampler learns from; they count among the evenly spread trials of qmc-tpe. If
    they replace all of these, TPE draws every trial: the user asked to begin where the others ended.
    `near_priors` is the number of trials drawn near priors; they do not count among the first trials of a model, since
    with wrong priors it would have too few. The points of a grid are given to the study, so its sampler draws nothing.
    """
    after = number - further + taught - near_priors - _SPREAD_FIRST
    every = 1 if taught >= _SPREAD_FIRST else _TPE_EVERY
    if kind == "qmc-tpe" and (after < 0 or after % every != every - 1):
        return EvenSampler(seed, known, further + max(after, 0) // every)
    if kind == "qmc":
        return EvenSampler(seed, known, further)
    seed = derive_seed(seed, "sampler", number) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if kind in ("tpe", "qmc-tpe"):
            # `group` lets TPE's joint model work with conditional parameters.
            return optuna.samplers.TPESampler(
                seed=seed, multivariate=True, group=True, n_startup_trials=_RANDOM_FIRST + near_priors
            )
        if kind == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=_RANDOM_FIRST + near_priors)
    if kind == "nsgaii":
        return NsgaSampler(seed, known)
    return optuna.samplers.RandomSampler(seed=seed)


def is_turn_of_priors(drawn: int) -> bool:
    """Whether the next trial, after `drawn` drawn ones, is drawn near the priors: the 2nd, 4th, 8th, 16th … are.

    The first is not: it leads at its rungs whatever its value, and would be trained to its end.
    """
    return drawn > 0 and drawn & (drawn + 1) == 0


def turns_of_priors(drawn: int) -> int:
    """How many of the first `drawn` trials were drawn near the priors."""
    return max(drawn.bit_length() - 1, 0)


class PriorSampler(optuna.samplers.BaseSampler):
    """Draws parameters with a prior near that prior; `others` draws the rest."""

    def __init__(self, priors: Mapping[str, Prior], others: optuna.samplers.BaseSampler, seed: int) -> None:
        self._priors, self._others, self._random = priors, others, np.random.default_rng(seed)

    def before_trial(self, study: optuna.Study, trial: Any) -> None:
        """As `others`, which may choose parents here."""
        self._others.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: Any) -> dict[str, BaseDistribution]:
        """The search space of `others`, without the parameters that have a prior."""
        space = self._others.infer_relative_search_space(study, trial)
        return {name: one for name, one in space.items() if name not in self._priors}

    def sample_relative(
        self, study: optuna.Study, trial: Any, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As `others`."""
        return self._others.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: Any, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Near the prior, if there is one with its centre in range."""
        prior = self._priors.get(param_name)
        if prior is None or not is_inside(param_distribution, prior.centre):
            return self._others.sample_independent(study, trial, param_name, param_distribution)
        return _near(prior, param_distribution, self._random)


def _near(prior: Prior, distribution: BaseDistribution, random: np.random.Generator) -> Any:
    """A sample of a normal distribution around the centre, truncated to the range."""
    if isinstance(distribution, CategoricalDistribution):
        return prior.centre if random.random() < 0.5 else value_at(float(random.random()), distribution)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    if distribution.low == distribution.high:
        return distribution.low
    from scipy.stats import truncnorm

    scale = math.log10 if distribution.log else float
    spread = prior.spread or (scale(distribution.high) - scale(distribution.low)) / 10
    low, high = map(scale, interval_of(distribution))
    centre = scale(prior.centre)
    drawn = truncnorm.rvs((low - centre) / spread, (high - centre) / spread, centre, spread, random_state=random)
    return value_at(float((drawn - low) / (high - low)), distribution)


def check_priors(space: Space, trials: Iterable[Any]) -> None:
    """Raise InputError with every prior that does not fit the space; `trials` are random trials to draw with."""
    if not space.priors:
        return
    faulty = dict(space.expected)
    drawn: dict[str, BaseDistribution] = {}
    for trial in islice(trials, DRAWS_FOR_NAMES):
        with contextlib.suppress(InputError):  # a failed draw has parameters, too
            space.draw(trial)
        for name, distribution in trial.distributions.items():
            drawn.setdefault(name, distribution)
            if name in faulty and is_inside(distribution, faulty[name].centre):
                del faulty[name]
        if not faulty:
            return  # most spaces draw every parameter in the first trials
    faults = [
        f"'{name}' {prior.centre!r}: the space has {in_words(drawn[name])}"
        if name in drawn
        else f"no parameter '{name}'{did_you_mean(name, drawn)}"
        for name, prior in faulty.items()
    ]
    raise InputError(f"priors of {space.name}: {'; '.join(faults)}")


_MODELS = {"gp": "a Gaussian process", "cmaes": "CMA-ES"}
"""Samplers that need every parameter in every trial."""


def needs_all(sampler: Sampler) -> str:
    """The name of the model that needs every parameter in every trial; empty if the sampler does not."""
    return _MODELS.get(sampler, "")


def check_sampler(space: Space, trials: Iterable[Any]) -> None:
    """Raise InputError if the sampler does not support the space; `trials` are random trials to draw with."""
    model = needs_all(space.sampler)
    if not model:
        return
    drawn: list[set[str]] = []
    choices = set[str]()
    for trial in islice(trials, 40):
        space.draw(trial)
        drawn.append(set(trial.distributions))
        choices |= {
            name
            for name, one in trial.distributions.items()
            if isinstance(one, CategoricalDistribution) and not one.single()
        }
    everywhere = drawn[0].intersection(*drawn)
    faults = []
    if sometimes := sorted(set[str]().union(*drawn) - everywhere):
        are = "is" if len(sometimes) == 1 else "are"
        faults.append(
            f"{_named(sometimes)} of {space.name} {are} drawn in some trials only, which {model} cannot model"
        )
    if choices and space.sampler == "cmaes":
        are = "is a choice" if len(choices) == 1 else "are choices"
        faults.append(f"{_named(sorted(choices))} of {space.name} {are}, and {model} searches only numbers")
    if faults:
        other = "nsgaii" if space.sampler == "cmaes" else "tpe"
        raise InputError(
            f"--sampler {space.sampler}: {'; '.join(faults)}; use --sampler {other}, or --set what decides it"
        )


def grid_points(space: Space) -> list[dict[str, Any]]:
    """Every combination that `suggest` can draw, conditional parameters included, in a fixed order.

    Raises InputError if a parameter is a continuous range, or there are too many points.
    """
    points, continuous = [], set[str]()
    prefixes: list[dict[str, Any]] = [{}]
    while prefixes:
        given = prefixes.pop()
        trial = _GridTrial(given)
        try:
            space.draw(AskedTrial(trial, {}))
            points.append(trial.params)
        except InputError:
            if not trial.choices and not given:
                raise  # refused for all draws
        continuous |= trial.continuous
        prefixes += trial.siblings()
        if len(points) + len(prefixes) > _MOST_POINTS:
            break
    if continuous:
        raise InputError(
            f"--sampler grid: {_named(sorted(continuous))} of {space.name}: a range without steps has no grid; give it "
            "step= or choices, fix it with --set, or use --sampler qmc, which spreads trials evenly over ranges"
        )
    if len(points) + len(prefixes) > _MOST_POINTS:
        raise InputError(
            f"--sampler grid: {space.name} has more than {_MOST_POINTS:,} combinations; give fewer choices, or use "
            "--sampler qmc"
        )
    return points


def whole_grid(space: Space) -> int:
    """The number of trials of a whole grid: the baselines and every combination."""
    return len(space.baselines) + len(grid_points(space))


def refuse_beyond_grid(space: Space, trials: int, wanted: int = 0) -> None:
    """Raise InputError for more trials than a grid has points, besides `wanted` ones that persons asked for."""
    if space.sampler == "grid" and trials > (most := whole_grid(space) + wanted):
        baselines = f" and {len(space.baselines)} baselines" if space.baselines else ""
        points = most - wanted - len(space.baselines)
        raise InputError(f"--trials {trials}: the grid of {space.name} has {points} points{baselines}; "
                         f"give at most {most}")  # fmt: skip


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:_NAMES_SHOWN]) + more


class _GridTrial:
    """A trial for `suggest` that returns given values, and for all other parameters the first choice."""

    number = 0

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self.params: dict[str, Any] = {}
        self.choices: dict[str, list[Any]] = {}
        self.continuous: set[str] = set()

    def siblings(self) -> Iterator[dict[str, Any]]:
        """The values that lead to the other choices of each parameter that was not given."""
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
        values = [low]
        if step is not None:
            top = FloatDistribution(low, high, step=step).high  # low + place * step may be above it by rounding
            values = [min(low + place * step, top) for place in range(round((top - low) / step) + 1)]
        elif low != high:
            self.continuous.add(name)
        return float(self._take(name, values))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """As Optuna's."""
        return int(self._take(name, list(range(low, high + 1, step))))

    def suggest_categorical(self, name: str, choices: Iterable[Any]) -> Any:
        """As Optuna's."""
        return self._take(name, list(choices))
