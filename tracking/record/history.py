"""Replays a journal's events into the state of a sweep and of each of its trials."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from tracking.errors import TrackingError
from tracking.metrics.pareto import best_first
from tracking.record.best_epoch import best_epoch
from tracking.record.events import (
    OBJECTIVE,
    Act,
    AttemptStarted,
    Drawn,
    DriverStarted,
    DriverStopped,
    EpochDone,
    Event,
    Lengthened,
    SweepEnded,
    SweepStarted,
    TrialDrawn,
    TrialEnded,
    TrialPaused,
    TrialStarted,
    TrialState,
    TrialTested,
    TrialUnpaused,
    Verdict,
    Wanted,
)
from tracking.record.journal import collector_paused, read
from tracking.record.objectives import Costs, costs_in, costs_of, merit_of, objectives_of, rank_in_words, value_at_rung


@dataclass
class TrialHistory:
    """The state of one trial. `end` and `paused` are None while it runs, also after it was resumed."""

    started: TrialStarted
    epochs: list[EpochDone] = field(default_factory=list)
    attempts: list[AttemptStarted] = field(default_factory=list)
    verdict: Verdict | None = None
    end: TrialEnded | None = None
    paused: TrialPaused | None = None
    has_worker: bool = True
    """Whether it has a worker. Every worker ends with its driver, also with one that was killed."""
    last_signs: list[int] = field(init=False)
    """For each worker that it had: when that worker started or last recorded something, in ms."""
    lengthened: Lengthened | None = None
    """Set when it is given more epochs, until a worker starts it with the new length."""
    tests: list[TrialTested] = field(default_factory=list)
    tested_epochs: list[EpochDone | None] = field(default_factory=list)
    """For each of the tests, the epoch whose net it evaluated."""

    def __post_init__(self) -> None:
        self.last_signs = [self.started.time_ms]

    @property
    def number(self) -> int:
        """The trial's number in this sweep."""
        return self.started.trial

    @property
    def state(self) -> TrialState | Literal["running", "waiting", "paused"]:
        """`running`, `waiting` at a rung, `paused`, or how it ended."""
        if self.end:
            return self.end.state
        if self.waits_at_rung:
            return "waiting"
        return "paused" if self.paused else "running"

    @property
    def reason(self) -> str:
        """Why it is paused, ended or given up; may be empty."""
        if self.paused:
            return self.paused.text
        if self.end:
            return self.end.reason or ""
        return self.verdict.reason if self.verdict else ""

    @property
    def waits_at_rung(self) -> bool:
        """Whether it is paused until it is among the best of its rung."""
        return self.paused is not None and self.paused.reason == "rung"

    @property
    def is_over(self) -> bool:
        """Whether it has ended for good: a resume does not continue it."""
        return self.end is not None and self.end.final

    @property
    def can_be_retried(self) -> bool:
        """Whether it failed for a reason that need not recur. A trial that diverged would diverge again."""
        return (
            self.end is not None and self.end.state == "failed" and not self.end.diverged and bool(self.started.config)
        )

    @property
    def is_out(self) -> bool:
        """Whether it has a worker, or had one when its driver died."""
        return self.end is None and self.paused is None

    @property
    def is_confirming(self) -> bool:
        """Whether it checks another trial's accuracy under a new seed."""
        return self.started.group is not None and self.started.group.confirms is not None

    @property
    def last_epoch(self) -> int:
        """Highest epoch recorded; 0 before the first."""
        return self.epochs[-1].epoch if self.epochs else 0

    @property
    def is_in_last_epoch(self) -> bool:
        """Whether its next report, if any, is its end."""
        return self.last_epoch >= self.started.epochs - 1

    def note_sign(self, time_ms: int) -> None:
        """Note that its worker recorded something."""
        self.last_signs[-1] = max(self.last_signs[-1], time_ms)

    def lengthen(self, change: Lengthened, who: str) -> None:
        """Give it more epochs. A trial that was done is then not over; one that waits at a rung after `epoch` leaves
        it. Epochs that are trained again are dropped, but not the time that they took.
        """
        self.started = self.started.model_copy(update={"epochs": change.epochs})
        self.epochs = [done for done in self.epochs if done.epoch <= change.epoch]
        self.lengthened = change
        if self.end and self.end.final:
            reason = f"extended to {change.epochs} epochs by {who}"
            self.end = self.end.model_copy(update={"state": "stopped", "reason": reason, "final": False})
        if self.paused and self.paused.epoch > change.epoch:
            left = self.paused.model_copy(update={"epoch": change.epoch})
            self.paused = None if left.reason == "rung" else left

    def best_epoch(self) -> EpochDone | None:
        """The best epoch by the metric that its configuration names (`keep_best`). None before the first."""
        return best_epoch(self.epochs, self.started.config.get("keep_best", OBJECTIVE))

    def first_test(self) -> TrialTested | None:
        """The first evaluation of the best epoch's net on the test split.

        A net that was evaluated before the trial found a better epoch is another one.
        """
        best = self.best_epoch()
        return next((test for test, of in zip(self.tests, self.tested_epochs, strict=True) if of == best), None)

    def costs(self, objectives: Sequence[str], last_epoch: int | None = None) -> Costs:
        """Its objectives other than the accuracy, from its epochs so far; NaN if unknown."""
        costs = [costs_in(done.metrics, objectives) for done in self.epochs[:last_epoch]]
        return costs_of(costs) if costs else (math.nan,) * (len(objectives) - 1)

    @property
    def best_accuracy(self) -> float | None:
        """Validation accuracy at the best epoch; None before the first."""
        best = self.best_epoch()
        return best.metrics[OBJECTIVE] if best else None


