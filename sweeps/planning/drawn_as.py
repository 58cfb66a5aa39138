"""Finds whether a space can draw a requested configuration, so that the sampler may learn from it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import distribution_to_json

from sweeps.config import TrialConfig
from sweeps.errors import InputError
from sweeps.planning.asked_trial import AskedTrial
from sweeps.space import Space
from tracking.record.events import TrialStarted


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
    given = source.params | {name: value for name, value in changes.items() if name in source.params}
    trial = optuna.trial.FixedTrial(given)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            drawn = space.draw(AskedTrial(trial, {}))
    except InputError:  # a value out of range, or a parameter that these values bring with them
        return {}, {}
    distributions = trial.distributions
    inside = all(dist._contains(dist.to_internal_repr(given[name])) for name, dist in distributions.items())
    how = {"precision": config.precision, "memory_format": config.memory_format}  # chosen after the draw
    if drawn.model_copy(update=how) != config or not inside:
        return {}, {}
    return {name: given[name] for name in distributions}, {
        name: distribution_to_json(dist) for name, dist in distributions.items()
    }
