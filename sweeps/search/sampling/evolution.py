"""Evolutionary samplers: CMA-ES (Hansen 2016) and NSGA-II (Deb et al. 2002).

Optuna's own classes store their generations with the trials, which the journal does not record. These classes depend
only on what was learned from the trials and in which order, so that a resumed sweep proposes the same as an
uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from sweeps.search.asked_trial import is_inside
from sweeps.search.lessons import First
from sweeps.search.sampling.singly import Singly, share_of, value_at
from tracking.metrics.pareto import ranked

if TYPE_CHECKING:
    from cmaes import CMA

_FIRST_SPREAD = 0.3
"""Standard deviation of the first generation, as a share of each range: about that of a uniform distribution."""

_POPULATION = 20
"""Size of the population of parents; as many trials are first drawn at random."""

_STEP = 0.1
"""Standard deviation of a mutated number, as a share of its range."""


class CmaSampler(Singly):
    """A normal distribution over all parameters, which each generation of trials updates.

    A generation is the next few trials from which the sampler learned, in that order, so no slot waits for a
    generation. Trials are ranked by what was first learned from them, which is after equal epochs if trials wait at
    rungs.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._known: dict[str, BaseDistribution] = {}
        self._cma: CMA | None = None
        self._taken = 0  # number of learned trials that were used
        self._point: dict[str, float] = {}
        self._rest = optuna.samplers.RandomSampler(seed=0)

    def prepare(self, seed: int, known: Mapping[str, BaseDistribution], firsts: Sequence[First]) -> CmaSampler:
        """Prepare to draw one trial with its own random numbers; `firsts` only grows."""
        numbers = {name: one for name, one in known.items() if not _is_choice(one) and not one.single()}
        if numbers.keys() != self._known.keys():
            from cmaes import CMA  # it loads scipy.stats, which other samplers do not need

            mean = np.full(len(numbers), 0.5)
            bounds = np.tile([0.0, 1.0], (len(numbers), 1))
            self._cma = CMA(mean, _FIRST_SPREAD, bounds, seed=self._seed % 2**32)
            self._known, self._taken = numbers, 0
        self._rest = optuna.samplers.RandomSampler(seed=seed)
        self._point = {}
        if self._cma is not None:
            self._learn(self._cma, firsts)
            self._cma.reseed_rng(seed)
            self._point = dict(zip(numbers, map(float, self._cma.ask()), strict=True))
        return self

    def _learn(self, cma: CMA, firsts: Sequence[First]) -> None:
        while self._taken + cma.population_size <= len(firsts):
            generation = firsts[self._taken : self._taken + cma.population_size]
            places = sorted({one.place for one in generation})
            cma.tell([(self._shares(one.params), float(places.index(one.place))) for one in generation])
            self._taken += cma.population_size

    def _shares(self, params: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([share_of(params[name], one) if name in params else 0.5 for name, one in self._known.items()])

    def sample_independent(
        self, study: optuna.Study, trial: Any, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The parameter's coordinate of the drawn point; a random value for a new parameter or a choice."""
        if param_name not in self._point or _is_choice(param_distribution):
            return self._rest.sample_independent(study, trial, param_name, param_distribution)
        return value_at(self._point[param_name], param_distribution)


class NsgaSampler(Singly):
    """Each parameter comes from one of two parents, which are among the best trials so far. On average one parameter
    per trial is mutated: a number by a small step, a choice at random.

    It has no generations: new results become parents at once, also if many trials run in parallel.
    """

    def __init__(self, seed: int, known: Mapping[str, BaseDistribution]) -> None:
        self._known = known
        self._random = np.random.default_rng(seed)
        self._rest = optuna.samplers.RandomSampler(seed=seed)
        self._parents: tuple[FrozenTrial, FrozenTrial] | None = None

    def before_trial(self, study: optuna.Study, trial: Any) -> None:
        """Choose the parents: each is the better of two random members of the population."""
        complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        if len(complete) < _POPULATION:
            return
        signs = np.array([1.0 if one == optuna.study.StudyDirection.MAXIMIZE else -1.0 for one in study.directions])
        best = ranked(np.array([one.values for one in complete]) * signs)[:_POPULATION]
        first, second = (complete[best[int(self._random.integers(len(best), size=2).min())]] for _ in range(2))
        self._parents = first, second

    def sample_independent(
        self, study: optuna.Study, trial: Any, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A parent's value, mutated or not; a random one if no parent has a value in the range."""
        inherited = list(self._inherited(param_name, param_distribution))
        is_mutated = self._random.random() < 1 / max(len(self._known), 1)
        if not inherited or (is_mutated and _is_choice(param_distribution)):
            return self._rest.sample_independent(study, trial, param_name, param_distribution)
        value = inherited[int(self._random.integers(len(inherited)))]
        if not is_mutated or param_distribution.single():
            return value
        share = share_of(value, param_distribution) + self._random.normal(0, _STEP)
        return value_at(float(np.clip(share, 0, 1)), param_distribution)

    def _inherited(self, name: str, distribution: BaseDistribution) -> Iterator[Any]:
        for parent in self._parents or ():
            if name in parent.params and is_inside(distribution, parent.params[name]):
                yield parent.params[name]


def _is_choice(distribution: BaseDistribution) -> bool:
    return isinstance(distribution, CategoricalDistribution)
