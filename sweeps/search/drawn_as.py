"""Draws from a space with given values, so that the sampler can learn from trials that it did not propose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from sweeps.config import TrialConfig
from sweeps.errors import InputError
from sweeps.search.asked_trial import AskedTrial, in_words, is_inside
from sweeps.search.samplers import needs_all
from sweeps.search.sampling.singly import value_at
from sweeps.search.seeds import derive_seed
from sweeps.space import Sampler, Space
from tracking.record.events import Drawn, Lesson, TrialStarted


@dataclass(frozen=True)
class Redrawn:
    """What a space draws from given values. `config` is None if `suggest` refuses them; `faults` has the reason, and
    the values that are outside their ranges."""

    config: TrialConfig | None
    params: dict[str, Any]
    """The given values that the space uses."""
    distributions: dict[str, str]
    """The distributions of `params`."""
    missing: tuple[str, ...]
    """Parameters of the space without a given value; they were drawn at random."""
    faults: tuple[str, ...]

    @property
    def fault(self) -> str:
        """Why the space cannot draw the values; empty if it can."""
        if not self.params and not self.faults:
            return "no parameter of this space"
        return "".join(self.faults[:1]) + (f", and {len(self.faults) - 1} more" if self.faults[1:] else "")

    def why_no_lesson(self, started: TrialStarted, sampler: Sampler) -> str:
        """Why the sampler cannot learn from the trial that had the values; empty if it can."""
        theirs = started.config["net"]["name"]
        ours = self.config.net.name if self.config else theirs
        if theirs != ours:
            return f"its net is {theirs}, this space draws {ours} from its values"
        return self.why_unusable(sampler)

    def why_unusable(self, sampler: Sampler) -> str:
        """Why the sampler cannot learn from the values; empty if it can."""
        if (model := needs_all(sampler)) and self.missing:
            return f"has no {self.missing[0]}, which {model} needs"
        return self.fault


class _GivenTrial:
    """A trial for `suggest` that returns given values if they are in range, else random ones."""

    def __init__(self, given: Mapping[str, Any], seed: int, number: int) -> None:
        self.number = number
        self._given, self._random = given, np.random.default_rng(seed)
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}
        self.missing: dict[str, Any] = {}
        self.faults: dict[str, str] = {}

    def _take(self, name: str, distribution: BaseDistribution) -> Any:
        taken = self.params | self.missing
        if name in taken:
            return taken[name]
        if name in self._given:
            if is_inside(distribution, self._given[name]):
                value = distribution.to_external_repr(distribution.to_internal_repr(self._given[name]))
                self.params[name], self.distributions[name] = value, distribution
                return value
            self.faults[name] = f"{name} {_short(self._given[name])}: the space has {in_words(distribution)}"
        self.missing[name] = value_at(float(self._random.random()), distribution)
        return self.missing[name]

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """As Optuna's."""
        return float(self._take(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """As Optuna's."""
        return int(self._take(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_categorical(self, name: str, choices: tuple[Any, ...]) -> Any:
        """As Optuna's."""
        return self._take(name, CategoricalDistribution(choices))


def redrawn(space: Space, given: Mapping[str, Any], seed: int = 0, number: int = 0) -> Redrawn:
    """Draw trial `number` from the space with the `given` values; the others are random, by `seed`."""
    trial = _GivenTrial(given, seed, number)
    faults: list[str] = []
    config = None
    try:
        config = space.draw(AskedTrial(trial, {}))
    except InputError as error:
        faults.append(str(error))
    distributions = {name: distribution_to_json(one) for name, one in trial.distributions.items()}
    missing = tuple(name for name in trial.missing if name not in trial.faults)
    return Redrawn(config, trial.params, distributions, missing, (*trial.faults.values(), *faults))


def drawn_from_other(space: Space, source: str, given: Mapping[str, Any], seed: int) -> Redrawn:
    """Draw from the space of a sweep with `seed`, with the values of `source`, a trial of another sweep."""
    return redrawn(space, given, derive_seed(seed, "from", source))


def drawn_as(space: Space, config: TrialConfig, params: Mapping[str, Any], number: int = 0) -> Redrawn | None:
    """The draw of trial `number` that results in `config`. None if the space draws something else.

    A parameter that is not in `params` gets the value of the setting of the same name.
    """
    drawn = redrawn(space, {**dict(_settings(config.model_dump(mode="json"))), **params}, number=number)
    if drawn.missing or drawn.faults or drawn.config is None:
        return None
    how = {"precision": config.precision, "memory_format": config.memory_format}  # chosen after the draw
    return drawn if drawn.config.model_copy(update=how) == config else None


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The settings of a configuration by their last names."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _settings(value)
        else:
            yield name, value


def as_redrawn(started: TrialStarted, redrawn: Mapping[int, Drawn | None]) -> TrialStarted | None:
    """A trial as a draw of the edited space. None if the edited space does not draw it."""
    if started.trial not in redrawn:
        return started
    drawn = redrawn[started.trial]
    return started.model_copy(update=drawn.model_dump()) if drawn else None


def lesson_as_redrawn(space: Space, lesson: Lesson, seed: int) -> Lesson | None:
    """A lesson as a draw of the space as it is now. None if the sampler can no longer learn from it."""
    drawn = drawn_from_other(space, lesson.source, lesson.params, seed)
    if drawn.why_unusable(space.sampler):
        return None
    return lesson.model_copy(update={"params": drawn.params, "distributions": drawn.distributions})


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