@dataclass
class TrialGroup:
    """The trials of one configuration under `size` seeds or on `size` folds. A trial without a group has `size` 1."""

    size: int
    confirms: int | None = None
    members: dict[int, TrialHistory] = field(default_factory=dict)

    @property
    def first(self) -> TrialHistory:
        """Its first trial, the one that the sampler proposed."""
        return self.members[min(self.members)]

    @cached_property
    def accuracies(self) -> dict[int, float]:
        """The best validation accuracy of each member that has one."""
        best = {member: trial.best_accuracy for member, trial in sorted(self.members.items())}
        return {member: accuracy for member, accuracy in best.items() if accuracy is not None}

    @cached_property
    def averaged(self) -> dict[int, float]:
        """The accuracies of its mean: of the members that are done, since only those have an interval, once there are
        two; before, of all that have one.
        """
        return self.done if len(self.done) > 1 else self.accuracies

    @cached_property
    def mean(self) -> float:
        """The mean of the averaged accuracies."""
        return sum(self.averaged.values()) / len(self.averaged)

    @property
    def done(self) -> dict[int, float]:
        """The accuracies of the members that are done."""
        return {member: one for member, one in self.accuracies.items() if self.members[member].state == "done"}

    @property
    def was_retried(self) -> bool:
        """Whether one of its members replaces one that failed."""
        wanted = (trial.started.wanted for trial in self.members.values())
        return any(one is not None and one.verb == "retry" for one in wanted)

    @property
    def is_whole(self) -> bool:
        """Whether all of its members are done. Always true for a trial without a group."""
        return self.size == 1 or len(self.done) == self.size

    def ranked(self) -> list[TrialHistory]:
        """Its members with a finished epoch, the best first."""
        accuracies = self.accuracies
        return [self.members[member] for member in sorted(accuracies, key=lambda one: (-accuracies[one], one))]


