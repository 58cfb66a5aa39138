"""What a sweep's sampler learns of its trials, and which of them it is shown."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tracking.record.events import Told

_BEST_SHOWN, _LATEST_SHOWN = 50, 250
"""How many trials the sampler learns from: its cost grows with their number, and TPE takes 25 for good at most."""

Place = tuple[int, float, float]

AS_IT_ENDED: Mapping[str, Told] = {"done": "value", "pruned": "pruned", "failed": "nothing", "stopped": "nothing"}
"""What the sampler learns of a trial, by its state."""

STATES: Mapping[Told, TrialState] = {
    "value": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "worst": TrialState.PRUNED,
    "nothing": TrialState.FAIL,
}


@dataclass(frozen=True)
class First:
    """What the sampler learned first of a trial: its settings, and how good it then was, the least the best."""

    place: Place
    params: Mapping[str, Any]


class Lessons:
    """What the sampler learns of each trial. `only_values` says that it learns of no trial without a value, so that
    pruned ones get one."""

    def __init__(self, *, only_values: bool) -> None:
        self._only_values = only_values
        self._lessons: dict[int, FrozenTrial] = {}  # the latest last
        self._ranked: list[tuple[Place, int]] = []  # the same trials, the best first
        self.firsts: list[First] = []
        """What was learned first of each trial, in that order; it only grows."""
        self._met: set[int] = set()
        self._least = math.inf  # of the values that the sampler was told

    def __contains__(self, number: int) -> bool:
        """Whether there is something to learn of the trial."""
        return number in self._lessons

    def forget(self, number: int) -> None:
        """Take back what was learned of a trial."""
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
        stored_as: int | None = None,
    ) -> None:
        """Learn of a trial, which Optuna's study may have by another number."""
        value, state = best if told == "value" else None, STATES[told]
        if self._only_values and told in ("pruned", "worst"):
            value, state = self._as_value(told, curve), TrialState.COMPLETE
        if value is not None:
            self._least = min(self._least, value)
        lesson = create_trial(
            state=state,
            value=value,
            params=dict(params),
            distributions=dict(distributions),
            intermediate_values={} if told == "worst" else dict(curve),
        )
        lesson.number = number if stored_as is None else stored_as
        self._lessons[number] = lesson
        insort(self._ranked, (_place(lesson), number))
        if number not in self._met:
            self._met.add(number)
            self.firsts.append(First(_place(lesson), lesson.params))

    def shown(self) -> list[FrozenTrial]:
        """The best and the latest of the trials."""
        best = [number for _, number in self._ranked[:_BEST_SHOWN]]
        latest = islice(reversed(self._lessons), _LATEST_SHOWN)
        return [self._lessons[number] for number in sorted({*best, *latest})]

    def _as_value(self, told: Told, curve: Mapping[int, float]) -> float:
        """The value of a trial without a final value."""
        least = self._least if math.isfinite(self._least) else 0.0
        return max(curve.values(), default=least) if told == "pruned" else least


def _place(trial: FrozenTrial) -> Place:
    """Orders trials as TPE does, the best first: complete ones, then those that came furthest."""
    if trial.value is not None:
        return 0, -trial.value, 0.0
    if not trial.intermediate_values:
        return 2, 0.0, 0.0
    step, value = max(trial.intermediate_values.items())
    return 1, -step, -value
