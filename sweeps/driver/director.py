"""Owns a running sweep's state: assigns trials, records reports, applies pruning. Knows neither Ray nor MLflow.

Order of writes, always: the worker's checkpoint, then the journal, then the study, then whoever listens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from sweeps.config import TrialConfig
from sweeps.driver.pauses import Pause, Pauses, continues_by_itself, paused_trials
from sweeps.errors import InputError
from sweeps.planning.seeds import derive_seed
from sweeps.planning.study import Proposal, Study
from sweeps.space import Space
from sweeps.spec import SweepSpec
from sweeps.trial.messages import OBJECTIVE, SYSTEM, EpochReport, Message, Preparing, Task, TrialEnd
from tracking.record.events import (
    Act,
    AttemptStarted,
    EpochDone,
    Event,
    PauseReason,
    TrialEnded,
    TrialPaused,
    TrialStarted,
    TrialState,
    TrialUnpaused,
    Verdict,
    Wanted,
)
from tracking.record.files import write_json
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.journal import Journal
from tracking.record.layout import SweepFolder, TrialFolder

MAX_RETRIES = 3
"""How often a trial whose worker died is given to another, without an epoch in between."""

Listener = Callable[[Event, SweepHistory], None]

Attendant = Callable[["Director"], None]
"""Is called often, between any two decisions, and may pause, unpause and limit; it looks at its own clock."""


class Director:
    """One sweep's decisions. Every method is called from one thread; every event is on disk before it has effect."""

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
        self.stop_reason: str | None = None
        self.blocked: str | None = None
        self._folder, self._spec, self._space = folder, spec, space
        self._journal, self._study, self._resolve = journal, study, resolve
        self._listeners, self._attendants, self._on_preparing = listeners, attendants, on_preparing
        self._deadline = time.monotonic() + time_budget_seconds if time_budget_seconds else None
        self._budget_seconds = time_budget_seconds
        self._deaths: dict[int, list[str]] = {}
        self._out: dict[int, int] = {}  # trial → the attempt whose reports count
        self._waiting = [trial.number for trial in history.unfinished if trial.state != "paused"]
        self._wanted = history.wanted
        self._pauses = Pauses(history)
        self.limit(spec.max_concurrent, "max-concurrent")

    def request_stop(self, reason: str) -> None:
        """Have every trial leave at its next report; safe to call from a signal handler."""
        self.stop_reason = self.stop_reason or reason

    def block(self, reason: str) -> None:
        """As `request_stop`, for a fault: other trials would meet it too."""
        self.blocked = reason
        self.request_stop(reason)

    @property
    def stopping(self) -> bool:
        """Whether trials are to leave, resumable: a signal, or the time budget used up."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            self.request_stop(f"the time budget of {self._budget_seconds:.0f} s is used up")
        return self.stop_reason is not None

    @property
    def faults(self) -> list[str]:
        """What went wrong with trials, divergence aside, which is a result."""
        ends = [trial.end for trial in self.history.trials.values() if trial.end]
        failed = [f"trial {end.trial}: {end.reason}" for end in ends if end.state == "failed" and not end.diverged]
        return failed + ([self.blocked] if self.blocked else [])

    @property
    def exhausted(self) -> bool:
        """Whether no further task will come, but of trials that are out. Paused trials that wait for a person do not
        keep a driver."""
        return self.stopping or self._to_do == len(self._out)

    @property
    def demand(self) -> int:
        """How many slots the sweep would use now if it had them."""
        return self._pauses.within_limits(self._to_do, but_of="share")

    @property
    def _to_do(self) -> int:
        """Trials that are out, that wait for a slot, and that are still to be started."""
        to_start = max(self._spec.trials - self.history.next_number, 0)
        return len(self._out) + len(self._waiting) + len(self._pauses.ready) + to_start

    def attend(self) -> None:
        """Let the attendants act. Runners call it a few times per second, where no trial's code is in the way."""
        for attendant in self._attendants:
            attendant(self)

    def next_task(self) -> Task | None:
        """The next trial to run: unfinished ones first, then baselines, then the sampler's.

        None where there is none now: a later call may have one, until the director is `exhausted`.
        """
        self.attend()
        while not self.exhausted and self._has_slot():
            if self._waiting:
                return self._take_up(self.history.trials[self._waiting.pop(0)])
            if self._wanted:
                return self._start_wanted(self._wanted.pop(0))
            if (number := self._pauses.next_ready()) is not None:
                return self._take_up(self.history.trials[number])
            if task := self._start(self.history.next_number):
                return task
        return None

    @property
    def has_task(self) -> bool:
        """Whether `next_task` has one now, unless a draw comes to nothing."""
        self.attend()
        return not self.exhausted and self._has_slot()

    def _has_slot(self) -> bool:
        slots = self._pauses.slots
        return slots is None or len(self._out) < slots

    @property
    def busy(self) -> bool:
        """Whether trials are out; one whose worker dies comes back as a task."""
        return bool(self._out)

    def take(self, number: int, message: Message) -> bool:
        """Record what a trial says; False tells its worker to leave the trial as it stands."""
        if self._out.get(number) != message.attempt:
            return False
        if isinstance(message, TrialEnd):
            self._end(number, message)
            return False
        trial = self.history.trials[number]
        if isinstance(message, Preparing):
            if self._on_preparing:
                self._on_preparing(trial, message.what)
        elif message.epoch > trial.last_epoch:  # also one after a verdict that was seen late: its files are of it
            self._take_epoch(number, message)
        self.attend()
        if trial.verdict is not None:  # one that was given up has only its pictures left to draw
            return True
        if self.stopping:
            self._stop(number)
            return False
        pause = self._pauses.due(number, self._out)
        if pause is None or trial.last_epoch == trial.started.epochs:
            return True
        self._pause(number, pause)
        return False

    @property
    def spec(self) -> SweepSpec:
        """What the sweep is asked to do now; an act may change it."""
        return self._spec

    @property
    def held(self) -> bool:
        """Whether a person paused the whole sweep."""
        return self._pauses.limit_of("person") == 0

    def record_act(self, act: Act) -> None:
        """Record what a person asked, and go by it from now on."""
        self._record(act)
        if act.spec:
            self._spec = SweepSpec.model_validate(act.spec)
        self._wanted += act.wanted

    def add_time(self, seconds: float) -> str:
        """Lengthen the time budget; what follows. Raises InputError where the sweep has none."""
        if self._deadline is None or self._budget_seconds is None:
            raise InputError("the sweep has no time budget now; --time-budget holds for one run of the driver")
        self._deadline += seconds
        self._budget_seconds += seconds
        return f"a time budget of {self._budget_seconds:.0f} s"

    def give_up(self, number: int, reason: str) -> str:
        """Give a trial up for good, as a person asked; what follows. Raises InputError."""
        trial = self._unfinished(number)
        self._refuse_given_up(trial)
        if number in self._out:
            verdict = Verdict(trial=number, state="stopped", epoch=trial.last_epoch, reason=reason)
            self._record(verdict)
            self._study.finish(number, "nothing")
            self._write_verdict(verdict)
            return f"trial {number} winds up at its next report"
        self._waiting = [one for one in self._waiting if one != number]
        self._pauses.ready.discard(number)
        self._close(number, "stopped", reason)
        return f"trial {number} is stopped"

    def _refuse_given_up(self, trial: TrialHistory) -> None:
        if trial.verdict is not None:
            raise InputError(f"trial {trial.number} winds up already: {trial.verdict.reason}")

    @property
    def out(self) -> list[int]:
        """The trials that have a worker."""
        return list(self._out)

    @property
    def paused(self) -> list[TrialHistory]:
        """The paused trials, by number."""
        return paused_trials(self.history)

    def limit(self, slots: int | None, by: str) -> None:
        """Have at most `slots` trials out, by the word of `by`; the least of all words holds, None takes it back.

        Trials beyond it are paused at their next report, the least promising first, and continue when there is room.
        """
        self._pauses.limit(slots, by)
        self._pauses.balance(self._out)

    def pause(self, number: int, reason: PauseReason, who: str | None = None) -> None:
        """Have a trial leave at its next report, with its state; at once where it waits. Raises InputError.

        One that is at its last epoch, or that was given up, ends instead.
        """
        trial = self._unfinished(number)
        self._refuse_given_up(trial)
        if trial.state == "paused" and not (continues_by_itself(trial) and reason == "person"):
            raise InputError(f"trial {number} is paused already")
        if reason == "person" and self._pauses.is_asked(number):
            raise InputError(f"trial {number} pauses at its next report already")
        if number in self._out:
            self._pauses.ask(number, Pause(reason, who))
            return
        if number in self._waiting:
            self._waiting.remove(number)
        self._pauses.ready.discard(number)
        self._pause(number, Pause(reason, who))

    def unpause(self, number: int, who: str | None = None) -> None:
        """Have a paused trial continue next, under its number. Raises InputError where it is not paused."""
        trial = self._unfinished(number)
        if trial.state == "paused":
            self._record(TrialUnpaused(trial=number, who=who))
            self._pauses.ready.discard(number)
            self._waiting = [number, *(one for one in self._waiting if one != number)]
        elif not self._pauses.withdraw(number):
            raise InputError(f"trial {number} is not paused; it is {trial.state}")

    def _unfinished(self, number: int) -> TrialHistory:
        trial = self.history.trials.get(number)
        if trial is None:
            raise InputError(f"no trial {number}; there are 0 to {self.history.next_number - 1}")
        if trial.is_over:
            raise InputError(f"trial {number} is over; it is {trial.state}")
        return trial

    def _pause(self, number: int, pause: Pause) -> None:
        epoch = self.history.trials[number].last_epoch
        self._record(TrialPaused(trial=number, epoch=epoch, reason=pause.reason, who=pause.who))
        self._released(number)

    def _released(self, number: int) -> None:
        self._out.pop(number, None)
        self._pauses.left(number)

    def worker_died(self, number: int, reason: str) -> None:
        """Queue the trial, to continue from its last checkpoint; after too many deaths without an epoch it has failed.

        A trial on machines that are taken away now and then may lose any number of workers, as long as it gets on.
        """
        if number not in self._out:
            return
        deaths = self._deaths.setdefault(number, [])
        deaths.append(reason)
        if len(deaths) <= MAX_RETRIES:
            self._die(number)
            return
        epoch = self.history.trials[number].last_epoch
        self._close(number, "failed", f"its worker died {len(deaths)} times after epoch {epoch}, last: {reason}")

    def _die(self, number: int) -> None:
        """A trial whose pause is due stays paused, after its last report: nothing runs that could be waited for."""
        pause = self._pauses.due(number, self._out)
        if pause and self.history.trials[number].verdict is None:
            self._pause(number, pause)
        else:
            self._released(number)
            self._waiting.insert(0, number)

    def all_workers_died(self, reason: str) -> None:
        """Queue every trial that is out, as `worker_died` does: what ran them is gone."""
        for number in sorted(self._out, reverse=True):
            self.worker_died(number, reason)

    def leave(self) -> None:
        """Mark what has not ended as stopped, to be resumed: what is out, and what waits for another worker.

        Paused trials stay paused; where nothing else is left to do, they are why the driver leaves.
        """
        if self.stop_reason is None and self.paused:
            self.request_stop(f"trial {', '.join(str(trial.number) for trial in self.paused)} paused")
        for trial in self.history.unfinished:
            if trial.state == "running":
                self._stop(trial.number)

    def _start(self, number: int) -> Task | None:
        """Record the next trial; None where its draw came to nothing, which is recorded as a failed trial."""
        begun = sum(trial.started.baseline is not None for trial in self.history.trials.values())
        baseline = next(iter(self._space.baselines[begun:]), None)
        if baseline:
            self._study.add_undrawn(number)
            proposal = Proposal(baseline.config, {}, {})
        else:
            proposal = self._study.propose(number)
        config = self._resolve(proposal.config) if proposal.config else None
        config_id = config.id if config else ""
        self._record(
            TrialStarted(
                trial=number,
                config_id=config_id,
                config=config.model_dump(mode="json") if config else {},
                seed=derive_seed(self._spec.seed, config_id),
                epochs=baseline.epochs_in(self._spec.max_epochs) if baseline else self._spec.max_epochs,
                report_epochs=baseline.epochs if baseline else None,
                baseline=baseline.name if baseline else None,
                params=proposal.params,
                distributions=proposal.distributions,
            )
        )
        if config is None:
            self._close(number, "failed", proposal.fault)
            return None
        if twin := self._done_alike(self.history.trials[number]):
            self._take_over(number, twin)
            return None
        return self._task(self.history.trials[number], attempt=0)

    def _start_wanted(self, wanted: Wanted) -> Task:
        """Record and hand out a trial that a person asked for; the sampler sees it where the space can draw it."""
        number, config = self.history.next_number, self._resolve(TrialConfig.model_validate(wanted.config))
        started = TrialStarted(
            trial=number,
            config_id=config.id,
            config=config.model_dump(mode="json"),
            seed=self.history.trials[wanted.source].started.seed,
            epochs=wanted.epochs,
            params=wanted.params,
            distributions=wanted.distributions,
            wanted=wanted,
        )
        if wanted.params:
            self._study.add_drawn(started)
        else:
            self._study.add_undrawn(number)
        self._record(started)
        return self._task(self.history.trials[number], attempt=0)

    def _done_alike(self, trial: TrialHistory) -> TrialHistory | None:
        """A trial that is done with the same configuration, seed and length, from its beginning: the same result."""

        def work(one: TrialHistory) -> tuple[str, int, int]:
            return one.started.config_id, one.started.seed, one.started.epochs

        done = (one for one in self.history.trials.values() if one.state == "done" and one.epochs)
        return next((one for one in done if work(one) == work(trial) and one.started.wanted is None), None)

    def _take_over(self, number: int, twin: TrialHistory) -> None:
        """End a trial without an epoch, with another's result: the sampler learns of it as of any."""
        assert twin.end
        reason = f"equal to trial {twin.number}, whose result it takes over: nothing is trained twice"
        self._close(number, "done", reason, results=twin.end.best)

    def _take_up(self, trial: TrialHistory) -> Task:
        if trial.verdict is not None:
            self._write_verdict(trial.verdict)
        else:
            self._obey_pruner(trial, self._study.owed_verdict(trial.number))
        deaths = self._deaths.get(trial.number)
        died = f"its worker died: {deaths[-1]}" if deaths else "resumed"
        reason = "unpaused" if trial.paused else died
        attempt = len(trial.attempts) + 1
        self._record(AttemptStarted(trial=trial.number, attempt=attempt, reason=reason))
        return self._task(trial, attempt)

    def _task(self, trial: TrialHistory, attempt: int) -> Task:
        self._out[trial.number] = attempt
        folder = self._folder.trial(trial.number).create()
        self._move_state(trial.started, folder)
        write_json(folder.config, trial.started.config)
        config = TrialConfig.model_validate(trial.started.config)
        return Task(
            trial=trial.number,
            attempt=attempt,
            folder=str(folder.root.absolute()),
            config=config,
            gpu_share=self._spec.gpu_share(config.net.name),
            seed=trial.started.seed,
            epochs=trial.started.epochs,
            faces=self._spec.faces,
            data=self._spec.data,
            device=self._spec.device,
            threads=self._spec.threads,
            figures=self._spec.figures,
            recorded=tuple(
                EpochReport(attempt=attempt, epoch=done.epoch, metrics=done.metrics, iterations=done.iterations)
                for done in trial.epochs
            ),
        )

    def _move_state(self, started: TrialStarted, folder: TrialFolder) -> None:
        """Give a fork the state that was kept for it: to its worker it is a trial that continues."""
        kept = self._folder.forks / started.wanted.act if started.wanted else None
        if kept and kept.is_dir():
            for path in kept.iterdir():
                path.replace(folder.root / path.name)
            kept.rmdir()

    def _take_epoch(self, number: int, report: EpochReport) -> None:
        event = EpochDone(trial=number, epoch=report.epoch, metrics=report.metrics, iterations=report.iterations)
        self._record(event)
        self._deaths.pop(number, None)
        reason = self._study.report(number, report.epoch, report.metrics[OBJECTIVE])
        self._obey_pruner(self.history.trials[number], reason)

    def _obey_pruner(self, trial: TrialHistory, reason: str | None) -> None:
        """Give the trial up if the pruner has a reason; baselines, and trials at their last epoch, are spared."""
        wanted = trial.started.wanted
        of_source = wanted is not None and wanted.epoch is not None and trial.last_epoch <= wanted.epoch
        spared = trial.started.baseline is not None or trial.last_epoch == trial.started.epochs or of_source
        if reason is None or spared or trial.verdict is not None:
            return
        verdict = Verdict(trial=trial.number, state="pruned", epoch=trial.last_epoch, reason=reason)
        self._record(verdict)
        self._study.finish(trial.number, "pruned")
        self._write_verdict(verdict)

    def _write_verdict(self, verdict: Verdict) -> None:
        write_json(self._folder.trial(verdict.trial).verdict, {"state": verdict.state, "reason": verdict.reason})

    def _end(self, number: int, end: TrialEnd) -> None:
        verdict = self.history.trials[number].verdict
        if end.state == "blocked":
            self.block(f"trial {number}: {end.reason}")
            self._close(number, "stopped", end.reason, final=False)
        elif end.state == "failed":
            self._close(number, "failed", end.reason, diverged=end.diverged, note=end.note)
        elif verdict is not None:
            self._close(number, verdict.state, verdict.reason, scores=end.scores, note=end.note)
        else:
            self._close(number, "done", None, scores=end.scores, note=end.note)

    def _stop(self, number: int) -> None:
        self._close(number, "stopped", self.stop_reason or "the runner ended", final=False)

    def _close(
        self,
        number: int,
        state: TrialState,
        reason: str | None,
        *,
        diverged: bool = False,
        final: bool = True,
        note: str | None = None,
        scores: Mapping[str, float] = MappingProxyType({}),
        results: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        trial = self.history.trials[number]
        best = trial.best_epoch()
        values = dict(results)
        if best:
            own = {f"best_{name}": value for name, value in best.metrics.items() if not name.startswith(SYSTEM)}
            values = {**scores, **own, "best_epoch": float(best.epoch)}
        unfit = diverged or not trial.started.config
        told = self._study.lesson(number, state, unfit=unfit) if final else None
        self._record(
            TrialEnded(
                trial=number,
                state=state,
                reason=reason,
                note=note,
                best=values,
                epochs=trial.last_epoch,
                diverged=diverged,
                final=final,
                told=told,
            )
        )
        self._released(number)
        if told:
            self._study.finish(number, told, values.get(f"best_{OBJECTIVE}"))

    def _record(self, event: Event) -> None:
        self._journal.append(event)
        self.history.apply(event)
        for listener in self._listeners:
            listener(event, self.history)