@dataclass
class SweepHistory:
    """The state of one sweep. `stopped` and `finished` are the last event of its last driver, None while one runs."""

    started: SweepStarted
    trials: dict[int, TrialHistory] = field(default_factory=dict)
    drivers: list[DriverStarted] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    stopped: DriverStopped | None = None
    finished: SweepEnded | None = None
    is_driven: bool = False
    """Whether a driver runs it, by its events: one that was killed did not record its end."""
    held: Act | None = None
    """The act that paused the whole sweep, until a person unpauses it or its driver ends."""
    next_number: int = 0
    """Number of the next trial."""
    configurations: int = 0
    """Number of configurations that have begun; a group counts once."""
    spec: dict[str, Any] = field(default_factory=dict)
    """The options of the sweep, as they were last recorded."""

    def __post_init__(self) -> None:
        self.spec = self.started.spec

    @classmethod
    def replay(cls, events: Iterable[Event]) -> "SweepHistory":
        """Build the history from a journal's events.

        Raises:
            TrackingError: no events, or one of a trial that was never started.
        """
        remaining = iter(events)
        first = next(remaining, None)
        if not isinstance(first, SweepStarted):
            raise TrackingError("the journal is empty: the sweep never started")
        history = cls(first)
        with collector_paused():
            for event in remaining:
                history.apply(event)
        return history

    @classmethod
    def load(cls, journal: Path) -> "SweepHistory":
        """Replay the journal at this path.

        Raises:
            TrackingError: as `read` and `replay`.
        """
        return cls.replay(read(journal))

    def apply(self, event: Event) -> None:
        """Apply one more event. An epoch already known is dropped: a restarted worker may report it again.

        Raises:
            TrackingError: an event of a trial that was never started.
        """
        match event:
            case SweepStarted():
                raise TrackingError(f"two openings in one journal ({event.name})")
            case DriverStarted():
                self.end_driver()
                self.drivers.append(event)
                self.spec = event.spec or self.spec
                self.stopped = self.finished = self.held = None
                self.is_driven = True
            case DriverStopped():
                self.end_driver()
                self.stopped, self.held = event, None
            case SweepEnded():
                self.end_driver()
                self.finished, self.held = event, None
            case Act():
                self.acts.append(event)
                if event.verb in ("pause", "unpause") and not event.refused and "trial" not in event.arguments:
                    self.held = event if event.verb == "pause" else None
                self.spec = event.spec or self.spec
                for change in event.lengthened:
                    self._trial(change.trial).lengthen(change, event.who)
                more = event.lengthened or event.wanted or int(self.spec.get("trials", 0)) > self.configurations
                if self.finished and more:
                    reason = f"more to do since {event.verb} by {event.who}"
                    self.stopped, self.finished = DriverStopped(time_ms=self.finished.time_ms, reason=reason), None
            case TrialStarted():
                self.trials[event.trial] = TrialHistory(event)
                self.next_number = max(self.next_number, event.trial + 1)
                self.configurations += not event.is_further_member
            case _:
                _apply_to_trial(self._trial(event.trial), event)

    def end_driver(self) -> None:
        """Note that its driver has ended, and every worker with it. A driver that was killed did not record this."""
        self.is_driven = False
        for trial in self.trials.values():
            trial.has_worker = False

    @property
    def numbers(self) -> str:
        """Which trials there are, as text."""
        return f"0 to {self.next_number - 1}" if self.trials else "none yet"

    @property
    def redrawn(self) -> Mapping[int, Drawn | None]:
        """For each trial drawn before the space was edited: how the new space draws it, or None if it cannot."""
        return last_redrawn(self.drivers)

    @property
    def wanted(self) -> list[Wanted]:
        """The trials that persons asked for and that have not started yet, in order."""
        started = Counter(trial.started.wanted.act for trial in self.trials.values() if trial.started.wanted)
        return [one for act in self.acts for one in act.wanted[started[act.act] :]]

    @property
    def max_epochs(self) -> int:
        """Number of epochs of a trial that is not pruned."""
        asked = self.spec.get("max_epochs")
        return int(asked) if asked else max((trial.started.epochs for trial in self.trials.values()), default=0)

    def is_short(self, trial: TrialHistory) -> bool:
        """Whether a baseline trained for fewer epochs than the sweep's trials and than its report."""
        return trial.started.baseline is not None and trial.last_epoch < self._whole(trial)

    def _whole(self, baseline: TrialHistory) -> int:
        return min(self.max_epochs, baseline.started.report_epochs or self.max_epochs)

    def length_note(self, trial: TrialHistory) -> str:
        """A note on a baseline's length: "13 of 36 epochs", "36 of the report's 174 epochs"; or empty."""
        if self.is_short(trial):
            return f"{trial.last_epoch} of {self._whole(trial)} epochs"
        own = trial.started.report_epochs
        if trial.started.baseline is None or own is None or trial.last_epoch >= own:
            return ""
        recipe = trial.started.config.get("recipe", {})
        is_scaled = recipe.get("schedule") == "scaled" and recipe.get("reference_iterations") is not None
        return f"{trial.last_epoch} of the report's {own} epochs" + (", its schedule scaled" if is_scaled else "")

    @property
    def baselines(self) -> dict[str, TrialHistory]:
        """The baselines that have begun, by name; for a group its first trial."""
        started = [one for one in self.trials.values() if one.started.baseline and not one.started.is_further_member]
        return {one.started.baseline: one for one in started if one.started.baseline}

    @property
    def to_retry(self) -> list[TrialHistory]:
        """Failed trials that can be trained again and were not yet, by number."""
        retried = self.retried
        return [one for number, one in sorted(self.trials.items()) if one.can_be_retried and number not in retried]

    @property
    def retried(self) -> set[int]:
        """The failed trials that are trained again as new trials, or are waiting to be."""
        return {one.source for act in self.acts for one in act.wanted if one.verb == "retry"}

    @property
    def undrawn(self) -> list[TrialHistory]:
        """Trials that are over and whose pictures are not drawn yet, by number."""
        return [one for _, one in sorted(self.trials.items()) if one.end and one.end.final and one.end.undrawn]

    @property
    def unfinished(self) -> list[TrialHistory]:
        """Trials that are not over, by number. A resume continues them first."""
        return [trial for _, trial in sorted(self.trials.items()) if not trial.is_over]

    @property
    def paused(self) -> list[TrialHistory]:
        """Trials that are paused, by number."""
        return [trial for trial in self.unfinished if trial.paused]

    def groups(self) -> list["TrialGroup"]:
        """The trials by configuration. A trial without a group forms its own."""
        found: dict[int, TrialGroup] = {}
        for number, trial in sorted(self.trials.items()):
            place = trial.started.group
            first, member, size = (place.first, place.member, place.size) if place else (number, 0, 1)
            group = found.setdefault(first, TrialGroup(size, place.confirms if place else None))
            group.members[member] = trial  # a retry replaces the failed trial
        return list(found.values())

    def group_of(self, trial: TrialHistory) -> "TrialGroup":
        """The group of a trial."""
        return next(one for one in self.groups() if any(member is trial for member in one.members.values()))

    def fork_of(self, trial: TrialHistory) -> Wanted | None:
        """The request by which a trial began from the state of another one with other settings. None if it did not.

        A retry that continues a fork is such a trial too.
        """
        wanted = trial.started.wanted
        while wanted and wanted.verb == "retry" and wanted.epoch is not None:
            wanted = self._trial(wanted.source).started.wanted
        return wanted if wanted and wanted.epoch is not None else None

    def ranked_groups(self) -> list["TrialGroup"]:
        """The groups with a finished epoch, by the mean of their members' best validation accuracies.

        Confirmed groups come first, then complete ones. Among equal ones the lower number is first.
        """
        scored = [group for group in self.groups() if group.accuracies]
        return sorted(scored, key=lambda one: (one.confirms is None or not one.is_whole, not one.is_whole, -one.mean))

    def ranked(self) -> list[TrialHistory]:
        """The trials with a finished epoch, by best validation accuracy; among equal ones the lower number is first.

        The trials of a group are together, at the rank of the group's mean.
        """
        return [trial for group in self.ranked_groups() for trial in group.ranked()]

    def reason_of(self, trial: TrialHistory) -> str:
        """Why a trial is paused, ended or given up, with its rank if it waits at a rung; may be empty."""
        return self.reasons([trial])[trial.number]

    def reasons(self, trials: Iterable[TrialHistory]) -> dict[int, str]:
        """The reasons of several trials, by number; see `reason_of`."""
        rungs: dict[tuple[int, str | None], list[int]] = {}
        found = {}
        for trial in trials:
            found[trial.number] = trial.reason
            if trial.paused and trial.paused.reason == "share":
                who = self.held.who if self.held else None
                found[trial.number] = trial.paused.model_copy(update={"who": who}).text
            if trial.waits_at_rung:
                epoch, net = trial.last_epoch, trial.started.net if self.spec.get("rungs") == "net" else None
                order = rungs[epoch, net] = rungs.get((epoch, net)) or self._ranked_after(epoch, net)
                rank = (
                    rank_in_words(1 + order.index(trial.number), len(order), epoch, self.loss_epochs)
                    if trial.number in order
                    else "not ranked"
                )
                found[trial.number] += f" after epoch {epoch}, {rank}"
        return found

    def _competes_for(self, trial: TrialHistory, time_ms: int) -> int:
        """The trial by which a trial's group competed at that time: its first member, which a retry replaces."""
        group = trial.started.group
        if group is None:
            return trial.number
        firsts = (one for one in self.trials.values() if one.started.group and one.started.group.first == group.first
                  and one.started.group.member == 0)  # fmt: skip
        return max(one.number for one in firsts if one.number <= trial.number or one.started.time_ms < time_ms)

    def _ranked_after(self, epoch: int, net: str | None) -> list[int]:
        """The numbers of the trials that compete at a rung, of one net or of all nets, the best first."""
        dropped = {
            self._competes_for(one, one.end.time_ms) for one in self.trials.values() if one.end and one.end.drops_out
        }
        objectives = objectives_of(self.spec)
        rung = sorted(
            (
                merit_of(
                    value_at_rung(epoch, one.epochs[epoch - 1].metrics, self.loss_epochs), one.costs(objectives, epoch)
                ),
                one.number,
            )
            for one in self.trials.values()
            if not one.started.is_further_member
            and one.number not in dropped
            and one.last_epoch >= epoch
            and net in (None, one.started.net)
        )
        return [rung[place][1] for place in best_first([merit for merit, _ in rung])]

    @property
    def loss_epochs(self) -> int:
        """Number of epochs up to which trials are compared by val loss. Earlier versions did not record it."""
        return int(self.spec.get("loss_epochs", 0))

    @property
    def states(self) -> Counter[str]:
        """The number of trials in each state that any has, in the order of their first trials."""
        return Counter(trial.state for trial in self.trials.values())

    def count(self, state: TrialState | Literal["running", "waiting", "paused"]) -> int:
        """The number of trials in `state`."""
        return self.states[state]

    def _trial(self, number: int) -> TrialHistory:
        try:
            return self.trials[number]
        except KeyError:
            raise TrackingError(f"the journal has an event of trial {number}, which it never started") from None


