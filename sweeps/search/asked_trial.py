"""The trial that is passed to `suggest`: wraps Optuna's, accepts more types of choices, and reports errors clearly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
)

from sweeps.errors import InputError

_INSTEAD = {
    "suggest_uniform": "suggest_float(name, low, high)",
    "suggest_loguniform": "suggest_float(name, low, high, log=True)",
    "suggest_discrete_uniform": "suggest_float(name, low, high, step=q)",
}


class AskedTrial:
    """Wraps Optuna's trial, or one that returns given values: `suggest` can do the same with both.

    `known` has the parameters of the sweep so far, by name; new ones are added. NumPy numbers and tuples are passed to
    Optuna as values that a journal can store, and returned to `suggest` as they were.
    """

    def __init__(self, trial: Any, known: dict[str, BaseDistribution]) -> None:
        self._trial = trial
        self._known = known
        self.number: int = trial.number
        """In its sweep."""
        self.params: dict[str, Any] = {}
        """The values so far, as a journal stores them."""
        self.distributions: dict[str, BaseDistribution] = {}
        """The distributions of `params`."""
        self.user_attrs: dict[str, Any] = {}
        """What `suggest` noted; it is not recorded."""

    def __getattr__(self, name: str) -> NoReturn:
        if name in _INSTEAD:
            raise AttributeError(f"trial.{name}: deprecated in Optuna; use {_INSTEAD[name]}")
        raise AttributeError(
            f"trial.{name}: suggest is called again for a resume, a grid or --from; its trial has only suggest_float, "
            "suggest_int, suggest_categorical, number, params, distributions, user_attrs and set_user_attr"
        )

    def set_user_attr(self, key: str, value: Any) -> None:
        """As Optuna's."""
        self.user_attrs[key] = value

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """As Optuna's."""
        low, high, step = float(low), float(high), None if step is None else float(step)
        self._check(name, FloatDistribution(low, high, log=log, step=step))
        drawn: float = self._trial.suggest_float(name, low, high, step=step, log=log)
        self.params[name] = drawn
        return drawn

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """As Optuna's."""
        low, high, step = int(low), int(high), int(step)
        self._check(name, IntDistribution(low, high, log=log, step=step))
        drawn: int = self._trial.suggest_int(name, low, high, step=step, log=log)
        self.params[name] = drawn
        return drawn

    def suggest_categorical(self, name: str, choices: Iterable[Any]) -> Any:
        """As in Optuna; a tuple is recorded as its text."""
        choices = list(choices)
        distribution = CategoricalDistribution([plain(name, choice) for choice in choices])
        self._check(name, distribution)
        self.params[name] = drawn = self._trial.suggest_categorical(name, distribution.choices)
        return choices[int(distribution.to_internal_repr(drawn))]

    def _check(self, name: str, asked: BaseDistribution) -> None:
        known = self._known.setdefault(name, asked)
        try:
            check_distribution_compatibility(known, asked)
        except ValueError:
            raise InputError(
                f"parameter '{name}': {in_words(asked)} now, {in_words(known)} before; within a sweep a parameter "
                "keeps its kind, scale and choices: give a different one another name"
            ) from None
        self.distributions[name] = asked


def plain(name: str, choice: object) -> CategoricalChoiceType:
    """A choice as a journal stores it: a number, text, True, False or None; for a tuple, its text."""
    if isinstance(choice, np.generic | np.ndarray):
        choice = choice.tolist()
    if choice is None or isinstance(choice, bool | int | float | str):
        return choice
    if isinstance(choice, tuple | list):
        return str(tuple(plain(name, part) for part in choice))
    raise InputError(
        f"parameter '{name}': a choice is a number, a text, True, False, None or a tuple of these, got {choice!r:.80}; "
        "use a name as the choice, and look up its value in suggest"
    )


def is_inside(distribution: BaseDistribution, value: object) -> bool:
    """Whether a parameter may have the value."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (TypeError, ValueError):
        return False


def in_words(distribution: BaseDistribution) -> str:
    """A distribution as text: "a number from 0 to 1"."""
    match distribution:
        case CategoricalDistribution():
            return "one of " + ", ".join(map(str, distribution.choices))
        case FloatDistribution() | IntDistribution():
            kind = "a number" if isinstance(distribution, FloatDistribution) else "a whole number"
            return f"{kind} from {distribution.low:g} to {distribution.high:g}{' on a log scale' * distribution.log}"
    return str(distribution)
