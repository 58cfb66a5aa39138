"""Tracks which trials have a worker, wait for one, are paused, or are to be paused.

A trial that a person paused continues after `unpause`, one that waits at a rung when it is promoted. A trial that gave
up its slot continues by itself, the most promising first.
"""

from __future__ import annotations

from sweeps.driver.pauses import Pause, by_promise, continues_by_itself
from sweeps.driver.recorder import Recorder
from sweeps.errors import InputError
from tracking.record.events import PauseReason, TrialPaused, TrialUnpaused
from tracking.record.history import SweepHistory, TrialHistory


class TrialQueue:
    """The trials of one sweep, by whether they have a worker. Records their pauses."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder, self._history = recorder, recorder.history
        self.out: dict[int, int] = {}
        """The trials that have a worker, with the current attempt of each. Reports of other attempts are ignored."""
        self._waiting = [trial.number for trial in self._history.unfinished if not trial.paused]
        self._ready = {trial.number for trial in self._history.paused if continues_by_itself(trial)}
        self._asked: dict[int, Pause] = {}  # pauses at the next report of a trial
        self._surplus: list[int] = []  # trials to be paused because of the limit
        self._limits: dict[str, int] = {}
        self._held_by: str | None = None

    def __len__(self) -> int:
        """The number of trials that have a worker or would take a free slot."""
        return len(self.out) + len(self._waiting) + len(self._ready)

    def open_trial(self, number: int) -> TrialHistory:
        """The trial with this number. Raises InputError if it is over or finishing."""
        trial = self._unfinished(number)
        if trial.verdict is not None:
            raise InputError(f"trial {number} is finishing already: {trial.verdict.reason}")
        return trial

    def _unfinished(self, number: int) -> TrialHistory:
        trial = known_trial(self._history, number)
        if trial.is_over:
            raise InputError(f"trial {number} is over; it is {trial.state}")
        return trial

    def next_waiting(self) -> int | None:
        """Remove and return the first trial that waits for a worker and is not paused."""
        return self._waiting.pop(0) if self._waiting else None

    def next_ready(self) -> int | None:
        """Remove and return the most promising paused trial that waits for a slot."""
        if not self._ready:
            return None
        number = by_promise(self._history, self._ready)[0]
        self._ready.discard(number)
        return number

    def put_first(self, number: int) -> None:
        """Let a trial continue next."""
        self.remove(number)
        self._waiting.insert(0, number)

    def remove(self, number: int) -> None:
        """Remove a trial without a worker from the queue."""
        self._waiting = [one for one in self._waiting if one != number]
        self._ready.discard(number)

    def release(self, number: int) -> None:
        """Forget a trial's worker and the pause at its next report."""
        self.out.pop(number, None)
        self._asked.pop(number, None)
        if continues_by_itself(self._history.trials[number]):
            self._ready.add(number)

    def limit(self, slots: int | None, by: str, who: str | None = None) -> None:
        """Set the limit on behalf of `by` to `slots` running trials; None removes it. The lowest limit holds.

        `who` is the person who paused the whole sweep.
        """
        if by == "person":
            self._held_by = who if slots == 0 else None
        if slots is None:
            self._limits.pop(by, None)
        else:
            self._limits[by] = slots
        self._balance()

    def limit_of(self, by: str) -> int | None:
        """The limit set by `by`."""
        return self._limits.get(by)

    @property
    def has_slot(self) -> bool:
        """Whether the limits allow one more trial."""
        slots = self._slots
        return slots is None or len(self.out) < slots

    @property
    def _slots(self) -> int | None:
        return min(self._limits.values(), default=None)

    def within_limits(self, count: int, except_by: str) -> int:
        """`count`, or less if limits other than `except_by` allow less."""
        return min([count, *(slots for by, slots in self._limits.items() if by != except_by)])

    def pause(self, number: int, reason: PauseReason, who: str | None = None) -> None:
        """Pause a trial at its next report, or at once if it has no worker. Raises InputError."""
        trial = self.open_trial(number)
        if trial.paused and (reason != "person" or trial.paused.reason == "person"):
            raise InputError(f"trial {number} is paused already; unpause continues it")
        if reason == "person" and self._is_asked_by_person(number):
            raise InputError(f"trial {number} pauses at its next report already")
        if number not in self.out:
            self.remove(number)
            self.pause_now(number, Pause(reason, who))
        elif number not in self._asked or reason == "person":  # a person's request takes precedence
            self._asked[number] = Pause(reason, who)

    def pause_now(self, number: int, pause: Pause) -> None:
        """Record the pause of a trial, and free its slot."""
        epoch = self._history.trials[number].last_epoch
        self._recorder.record(TrialPaused(trial=number, epoch=epoch, reason=pause.reason, who=pause.who))
        self.release(number)

    def unpause(self, number: int, who: str | None = None) -> None:
        """Continue a paused trial next, under its number. Raises InputError if it is not paused."""
        trial = self._unfinished(number)
        if trial.paused:
            self._recorder.record(TrialUnpaused(trial=number, who=who))
            self.put_first(number)
        elif self._is_asked_by_person(number):
            del self._asked[number]
        else:
            raise InputError(f"trial {number} is not paused; it is {trial.state}")

    def _is_asked_by_person(self, number: int) -> bool:
        asked = self._asked.get(number)
        return asked is not None and asked.reason == "person"

    def due(self, number: int) -> Pause | None:
        """The requested pause of a trial that has a worker."""
        self._balance()
        return self._asked.get(number) or (Pause("share", self._held_by) if number in self._surplus else None)

    def _balance(self) -> None:
        """Choose the trials to be paused because of the limit, the least promising first."""
        if self._slots is None:
            self._surplus.clear()
            return
        staying = [number for number in self.out if number not in self._asked]
        count = max(len(staying) - self._slots, 0)
        chosen = [number for number in self._surplus if number in staying][:count]
        if len(chosen) < count:
            candidates = by_promise(self._history, set(staying) - set(chosen))
            chosen += candidates[::-1][: count - len(chosen)]
        self._surplus = chosen


def known_trial(history: SweepHistory, number: int) -> TrialHistory:
    """The trial with this number. Raises InputError if there is none."""
    trial = history.trials.get(number)
    if trial is None:
        raise InputError(f"no trial {number}; there are {history.numbers}")
    return trial
