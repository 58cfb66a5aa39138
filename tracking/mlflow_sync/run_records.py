"""What MLflow records about a sweep, computed from its events: tags, parameters, points.

Nothing here reads the clock: every time is the journal's, so a replay gives the same to the last bit.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tracking.metrics.groups import mean_interval
from tracking.record.events import (
    OBJECTIVE,
    Act,
    AttemptStarted,
    DriverStarted,
    DriverStopped,
    EpochDone,
    Event,
    Group,
    SweepEnded,
    SweepStarted,
    TrialDrawn,
    TrialEnded,
    TrialPaused,
    TrialStarted,
    TrialTested,
)

KEY_TAG = "trial.key"
STATE_TAG = "state"
REASON_TAG = "reason"
WEIGHTS_TAG = "weights"
"""Tag on the runs whose weights MLflow has: bytes."""
DRAWN_TAG = "drawn.epochs"
"""Tag on the runs whose pictures MLflow has: how many epochs they show."""
ITERATION_LOSS = "iteration/train_loss"
ITERATION_RATE = "iteration/learning_rate"


PARENT = -1
"""The key of the sweep's own run, where others have their trial's number."""

_STATUS = {"done": "FINISHED", "pruned": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_PAUSED = "SCHEDULED"

Ending = TrialEnded | TrialPaused | DriverStopped | SweepEnded
"""After these a run has no worker until it is resumed."""


@dataclass(frozen=True, slots=True)
class Point:
    """One value of one metric."""

    key: str
    value: float
    time_ms: int
    step: int


@dataclass
class RunWork:
    """What one part of the journal says about one run.

    `driver` is the one that started it; `end` is None when the run continues after this part. `drawn` are the epochs
    that its pictures show, where they were drawn in this part.
    """

    started: SweepStarted | TrialStarted | None = None
    driver: DriverStarted | None = None
    attempt: int | None = None
    points: list[Point] = field(default_factory=list)
    end: Ending | None = None
    drawn: int | None = None
    goes_on: bool = False


@dataclass
class SweepProgress:
    """A sweep's progress, computed from all its events in order, whichever runs are settled.

    Its points are those of the sweep's own run: the best value over total epochs trained, the counts over trials ended.
    An epoch that the journal has twice counts once.
    """

    epochs: int = 0
    best: float | None = None
    ended: Counter[str] = field(default_factory=Counter)
    _seen: dict[int, int] = field(default_factory=dict)
    _over: dict[int, str] = field(default_factory=dict)

    def points(self, event: Event) -> list[Point]:
        """Take the next event; return the points that change."""
        match event:
            case EpochDone() if event.epoch > self._seen.get(event.trial, 0):
                self._seen[event.trial] = event.epoch
                self.epochs += 1
                value = event.metrics.get(OBJECTIVE, math.nan)
                if not (math.isfinite(value) and (self.best is None or value > self.best)):
                    return []
                self.best = value
                return [Point(f"sweep/best_{OBJECTIVE}", value, event.time_ms, self.epochs)]
            case TrialEnded(final=True):
                if event.trial in self._over:  # it was given more epochs
                    self.ended[self._over[event.trial]] -= 1
                self.ended[event.state] += 1
                self._over[event.trial] = event.state
                counts = {f"sweep/{state}": self.ended[state] for state in ("done", "pruned", "failed")}
                values = {**counts, "sweep/epochs": self.epochs}
                return [Point(key, float(value), event.time_ms, self.ended.total()) for key, value in values.items()]
            case Act():
                for change in event.lengthened:
                    self._seen[change.trial] = change.epoch
                return []
            case _:
                return []


@dataclass
class GroupMeans:
    """The means of groups, computed as `SweepProgress` is. Their points are those of each group's first trial."""

    _places: dict[int, Group] = field(default_factory=dict)
    _best: dict[int, dict[int, float]] = field(default_factory=dict)

    def points(self, event: Event) -> tuple[int, list[Point]]:
        """Take the next event in; return the trial whose group it completes, and what that changes."""
        if isinstance(event, TrialStarted) and event.group:
            self._places[event.trial] = event.group
        if not (isinstance(event, TrialEnded) and event.state == "done" and event.trial in self._places):
            return PARENT, []
        place, value = self._places[event.trial], event.best.get(f"best_{OBJECTIVE}")
        done = self._best.setdefault(place.first, {})
        if value is not None:
            done[place.member] = value
        interval = mean_interval(list(done.values())) if len(done) == place.size else None
        if interval is None:
            return PARENT, []
        names = {"": interval.value, "_low": interval.low, "_high": interval.high}
        points = [
            Point(f"group/mean_{OBJECTIVE}{end}", value, event.time_ms, len(done)) for end, value in names.items()
        ]
        return place.first, points


