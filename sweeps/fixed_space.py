"""Fixes settings of a space: settings of `--set` are not drawn, and baselines that they change are renamed.

A space is code, so the effect of its parameters is found by drawing. A parameter with the name of a fixed setting gets
the fixed value, if `suggest` then makes a configuration with that value. Any other parameter is held constant if the
settings override all of its effects, as `--set widths=…` does with a `width` from which the widths are computed.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from sweeps.config import TrialConfig, with_settings
from sweeps.errors import InputError
from sweeps.options import RecordedOptions
from sweeps.space import Baseline, Space
from tracking.flatten import flatten

if TYPE_CHECKING:
    import optuna

_DRAWS = 40
"""Enough draws to reach each of a few nets or branches several times."""


def fix_settings(space: Space, settings: Mapping[str, Any], seed: int) -> Space:
    """`space` with the dotted `settings` in every draw and in every baseline.

    Raises InputError if a baseline or each of a number of draws refuses them.
    """
    if not settings:
        return space
    baselines = [changed(baseline, settings) for baseline in space.baselines]
    held = _held_parameters(space, settings, seed)

    @functools.wraps(space.suggest)
    def suggest(trial: optuna.Trial) -> TrialConfig:
        drawn = space.suggest(cast("optuna.Trial", _HeldTrial(trial, held)))
        return with_settings(drawn, settings) if isinstance(drawn, TrialConfig) else drawn

    return replace(space, suggest=suggest, baselines=baselines)


def with_options(space: Space, options: RecordedOptions) -> Space:
    """`space` with the baselines, the settings and the search that the options ask for. Raises InputError."""
    found = fix_settings(space.with_baselines(options.which_baselines), options.settings, options.seed)
    return replace(
        found,
        sampler=options.sampler or found.sampler,
        pruner=options.pruner or found.pruner,
        rungs=options.rungs or found.rungs,
        max_epochs=options.max_epochs or found.max_epochs,
        objectives=options.objectives if "objectives" in options.model_fields_set else found.objectives,
    )


def changed(baseline: Baseline, settings: Mapping[str, Any]) -> Baseline:
    """`baseline` with `settings`, renamed, since the report's number holds only for its own settings."""
    config = with_settings(baseline.config, settings)
    before, after = (flatten(one.model_dump(mode="json")) for one in (baseline.config, config))
    changed = [_last_part(name) for name in settings if before.get(name) != after.get(name)]
    if not changed:
        return baseline
    return replace(baseline, name=baseline.name_with(changed), config=config, reported="")


class _HeldTrial:
    """A trial that takes parameters from `held` and suggests the others; `answers` has all values."""

    def __init__(self, trial: object, held: Mapping[str, Any]) -> None:
        self._trial = trial
        self._held = held
        self.answers: dict[str, Any] = {}

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._trial, attribute)
        if not attribute.startswith("suggest_"):
            return found

        def suggest(name: str, *arguments: Any, **more: Any) -> Any:
            self.answers[name] = self._held[name] if name in self._held else found(name, *arguments, **more)
            return self.answers[name]

        return suggest


@dataclass(frozen=True)
class _Draw:
    """A configuration, and the values from which `suggest` made it."""

    config: TrialConfig
    answers: dict[str, Any]


class _Prober:
    """Draws from a space at random, except for parameters with given values."""

    def __init__(self, space: Space, settings: Mapping[str, Any], seed: int) -> None:
        from sweeps.search.proposals import random_trials

        self._space = space
        self._settings = settings
        self._trials = random_trials(seed)

    def draw(self, given: Mapping[str, Any]) -> _Draw | None:
        """None if `suggest` refuses the values."""
        trial = _HeldTrial(next(self._trials), given)
        try:
            return _Draw(self._space.draw(trial), trial.answers)
        except InputError:
            return None

    def draws(self, given: Mapping[str, Any]) -> list[_Draw]:
        return [drawn for drawn in (self.draw(given) for _ in range(_DRAWS)) if drawn]

    def stands_for(self, name: str, setting: str, draws: Iterable[_Draw]) -> bool:
        """Whether `suggest` gives the setting its fixed value exactly when the parameter has that value."""
        with_it = [drawn for drawn in draws if name in drawn.answers]
        forced = [self.draw(drawn.answers | {name: self._settings[setting]}) for drawn in with_it]
        return all(one and self._has(one.config, setting) for one in forced) and not all(
            self._has(drawn.config, setting) for drawn in with_it
        )

    def _has(self, config: TrialConfig, setting: str) -> bool:
        """Whether `config` already has that setting's value."""
        value_of = operator.attrgetter(setting)
        return bool(value_of(config) == value_of(with_settings(config, self._settings)))

    def is_undone(self, name: str, draws: Sequence[_Draw]) -> bool:
        """Whether each change of the parameter changes what is drawn, and never what is trained."""
        with_it = [drawn for drawn in draws if name in drawn.answers]
        for drawn in with_it:
            others = (one.answers[name] for one in with_it if one.answers[name] != drawn.answers[name])
            other = self.draw(drawn.answers | {name: next(others, drawn.answers[name])})
            if other is None or other.config == drawn.config:
                return False
            if with_settings(other.config, self._settings) != with_settings(drawn.config, self._settings):
                return False
        return True


def _held_parameters(space: Space, settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The parameters that have no effect under the settings, each with a value for `suggest`."""
    prober = _Prober(space, settings, seed)
    draws = prober.draws({})
    named = {
        name: settings[setting]
        for name in _names(draws)
        for setting in settings
        if _last_part(name) == _last_part(setting) and prober.stands_for(name, setting, draws)
    }
    draws = prober.draws(named)
    undone = {
        name: value for name, value in _names(draws).items() if name not in named and prober.is_undone(name, draws)
    }
    return named | undone


def _names(draws: Iterable[_Draw]) -> dict[str, Any]:
    """Every parameter that was suggested, with one of its values."""
    return {name: value for drawn in draws for name, value in drawn.answers.items()}


def _last_part(name: str) -> str:
    return name.rpartition(".")[2]
