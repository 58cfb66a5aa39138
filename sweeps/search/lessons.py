"""What a sweep's sampler learns from its trials, and which of them it reads."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tracking.metrics.pareto import ranked
from tracking.record.events import Told
from tracking.record.objectives import Costs

_BEST_SHOWN, _LATEST_SHOWN = 50, 250
"""How many trials the sampler reads: its cost grows with their number, and TPE counts at most 25 as good."""

Place = tuple[int, float, float]

AS_IT_ENDED: Mapping[str, Told] = {"done": "value", "pruned": "pruned", "failed": "nothing", "stopped": "nothing"}
"""What the sampler learns from a trial, by its state."""

STATES: Mapping[Told, TrialState] = {
    "value": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "worst": TrialState.PRUNED,
    "nothing": TrialState.FAIL,
}


@dataclass(frozen=True)
class First:
    """What the sampler first learned from a trial: its settings and its merit then (lower is better)."""

    place: Place
    params: Mapping[str, Any]


class Lessons:
    """What the sampler learns from each trial. With `only_values` the sampler needs a value for every trial, so pruned
    trials get one."""

    def __init__(self, *, only_values: bool) -> None:
        self._only_values = only_values
        self._lessons: dict[int, FrozenTrial] = {}  # latest last
        self._ranked: list[tuple[Place, int]] = []  # the same trials, best first
        self.firsts: list[First] = []
        """What was first learned from each trial, in that order; the list only grows."""
        self._met: set[int] = set()
        self._worst: tuple[float, ...] | None = None  # worst value of each objective among these trials

    def __contains__(self, number: int) -> bool:
        """Whether the sampler has learned from the trial."""
        return number in self._lessons

    def forget(self, number: int) -> None:
        """Remove what was learned from a trial."""
        if old := self._lessons.pop(number, None):
            self._ranked.pop(bisect_left(self._ranked, (_place(old), number)))

    def learn(
        self,
        number: int,
        told: Told,
        best: float | None,
        curve: Mapping[int, float],
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        *,
        costs: Costs = (),
        stored_as: int | None = None,
    ) -> None:
        """Learn from a trial, which may have another number in Optuna's study; `costs` are its other objectives."""
        values, state = (best, *costs) if told == "value" and best is not None else None, STATES[told]
        if self._only_values and told in ("pruned", "worst"):
            values, state = self._as_values(told, curve, costs), TrialState.COMPLETE
        if values is not None:
            if not all(map(math.isfinite, values)):
                return  # an unknown cost
            self._worst = values if self._worst is None else _worse(self._worst, values)
        lesson = create_trial(
            state=state,
            values=values,
            params=dict(params),
            distributions=dict(distributions),
            intermediate_values={} if told == "worst" or costs else dict(curve),
        )
        lesson.number = number if stored_as is None else stored_as
        self._lessons[number] = lesson
        insort(self._ranked, (_place(lesson), number))
        if number not in self._met:
            self._met.add(number)
            self.firsts.append(First(_place(lesson), lesson.params))

    def shown(self) -> list[FrozenTrial]:
        """The best and the latest trials."""
        latest = list(islice(reversed(self._lessons), _LATEST_SHOWN))
        best = self._best() if len(self._lessons) > len(latest) else ()
        return [self._lessons[number] for number in sorted({*best, *latest})]

    def _best(self) -> Iterable[int]:
        if self._worst is None or len(self._worst) == 1:
            return (number for _, number in self._ranked[:_BEST_SHOWN])
        numbers = list(self._lessons)
        signs = np.array([1.0] + [-1.0] * (len(self._worst) - 1))
        order = ranked(np.array([self._lessons[number].values for number in numbers]) * signs, _BEST_SHOWN)
        return (numbers[place] for place in order[:_BEST_SHOWN])

    def _as_values(self, told: Told, curve: Mapping[int, float], costs: Costs) -> tuple[float, ...]:
        """The values of a trial that has no final ones."""
        worst = self._worst or (0.0, *costs)
        if told == "pruned":
            return (max(curve.values(), default=worst[0]), *costs)
        return worst


def _worse(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    return (min(one[0], other[0]), *map(max, one[1:], other[1:]))


def _place(trial: FrozenTrial) -> Place:
    """Sort key as in TPE, best first: complete trials, then those with the most epochs."""
    if trial.values is not None:
        return 0, -trial.values[0], 0.0
    if not trial.intermediate_values:
        return 2, 0.0, 0.0
    step, value = max(trial.intermediate_values.items())
    return 1, -step, math.inf if math.isnan(value) else -value