@dataclass
class EventGrouper:
    """Groups a journal's events by run, part by part.

    `settled` names runs whose records are complete, with the last event of each: all of theirs up to that
    one is left out. `running` are trials without an end so far, with the time (ms) of the last event of each.
    """

    settled: dict[int, "LastEvent"]
    running: dict[int, int] = field(default_factory=dict)
    seen_epochs: dict[int, int] = field(default_factory=dict)
    driver: DriverStarted | None = None
    progress: SweepProgress = field(default_factory=SweepProgress)
    means: GroupMeans = field(default_factory=GroupMeans)

    def group(self, events: Iterable[Event]) -> dict[int, RunWork]:
        """The next part, by run; an epoch that the journal has twice is there once."""
        works: dict[int, RunWork] = {}
        for event in events:
            if isinstance(event, DriverStarted):
                self._close_dead(works)
                self.driver = event
            number = run_number(event)
            self._note(number, event)
            if number not in self.settled:
                self._add(works.setdefault(number, RunWork()), event)
            elif self.settled[number].is_at(event):
                del self.settled[number]
            points = self.progress.points(event)
            for run, more in ((PARENT, points), self.means.points(event)):
                if more and run not in self.settled:
                    works.setdefault(run, RunWork()).points.extend(more)
        return works

    def _note(self, number: int, event: Event) -> None:
        match event:
            case TrialStarted() | AttemptStarted() | EpochDone():
                self.running[number] = event.time_ms
            case TrialEnded() | TrialPaused():
                self.running.pop(number, None)

    def _close_dead(self, works: dict[int, RunWork]) -> None:
        """End runs that an earlier driver left running when it died; they continue when they are resumed."""
        reason = death_of(self.driver)
        for number, time_ms in self.running.items():
            if number not in self.settled:
                works.setdefault(number, RunWork()).end = TrialEnded(
                    time_ms=time_ms, trial=number, state="stopped", reason=reason, final=False,
                    epochs=self.seen_epochs.get(number, 0),
                )  # fmt: skip
        self.running.clear()

    def _add(self, work: RunWork, event: Event) -> None:
        match event:
            case Act():
                self.seen_epochs |= {change.trial: change.epoch for change in event.lengthened}
            case SweepStarted() | TrialStarted():
                work.started, work.driver = event, self.driver
            case DriverStarted():
                work.end, work.goes_on = None, True
            case AttemptStarted():
                work.attempt, work.end, work.drawn, work.goes_on = event.attempt, None, None, True
            case EpochDone() if event.epoch > self.seen_epochs.get(event.trial, 0):
                self.seen_epochs[event.trial] = event.epoch
                work.points.extend(_epoch_points(event))
            case TrialEnded():
                work.end = event
                if event.final:
                    best = event.best.items()
                    work.points.extend(Point(key, value, event.time_ms, event.epochs) for key, value in best)
            case TrialDrawn():
                work.drawn = event.epochs
            case TrialTested():
                work.points.extend(Point(key, value, event.time_ms, event.look) for key, value in event.metrics.items())
            case TrialPaused() | DriverStopped() | SweepEnded():
                work.end = event


def run_number(event: Event) -> int:
    """The trial of an event, or `PARENT`."""
    match event:
        case SweepStarted() | DriverStarted() | Act() | DriverStopped() | SweepEnded():
            return PARENT
        case _:
            return event.trial


