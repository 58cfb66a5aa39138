"""Finds what a space draws from given values, so that the sampler may learn from trials that it did not propose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import BaseTrial

from sweeps.config import TrialConfig
from sweeps.errors import InputError
from sweeps.search.asked_trial import AskedTrial, in_words, is_inside
from sweeps.search.sampling.singly import value_at
from sweeps.space import Space
from tracking.record.events import TrialStarted


@dataclass(frozen=True)
class Redrawn:
    """What a space draws from given values. `config` is None where `suggest` refuses; `faults` says why, and which of
    the values are outside their ranges."""

    config: TrialConfig | None
    params: dict[str, Any]
    """Those of the given values that the space takes."""
    distributions: dict[str, str]
    """Of the same."""
    missing: tuple[str, ...]
    """Parameters of the space that no value was given for; they were drawn at random."""
    faults: tuple[str, ...]


class _GivenTrial:
    """Answers `suggest` with the given values where they are in range, else at random."""

    number = 0

    def __init__(self, given: Mapping[str, Any], seed: int) -> None:
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


def redrawn(space: Space, given: Mapping[str, Any], seed: int = 0) -> Redrawn:
    """Draw from the space with the `given` values; `seed` decides those that are not given."""
    trial = _GivenTrial(given, seed)
    faults: list[str] = []
    config = None
    try:
        config = space.draw(AskedTrial(cast(BaseTrial, trial), {}))
    except InputError as error:
        faults.append(str(error))
    distributions = {name: distribution_to_json(one) for name, one in trial.distributions.items()}
    missing = tuple(name for name in trial.missing if name not in trial.faults)
    return Redrawn(config, trial.params, distributions, missing, (*trial.faults.values(), *faults))


def drawn_as(
    space: Space,
    source: TrialStarted,
    settings: Mapping[str, Any],
    config: TrialConfig,
) -> tuple[dict[str, Any], dict[str, str]]:
    """The parameters and distributions of a draw that comes to `config`: those of `source` with the `settings`.

    Both empty where the space draws something else from them, or a value lies outside its range.
    """
    changes = {name.rpartition(".")[2]: value for name, value in settings.items()}
    drawn = redrawn(space, source.params | {name: value for name, value in changes.items() if name in source.params})
    if drawn.missing or drawn.faults or drawn.config is None:
        return {}, {}
    how = {"precision": config.precision, "memory_format": config.memory_format}  # chosen after the draw
    if drawn.config.model_copy(update=how) != config:
        return {}, {}
    return drawn.params, drawn.distributions


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
