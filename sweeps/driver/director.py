"""Makes the decisions of a running sweep: assigns trials, records reports, applies pruning.

It is independent of Ray and MLflow. Writes are always in this order: the worker's checkpoint, the journal, the study,
the listeners.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from sweeps.config import TrialConfig
from sweeps.driver.endings import Endings
from sweeps.driver.pauses import Pause, by_promise, continues_by_itself
from sweeps.driver.recorder import Listener, Recorder
from sweeps.driver.starting import Starting
from sweeps.driver.trial_queue import TrialQueue
from sweeps.errors import InputError
from sweeps.search.study import Study
from sweeps.space import Space
from sweeps.spec import SweepSpec
from sweeps.trial.messages import EpochReport, Message, Preparing, Task, TrialEnd
from tracking.record.events import Act, AttemptStarted, EpochDone, Lengthened, PauseReason, TrialDrawn, TrialUnpaused
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.journal import Journal
from tracking.record.layout import SweepFolder

MAX_RETRIES = 3
"""How often a trial is retried after its worker died, if no epoch was finished in between."""

Attendant = Callable[["Director"], None]
"""Called several times per second between decisions; it may pause, unpause and limit trials."""


class Director:
    """Decides for one sweep. All methods are called from one thread. Every event is on disk before it has an effect."""

    def __init__(
        self,
        folder: SweepFolder,
        spec: SweepSpec,
        space: Space,
        history: SweepHistory,
        journal: Journal,
        study: Study,
        *,
        resolve: Callable[[TrialConfig], TrialConfig] = lambda config: config,
        time_budget_seconds: float | None = None,
        listeners: tuple[Listener, ...] = (),
        attendants: Sequence[Attendant] = (),
        on_preparing: Callable[[TrialHistory, str], None] | None = None,
    ) -> None:
        self.history = history
        self.spec = spec
        """The current options of the sweep; an act may change them."""
        self.stop_reason: str | None = None
        self.is_hurried = False
        """Whether a stop may leave trials in the middle of an epoch: after a signal or a fault, not after a budget."""
        self.blocked: str | None = None
        self._has_run_out = False
        self._study, self._attendants, self._on_preparing = study, attendants, on_preparing
        self._budget_seconds = time_budget_seconds
        self._asked_at: float | None = None
        """When a runner first asked for a task: the time budget counts from then."""
        self._deaths: dict[int, list[str]] = {}
        self._wanted = history.wanted
        self._recorder = Recorder(journal, history, listeners)
        self._queue = TrialQueue(self._recorder)
        self._endings = Endings(self._recorder, study, self._queue, folder)
        self._starting = Starting(self._recorder, study, space, folder, self._endings, resolve)
        self.limit(spec.max_concurrent, "max-concurrent")

    def request_stop(self, reason: str, *, hurried: bool = False) -> None:
        """Stop every trial at its next report; if `hurried`, in the middle of an epoch that takes too long.

        Safe to call from a signal handler.
        """
        self.stop_reason = self.stop_reason or reason
        self.is_hurried = self.is_hurried or hurried

    def run_out(self, reason: str) -> None:
        """As `request_stop`, since a budget is used up: trials are paused."""
        self._has_run_out = self._has_run_out or self.stop_reason is None
        self.request_stop(reason)

    def block(self, reason: str) -> None:
        """As `request_stop`, after a fault that would affect other trials, too."""
        self.blocked = reason
        self.request_stop(reason, hurried=True)

    @property
    def stopping(self) -> bool:
        """Whether trials are to stop: after a signal, or when the time budget is used up."""
        budget, began = self._budget_seconds, self._asked_at
        if budget and began is not None and time.monotonic() - began > budget:
            self.run_out(f"the time budget of {self._budget_seconds:.0f} s is used up")
        return self.stop_reason is not None

    def add_time(self, seconds: float) -> str:
        """Extend the time budget. Returns the answer. Raises InputError if the sweep has none."""
        if self._budget_seconds is None:
            raise InputError("the sweep has no time budget now; --time-budget holds only for one run")
        self._budget_seconds += seconds
        return f"a time budget of {self._budget_seconds:.0f} s"

    @property
    def faults(self) -> list[str]:
        """The failures that are not trained again, with their reasons; without divergence, which is a result."""
        retried = self.history.retried
        ends = [trial.end for trial in self.history.trials.values() if trial.end and trial.number not in retried]
        failed = [f"trial {end.trial}: {end.reason}" for end in ends if end.state == "failed" and not end.diverged]
        return failed + ([self.blocked] if self.blocked else [])

    @property
    def exhausted(self) -> bool:
        """Whether no further task will come, except from trials that have a worker. Trials that a person paused do not
        count."""
        return self.stopping or self._to_do == len(self._queue.out)

    @property
    def demand(self) -> int:
        """The number of slots that the sweep could use now."""
        return self._queue.within_limits(self._to_do, except_by="share")

    @property
    def _to_do(self) -> int:
        """The number of trials that have a worker, wait for a slot, or are still to be started."""
        return len(self._queue) + self._to_start + len(self._promotable)

    @property
    def _to_start(self) -> int:
        return self.spec.to_start(self.history)

    @property
    def _promotable(self) -> list[int]:
        """The trials at rungs that are to continue now."""
        queue = self._queue
        if self.spec.to_begin(self.history) or len(queue) > len(queue.out):
            settled: float = 0  # more trials will arrive at the rungs
        else:
            out = [self.history.trials[number] for number in queue.out]
            coming = [trial.last_epoch for trial in out if not trial.started.is_further_member]
            settled = min(coming, default=math.inf)
        return self._study.promotable(settled)

    @property
    def _unpromotable(self) -> list[TrialHistory]:
        """The trials that wait at a rung and can no longer be promoted."""
        if len(self._queue) or self.spec.to_begin(self.history) or self._promotable:
            return []
        paused = self.history.paused
        return paused if all(trial.waits_at_rung for trial in paused) else []

    @property
    def has_task(self) -> bool:
        """Whether `next_task` has a task now, unless a draw fails."""
        self.attend()
        if self.exhausted or not self._queue.has_slot:
            return False
        waits = len(self._queue) > len(self._queue.out) or bool(self._wanted) or bool(self._promotable)
        return waits or self._starting.can_start(self.spec) or bool(self._unpromotable)

    @property
    def busy(self) -> bool:
        """Whether trials have a worker; a trial whose worker dies becomes a task again."""
        return bool(self._queue.out)

    @property
    def out(self) -> list[int]:
        """The trials that have a worker."""
        return list(self._queue.out)

    @property
    def held(self) -> bool:
        """Whether a person paused the whole sweep."""
        return self._queue.limit_of("person") == 0

    def attend(self) -> None:
        """Call the attendants. Runners do this a few times per second, unless a trial's code blocks them."""
        for attendant in self._attendants:
            attendant(self)

    def next_task(self) -> Task | None:
        """The next trial to run, or None if there is none now. Until the director is `exhausted`, a later call may have
        one.

        The order is: unfinished trials, those that persons asked for, baselines, the sampler's proposals.
        """
        self._asked_at = self._asked_at or time.monotonic()
        self.attend()
        while not self.exhausted and self._queue.has_slot:
            if (number := self._queue.next_waiting()) is not None:
                if task := self._continue(self.history.trials[number]):
                    return task
                continue
            if self._wanted:
                if trial := self._starting.start_wanted(self._wanted.pop(0), self.spec):
                    return self._hand_out(trial, 0)
                continue
            if (number := self._queue.next_ready()) is not None:
                return self._continue(self.history.trials[number])
            if promotable := self._promotable:
                return self._continue(self.history.trials[promotable[0]])
            if self._starting.can_start(self.spec):
                if trial := self._starting.start_next(self.spec):
                    return self._hand_out(trial, 0)
            elif not self._prune_unpromotable():
                return None
        return None

    def _prune_unpromotable(self) -> bool:
        """Prune trials that can no longer be promoted, before confirmations start. Returns whether there were any."""
        found = self._unpromotable
        for trial in found:
            self._endings.prune_waiting(trial)
        return bool(found)

    def _continue(self, trial: TrialHistory) -> Task | None:
        """The task of a trial that was started before. None if it pauses at a rung or ends at once.

        Its last driver may have died before it recorded the pause or the end.
        """
        if self._starting.end_at_once(trial):
            return None
        if trial.verdict is not None:
            self._endings.write_verdict(trial.verdict)
        else:
            self._endings.apply_pruner(trial, self._study.owed_verdict(trial.number))
        if self._is_to_wait(trial):
            self._pause(trial.number, Pause("rung"))
            return None
        self._study.leave_rung(trial.number)
        deaths = self._deaths.get(trial.number)
        if trial.paused:
            reason = "a slot is free" if continues_by_itself(trial) else "promoted"
        else:
            reason = f"its worker died: {deaths[-1]}" if deaths else "resumed"
        if trial.lengthened:
            reason = f"extended to {trial.started.epochs} epochs"
        attempt = len(trial.attempts) + 1
        self._recorder.record(AttemptStarted(trial=trial.number, attempt=attempt, reason=reason))
        return self._hand_out(trial, attempt)

    def _hand_out(self, trial: TrialHistory, attempt: int) -> Task:
        self._queue.out[trial.number] = attempt
        return self._starting.task(trial, attempt, self.spec, len(self._deaths.get(trial.number, ())))

    def take(self, number: int, message: Message) -> bool:
        """Record a message of a trial. Returns False if the worker is to stop the trial as it is."""
        if self._queue.out.get(number) != message.attempt:
            return False
        trial = self.history.trials[number]
        if isinstance(message, TrialEnd) and message.state == "blocked":
            self.block(f"trial {number}: {message.reason}")
        if trial.lengthened:  # its worker trained for the old length; this epoch is repeated or kept
            self._wait_for_another_worker(number)
            return False
        if isinstance(message, TrialEnd):
            self._endings.end(number, message)
            return False
        if isinstance(message, Preparing):
            if self._on_preparing:
                self._on_preparing(trial, message.what)
        elif message.epoch > trial.last_epoch:  # also after a verdict that came too late: the files are of it
            self._take_epoch(trial, message)
        self.attend()
        if trial.verdict is not None:  # only its pictures are left to draw
            return True
        if self.stopping:
            self._stop(trial)
            return False
        pause = self._queue.due(number)
        if self._is_to_wait(trial) and (pause is None or pause.reason != "person"):
            pause = Pause("rung") if pause or not self._promote_at_once(number) else None
        if pause is None or trial.last_epoch == trial.started.epochs:
            return True
        self._pause(number, pause)
        return False

    def _is_to_wait(self, trial: TrialHistory) -> bool:
        return self._study.is_at_rung(trial.number) and not self._endings.is_spared(trial)

    def _promote_at_once(self, number: int) -> bool:
        """Let a trial at a rung keep its worker if it is the next one to continue. Returns whether it is."""
        self._study.wait(number)
        if self._promotable[:1] != [number]:
            return False
        self._recorder.record(TrialUnpaused(trial=number))
        self._study.promote(number)
        return True

    def _stop(self, trial: TrialHistory) -> None:
        """Leave a trial to a later driver."""
        if self._has_run_out and trial.last_epoch < trial.started.epochs:
            self._pause(trial.number, Pause("budget"))
        else:
            self._endings.stop(trial.number, self.stop_reason or "the runner ended")

    def _pause(self, number: int, pause: Pause) -> None:
        self._queue.pause_now(number, pause)
        if pause.reason == "rung":
            self._study.wait(number)
        else:
            self._study.hold(number)

    def _take_epoch(self, trial: TrialHistory, report: EpochReport) -> None:
        self._recorder.record(EpochDone(trial=trial.number, **report.results()))
        self._deaths.pop(trial.number, None)
        self._endings.apply_pruner(trial, self._study.take(trial.number, report.epoch, report.metrics))

    def record_act(self, act: Act) -> None:
        """Record an act, and apply it from now on."""
        self._recorder.record(act)
        if act.spec:
            self.spec = SweepSpec.model_validate(act.spec)
        self._wanted += act.wanted
        for change in reversed(act.lengthened):
            self._lengthen(change)

    def _lengthen(self, change: Lengthened) -> None:
        """Continue a trial with more epochs; if it has a worker, after its next report."""
        self._study.lengthen(change)
        trial = self.history.trials[change.trial]
        if trial.number in self._queue.out:
            return
        self._starting.take_kept_state(trial)
        if not trial.paused:
            self._queue.put_first(trial.number)

    def record_drawn(self, drawn: TrialDrawn) -> None:
        """Record that a trial's pictures are on disk."""
        self._recorder.record(drawn)

    def give_up(self, number: int, reason: str) -> str:
        """Stop a trial for good, as a person asked. Returns the answer. Raises InputError."""
        return self._endings.give_up(number, reason)

    def limit(self, slots: int | None, by: str, who: str | None = None) -> None:
        """Limit the running trials to `slots`, on behalf of `by`. The lowest of all limits holds; None removes this
        one.

        Trials beyond the limit are paused at their next report, the least promising first, and continue when slots are
        free.
        """
        self._queue.limit(slots, by, who)

    def pause(self, number: int, reason: PauseReason, who: str | None = None) -> None:
        """Pause a trial at its next report, or at once if it has no worker. Raises InputError.

        A trial in its last epoch, or with a verdict, ends instead.
        """
        self._queue.pause(number, reason, who)
        self._study.hold(number)

    def least_promising(self) -> list[int]:
        """The trials that have a worker, the least promising first."""
        return by_promise(self.history, self._queue.out)[::-1]

    def move(self, number: int) -> None:
        """Let a trial leave its GPU at its next report and continue on another one. If it is finishing, it ends."""
        with suppress(InputError):
            self._queue.pause(number, "share")

    def unpause(self, number: int, who: str | None = None) -> None:
        """Continue a paused trial next, under its number. Raises InputError if it is not paused.

        A trial that waits at a rung is promoted; one that a person paused there waits again.
        """
        self._queue.unpause(number, who)
        self._study.promote(number)

    def is_at_rung(self, number: int) -> bool:
        """Whether a trial will wait at its rung when it continues."""
        return self._study.is_at_rung(number)

    def worker_died(self, number: int, reason: str) -> None:
        """Queue the trial to continue from its last checkpoint. After too many deaths without an epoch it fails.

        On preemptible machines a trial may lose any number of workers, as long as it finishes epochs.
        """
        if number not in self._queue.out:
            return
        trial, deaths = self.history.trials[number], self._deaths.setdefault(number, [])
        deaths.append(reason)
        if len(deaths) > MAX_RETRIES:
            when = f"after epoch {trial.last_epoch}" if trial.last_epoch else "in its first epoch"
            self._endings.close(number, "failed", f"its worker died {len(deaths)} times {when}, last: {reason}")
        else:
            self._wait_for_another_worker(number)

    def _wait_for_another_worker(self, number: int) -> None:
        if self.history.trials[number].verdict is None and (pause := self._queue.due(number)):
            self._pause(number, pause)  # at its last report, since nothing runs any more
        else:
            self._queue.release(number)
            self._queue.put_first(number)

    def all_workers_died(self, reason: str) -> None:
        """Queue every trial that has a worker, as `worker_died` does."""
        for number in sorted(self._queue.out, reverse=True):
            self.worker_died(number, reason)

    def leave(self) -> None:
        """Stop or, after a budget, pause the trials that have not ended: those with a worker, and those that wait for
        one.

        Paused trials stay paused; if nothing else is left to do, they are the reason why the driver ends. Trials that
        can no longer be promoted are pruned.
        """
        others = [str(trial.number) for trial in self.history.paused if not trial.waits_at_rung]
        if self.stop_reason is None and others:
            self.request_stop(f"trial {', '.join(others)} paused")
        elif self.stop_reason is None:
            self._prune_unpromotable()
        for trial in self.history.unfinished:
            if trial.state == "running":
                self._stop(trial)
