"""The reasons for pauses, and which trials are the most promising."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sweeps.trial.messages import OBJECTIVE
from tracking.record.events import PauseReason
from tracking.record.history import SweepHistory, TrialHistory

_BY_ITSELF: tuple[PauseReason, ...] = ("share", "budget")
"""Reasons of pauses that end as soon as a slot is free."""

_NOTHING_KNOWN = 0.5


@dataclass(frozen=True)
class Pause:
    """Why a trial is paused, and the person who asked for it."""

    reason: PauseReason
    who: str | None = None


def continues_by_itself(trial: TrialHistory) -> bool:
    """Whether a paused trial waits only for a slot."""
    return trial.paused is not None and trial.paused.reason in _BY_ITSELF


def by_promise(history: SweepHistory, numbers: Iterable[int]) -> list[int]:
    """The trials, the most promising first; among equal ones the lower number is first.

    The promise of a trial is the share of trials whose accuracy at the same epoch is not higher than the trial's own at
    its last epoch. Without epochs it is 0.5.
    """
    values: dict[int, list[float]] = {}

    def promise(number: int) -> float:
        trial = history.trials[number]
        if not trial.epochs:
            return _NOTHING_KNOWN
        epoch, own = trial.last_epoch, trial.epochs[-1].metrics[OBJECTIVE]
        if epoch not in values:
            values[epoch] = [value for one in history.trials.values() for value in _value_at(one, epoch)]
        others = values[epoch]
        return sum(value <= own for value in others) / len(others)

    return sorted(numbers, key=lambda number: (-promise(number), number))


def _value_at(trial: TrialHistory, epoch: int) -> list[float]:
    # Epochs are in order, from the first on.
    return [trial.epochs[epoch - 1].metrics[OBJECTIVE]] if trial.last_epoch >= epoch else []
