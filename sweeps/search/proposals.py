"""Proposes a sweep's next configuration: from a sampler, from a grid, or from the offers of other sweeps."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import JournalStorage

from sweeps.config import TrialConfig
from sweeps.search.asked_trial import AskedTrial
from sweeps.search.drawn_as import drawn_from_other
from sweeps.search.lessons import First
from sweeps.search.samplers import PriorSampler, grid_points, is_turn_of_priors, make_sampler, turns_of_priors
from sweeps.search.sampling.evolution import CmaSampler
from sweeps.search.seeds import derive_seed
from sweeps.search.study_storage import OwnLog
from sweeps.space import Space
from tracking.record.events import SweepStarted, TrialStarted


def random_trials(seed: int, known: Mapping[str, BaseDistribution] = MappingProxyType({})) -> Iterator[AskedTrial]:
    """Random trials for `suggest`, to inspect a space before a sweep.

    `known` has the parameters of a resumed sweep.
    """
    storage = JournalStorage(OwnLog(Path(os.devnull)))  # accepts the same values as a sweep's storage
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=seed % 2**32))
    seen = dict(known)
    while True:
        yield AskedTrial(study.ask(), seen)


def drawn_parameters(starts: Iterable[TrialStarted]) -> dict[str, BaseDistribution]:
    """The parameters of the drawn trials, each as first seen."""
    known: dict[str, BaseDistribution] = {}
    for started in starts:
        for name, text in started.distributions.items():
            known.setdefault(name, json_to_distribution(text))
    return known


@dataclass(frozen=True)
class Proposal:
    """A configuration, with the values and distributions it was drawn from, from which the study is rebuilt.

    `config` is None if `suggest` failed; `fault` is the reason.
    """

    config: TrialConfig | None
    params: dict[str, Any]
    distributions: dict[str, str]
    fault: str | None = None


class Proposals:
    """Draws a sweep's trials. Random numbers depend only on the seed and the trial's number."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._seed = seed
        self.known: dict[str, BaseDistribution] = {}
        """The parameters so far, in the order in which they appeared."""
        self._grid = grid_points(space) if space.sampler == "grid" else []
        np.random.default_rng(derive_seed(seed, "grid")).shuffle(self._grid)
        self._tried: set[frozenset[tuple[str, Any]]] = set()  # the values of each trial that was drawn
        self._proposed = 0  # number of trials from the sampler, the grid or an offer
        self._offers: list[dict[str, Any]] = []
        self._cma: CmaSampler | None = None
        self._taught = 0  # number of trials of other sweeps that the sampler learns from

    def start_from(self, sweep: SweepStarted, taught: int) -> None:
        """Propose first the offers of other sweeps. The sampler learns from `taught` of their trials.

        The seed changes, since a sweep with the same space and seed would draw again what it takes from the other.
        """
        # The space may have been edited since the start: Optuna refuses a choice that is no longer there.
        now = (drawn_from_other(self._space, offer.source, offer.params, self._seed) for offer in sweep.offers)
        self._offers = [drawn.params for drawn in now]
        sources = [lesson.source for lesson in sweep.lessons] + [offer.source for offer in sweep.offers]
        if sources:
            self._seed = derive_seed(self._seed, "from", *sources)
        self._taught = taught

    def count(self, started: TrialStarted) -> None:
        """Register a trial that was drawn earlier; one that a person asked for takes no point of a grid."""
        if started.wanted is None:
            self._proposed += 1
            self._tried.add(frozenset(started.params.items()))

    def ask(self, study: optuna.Study, number: int, further: int, firsts: Sequence[First]) -> optuna.Trial:
        """Trial `number`, to be drawn. `further` of the trials before it repeat earlier configurations. `firsts` is
        what the sampler first learned from each trial."""
        drawn = max(self._proposed - len(self._offers), 0)
        near_priors = turns_of_priors(drawn) if self._space.priors else 0
        if self._space.sampler == "cmaes":
            self._cma = self._cma or CmaSampler(self._seed)
            study.sampler = self._cma.prepare(derive_seed(self._seed, "sampler", number) % 2**32, self.known, firsts)
        else:
            study.sampler = make_sampler(
                self._space.sampler, self._seed, number, self.known, further, self._taught, near_priors
            )
        if self._space.priors and self._proposed >= len(self._offers) and is_turn_of_priors(drawn):
            seed = derive_seed(self._seed, "priors", number)
            study.sampler = PriorSampler(self._space.expected, study.sampler, seed)
        if self._grid:
            study.enqueue_trial(self._next_point())
        elif self._proposed < len(self._offers):
            study.enqueue_trial(self._offers[self._proposed])
        self._proposed += 1
        return study.ask()

    def _next_point(self) -> dict[str, Any]:
        """The first point of the grid without a trial."""
        fresh = (point for point in self._grid if frozenset(point.items()) not in self._tried)
        point = next(fresh, self._grid[self._proposed % len(self._grid)])
        self._tried.add(frozenset(point.items()))
        return point
