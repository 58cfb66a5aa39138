"""Which trials are to leave their workers at their next report, and which paused trials continue when a slot is free.

A trial that a person paused, or that waits at a rung, continues when a person says so, or when it is promoted. One
whose slot was needed continues by itself, the most promising first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sweeps.trial.messages import OBJECTIVE
from tracking.record.events import PauseReason
from tracking.record.history import SweepHistory, TrialHistory

_BY_ITSELF: tuple[PauseReason, ...] = ("share", "budget")
"""Pauses that end when a slot is free."""

_NOTHING_KNOWN = 0.5


@dataclass(frozen=True)
class Pause:
    """Why a trial is to leave, and who asked."""

    reason: PauseReason
    who: str | None = None


class Pauses:
    """Tracks pauses that are due at a trial's next report, and paused trials that wait for a slot."""

    def __init__(self, history: SweepHistory) -> None:
        self._history = history
        self._asked: dict[int, Pause] = {}
        self._surplus: list[int] = []  # those that leave for the limit's sake
        self._limits: dict[str, int] = {}
        self.ready = {trial.number for trial in paused_trials(history) if continues_by_itself(trial)}

    def limit(self, slots: int | None, by: str) -> None:
        """Have at most so many trials out, by the word of `by`; the least of all words holds. None takes it back."""
        if slots is None:
            self._limits.pop(by, None)
        else:
            self._limits[by] = slots

    def limit_of(self, by: str) -> int | None:
        """What `by` said."""
        return self._limits.get(by)

    @property
    def slots(self) -> int | None:
        """How many trials may be out; None where nothing limits them but the machine."""
        return min(self._limits.values(), default=None)

    def within_limits(self, count: int, but_of: str) -> int:
        """`count`, or as many as the limits allow, but for the word of one."""
        return min([count, *(slots for by, slots in self._limits.items() if by != but_of)])

    def ask(self, number: int, pause: Pause) -> None:
        """Have a trial leave at its next report; a person's word goes before any other."""
        if number not in self._asked or pause.reason == "person":
            self._asked[number] = pause

    def is_asked(self, number: int) -> bool:
        """Whether a pause of the trial is due."""
        return number in self._asked

    def withdraw(self, number: int) -> bool:
        """Take back a pause that is due; whether there was one."""
        return self._asked.pop(number, None) is not None

    def due(self, number: int, out: Collection[int]) -> Pause | None:
        """The pause that a trial, one of those that are `out`, is to obey now."""
        self.balance(out)
        return self._asked.get(number) or (Pause("share") if number in self._surplus else None)

    def balance(self, out: Collection[int]) -> None:
        """Choose who gives a slot back: as many as there are too many, the least promising first, and no others."""
        if self.slots is None:
            self._surplus.clear()
            return
        staying = [number for number in out if number not in self._asked]
        count = max(len(staying) - self.slots, 0)
        chosen = [number for number in self._surplus if number in staying][:count]
        if len(chosen) < count:
            candidates = by_promise(self._history, set(staying) - set(chosen))
            chosen += candidates[::-1][: count - len(chosen)]
        self._surplus = chosen

    def left(self, number: int) -> None:
        """Forget what was due: the trial has no worker any more."""
        self._asked.pop(number, None)
        trial = self._history.trials[number]
        if trial.paused and continues_by_itself(trial):
            self.ready.add(number)

    def next_ready(self) -> int | None:
        """Take the most promising of the paused trials that wait for a slot."""
        if not self.ready:
            return None
        number = by_promise(self._history, self.ready)[0]
        self.ready.discard(number)
        return number


def paused_trials(history: SweepHistory) -> list[TrialHistory]:
    """The trials that are paused, by number."""
    return [trial for trial in history.unfinished if trial.state == "paused"]


def continues_by_itself(trial: TrialHistory) -> bool:
    """Whether a paused trial waits for nothing but a slot."""
    return trial.paused is not None and trial.paused.reason in _BY_ITSELF


def by_promise(history: SweepHistory, numbers: Iterable[int]) -> list[int]:
    """Trials, the most promising first; of equal ones the earlier.

    Promise is the share of trials that one is at least level with at its last epoch. Of one without an epoch nothing
    is known: it counts as half.
    """
    values: dict[int, list[float]] = {}

    def promise(number: int) -> float:
        trial = history.trials[number]
        if not trial.epochs:
            return _NOTHING_KNOWN
        epoch, own = trial.last_epoch, trial.epochs[-1].metrics[OBJECTIVE]
        if epoch not in values:
            values[epoch] = [value for one in history.trials.values() for value in _value_at(one, epoch)]
        rivals = values[epoch]
        return sum(value <= own for value in rivals) / len(rivals)

    return sorted(numbers, key=lambda number: (-promise(number), number))


def _value_at(trial: TrialHistory, epoch: int) -> list[float]:
    # Epochs stand in their order, from the first one on.
    return [trial.epochs[epoch - 1].metrics[OBJECTIVE]] if trial.last_epoch >= epoch else []