def last_redrawn(events: Iterable[Event]) -> Mapping[int, Drawn | None]:
    """How the space draws earlier trials since it was last edited; empty if it never was."""
    found = [event.redrawn for event in events if isinstance(event, DriverStarted) and event.redrawn is not None]
    return found[-1] if found else {}


def _apply_to_trial(
    trial: TrialHistory,
    event: AttemptStarted | EpochDone | Verdict | TrialPaused | TrialUnpaused | TrialEnded | TrialDrawn | TrialTested,
) -> None:
    match event:
        case AttemptStarted():
            trial.attempts.append(event)
            trial.has_worker = True
            trial.last_signs.append(event.time_ms)
            trial.end = trial.paused = trial.lengthened = None
        case EpochDone():
            if event.epoch > trial.last_epoch:
                trial.epochs.append(event)
                trial.note_sign(event.time_ms)
        case Verdict():
            trial.verdict = event
        case TrialPaused():
            trial.end, trial.paused, trial.has_worker = None, event, False
        case TrialUnpaused() if trial.paused:
            trial.paused = trial.paused.model_copy(update={"reason": "share", "who": None})
        case TrialEnded():
            if trial.has_worker:
                trial.note_sign(event.time_ms)
            trial.end, trial.paused, trial.has_worker = event, None, False
        case TrialDrawn() if trial.end and trial.end.epochs == event.epochs:
            trial.end = trial.end.model_copy(update={"undrawn": False})
        case TrialTested():
            trial.tests.append(event)
            trial.tested_epochs.append(trial.best_epoch())