def _epoch_points(event: EpochDone) -> Iterator[Point]:
    for key, value in event.metrics.items():
        yield Point(key, value, event.time_ms, event.epoch)
    for iteration, loss, rate in event.iterations:
        yield Point(ITERATION_LOSS, loss, event.time_ms, iteration)
        yield Point(ITERATION_RATE, rate, event.time_ms, iteration)


@dataclass(frozen=True)
class LastEvent:
    """A run's end, and the run's last event: that end, or that its pictures were drawn after it."""

    end: Ending
    event: Ending | TrialDrawn

    def is_at(self, event: Event) -> bool:
        """Whether this is that last event, read again."""
        return isinstance(event, type(self.event)) and event.time_ms == self.event.time_ms

    @property
    def drawn(self) -> int | None:
        """The epochs that its pictures show, where they were drawn after its end."""
        return self.event.epochs if isinstance(self.event, TrialDrawn) else None


def last_events(events: Iterable[Event]) -> dict[int, LastEvent]:
    """The last event of each run that has nothing after its end but its pictures."""
    found: dict[int, LastEvent] = {}
    for event in events:
        number = run_number(event)
        if isinstance(event, Ending):
            found[number] = LastEvent(event, event)
        elif isinstance(event, TrialDrawn) and number in found:
            found[number] = LastEvent(found[number].end, event)
        else:
            found.pop(number, None)
    return found


def run_key(sweep: SweepStarted, number: int) -> str:
    """Value of the unique tag by which a run is found again."""
    return sweep.sweep_id if number == PARENT else f"{sweep.sweep_id}/{number}"


def run_name(started: SweepStarted | TrialStarted) -> str:
    """Name shown in MLflow's table."""
    if isinstance(started, SweepStarted):
        return started.name
    if started.baseline:
        return started.title
    return f"{started.trial:04d} {started.title}"


def first_tags(
    sweep: SweepStarted, started: SweepStarted | TrialStarted, driver: DriverStarted | None
) -> dict[str, str]:
    """Tags that a run is created with."""
    tags = {**sweep.tags, "sweep": sweep.name, STATE_TAG: "running", "mlflow.source.name": "fer-sweeps"}
    if driver is not None:
        tags["versions"] = ", ".join(f"{name} {version}" for name, version in sorted(driver.versions.items()))
        if driver.git_commit:
            tags["mlflow.source.git.commit"] = driver.git_commit
        if driver.gpus:
            tags["gpus"] = driver.gpus
    if isinstance(started, SweepStarted):
        return {**tags, KEY_TAG: run_key(sweep, PARENT), "space": sweep.space}
    tags |= {
        KEY_TAG: run_key(sweep, started.trial),
        "trial": str(started.trial),
        "seed": str(started.seed),
        "config.id": started.config_id,
    }
    if started.group:
        tags |= {"group": str(started.group.first), "member": f"{started.group.member + 1} of {started.group.size}"}
    if started.wanted:
        tags["asked.for"] = f"{started.wanted.verb} of trial {started.wanted.source}"
    return tags | ({"baseline": started.baseline} if started.baseline else {})


def death_of(driver: DriverStarted | None) -> str:
    """The reason for closing a run whose driver died first."""
    return f"its driver died (host {driver.host}, pid {driver.pid})" if driver else "its driver died"


def ending_tags(end: Ending) -> dict[str, str]:
    """Tags of an ended run."""
    match end:
        case TrialEnded():
            return {STATE_TAG: end.state, REASON_TAG: end.reason or ""} | ({"note": end.note} if end.note else {})
        case TrialPaused():
            return {STATE_TAG: "waiting" if end.reason == "rung" else "paused", REASON_TAG: end.text}
        case DriverStopped():
            return {STATE_TAG: "stopped", REASON_TAG: end.reason}
        case SweepEnded():
            counts = {state: str(getattr(end, state)) for state in ("done", "pruned", "failed", "stopped")}
            return {STATE_TAG: "done", **{f"trials.{state}": count for state, count in counts.items()}}


def ending_status(end: Ending) -> str:
    """MLflow's status of an ended run."""
    match end:
        case TrialEnded():
            return _STATUS[end.state]
        case TrialPaused():
            return _PAUSED
        case DriverStopped():
            return _STATUS["stopped"]
        case SweepEnded():
            return _STATUS["done"]
