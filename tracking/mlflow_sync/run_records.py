"""What MLflow records about a sweep, computed from its events: tags, parameters, points.

Nothing here reads the clock: every time is the journal's, so a replay gives exactly the same values.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeGuard

from tracking.mlflow_sync.progress import PARENT, GroupChanged, GroupRuns, Point, SweepProgress, first_of, group_run
from tracking.record.events import (
    Act,
    AttemptStarted,
    DriverStarted,
    DriverStopped,
    EpochDone,
    Event,
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
"""Tag of the runs whose weights MLflow has: their size and the first digits of their SHA-256."""
DRAWN_TAG = "drawn.epochs"
"""Tag of the runs whose pictures MLflow has: the number of epochs that they show."""
ITERATION_LOSS = "iteration/train_loss"
ITERATION_RATE = "iteration/learning_rate"

_STATUS = {"done": "FINISHED", "pruned": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_PAUSED = "SCHEDULED"

Ending = TrialEnded | TrialPaused | DriverStopped | SweepEnded | GroupChanged
"""After these events a run has no worker until it is resumed; a group has one while its state is `running`."""

RunEvent = Event | GroupChanged
"""The events of one run."""


@dataclass
class RunWork:
    """The records of one run from one part of the journal. `driver` is the one that started it.

    `end` is None if the run continues after this part. `drawn` is the number of epochs that its pictures show, if they
    were drawn in this part. `resumed_ms` is when it last got a worker or a driver, 0 if not in this part.
    """

    started: SweepStarted | TrialStarted | None = None
    driver: DriverStarted | None = None
    attempt: int | None = None
    points: list[Point] = field(default_factory=list)
    end: Ending | None = None
    drawn: int | None = None
    resumed_ms: int = 0


@dataclass
class EventGrouper:
    """Groups a journal's events by run, part by part.

    `settled` has the runs whose records are complete, with the last event of each: their events up to that one are left
    out. `running` has the trials without an end so far, with the time (ms) of the last event of each.
    """

    settled: dict[int, "LastEvent"]
    running: dict[int, int] = field(default_factory=dict)
    seen_epochs: dict[int, int] = field(default_factory=dict)
    driver: DriverStarted | None = None
    progress: SweepProgress = field(default_factory=SweepProgress)
    groups: GroupRuns = field(default_factory=GroupRuns)

    def group(self, events: Iterable[Event]) -> dict[int, RunWork]:
        """The records of the next part, by run. An epoch that is in the journal twice is given once."""
        works: dict[int, RunWork] = {}
        for event in events:
            if isinstance(event, DriverStarted):
                self._close_dead(works)
                self.driver = event
            for number, one in by_run(event, self.groups):
                self._note(number, one)
                if number not in self.settled:
                    self._add(works.setdefault(number, RunWork()), one)
                elif self.settled[number].is_at(one):
                    del self.settled[number]
            points = self.progress.points(event)
            if points and PARENT not in self.settled:
                works.setdefault(PARENT, RunWork()).points.extend(points)
        return works

    def _note(self, number: int, event: RunEvent) -> None:
        if isinstance(event, Act):  # it changes trials, and is also noted if the own run of the sweep is settled
            self.seen_epochs |= {change.trial: change.epoch for change in event.lengthened}
        elif _is_end(event):
            self.running.pop(number, None)
        elif isinstance(event, TrialStarted | AttemptStarted | EpochDone | GroupChanged):
            self.running[number] = event.time_ms

    def _close_dead(self, works: dict[int, RunWork]) -> None:
        """End runs that an earlier driver left running when it died. They continue when they are resumed."""
        reason = death_of(self.driver)
        for number, time_ms in self.running.items():
            if number not in self.settled:
                works.setdefault(number, RunWork()).end = TrialEnded(
                    time_ms=time_ms, trial=number, state="stopped", reason=reason, final=False,
                    epochs=self.seen_epochs.get(number, 0),
                )  # fmt: skip
        self.running.clear()

    def _add(self, work: RunWork, event: RunEvent) -> None:
        match event:
            case SweepStarted() | TrialStarted():
                work.started, work.driver = event, self.driver
            case DriverStarted():
                work.end, work.resumed_ms = None, event.time_ms
            case AttemptStarted():
                work.attempt, work.end, work.drawn, work.resumed_ms = event.attempt, None, None, event.time_ms
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
            case GroupChanged():
                work.points.extend(event.points)
                work.end, work.resumed_ms = (event, work.resumed_ms) if _is_end(event) else (None, event.time_ms)
            case TrialPaused() | DriverStopped() | SweepEnded():
                work.end = event


def by_run(event: Event, groups: GroupRuns) -> Iterator[tuple[int, RunEvent]]:
    """The changes by an event: first of the group's run, then of the trial's run."""
    yield from groups.changes(event)
    yield run_number(event), event


def _is_end(event: RunEvent) -> TypeGuard[Ending]:
    return isinstance(event, Ending) and not (isinstance(event, GroupChanged) and event.state == "running")


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
    """The end of a run, and its last event: the end itself, or the drawing of its pictures after it."""

    end: Ending
    event: Ending | TrialDrawn

    def is_at(self, event: RunEvent) -> bool:
        """Whether this is the last event, read again."""
        return isinstance(event, type(self.event)) and event.time_ms == self.event.time_ms

    @property
    def drawn(self) -> int | None:
        """The number of epochs that its pictures show, if they were drawn after its end."""
        return self.event.epochs if isinstance(self.event, TrialDrawn) else None


def last_events(events: Iterable[Event], groups: GroupRuns) -> dict[int, LastEvent]:
    """The last event of each run that had only its pictures drawn after its end; adds the groups to `groups`."""
    found: dict[int, LastEvent] = {}
    for event in events:
        for number, one in by_run(event, groups):
            if _is_end(one):
                found[number] = LastEvent(one, one)
            elif isinstance(one, TrialDrawn) and number in found:
                found[number] = LastEvent(found[number].end, one)
            else:
                found.pop(number, None)
    return found


_OF_GROUP = "group "


def run_key(sweep: SweepStarted, number: int) -> str:
    """Value of the unique tag by which a run is found."""
    if number == PARENT:
        return sweep.sweep_id
    first = first_of(number)
    return f"{sweep.sweep_id}/{number if first is None else f'{_OF_GROUP}{first}'}"


def number_of(key: str) -> int:
    """The run that has this value of the unique tag."""
    _, _, place = key.partition("/")
    if place.startswith(_OF_GROUP):
        return group_run(int(place.removeprefix(_OF_GROUP)))
    return int(place) if place else PARENT


def run_title(number: int) -> str:
    """The name of a run in messages."""
    if number == PARENT:
        return "the sweep's own run"
    first = first_of(number)
    return f"trial {number}" if first is None else f"the group of trial {first}"


def run_name(number: int, started: SweepStarted | TrialStarted) -> str:
    """Name shown in MLflow's table."""
    if isinstance(started, SweepStarted):
        return started.name
    title = started.title if first_of(number) is None else started.group_title
    return title if started.baseline else f"{started.trial:04d} {title}"


def first_tags(
    number: int, sweep: SweepStarted, started: SweepStarted | TrialStarted, driver: DriverStarted | None
) -> dict[str, str]:
    """The tags with which a run is created."""
    tags = {**sweep.tags, "sweep": sweep.name, STATE_TAG: "running", "mlflow.source.name": "fer-sweeps"}
    if driver is not None:
        tags["versions"] = ", ".join(f"{name} {version}" for name, version in sorted(driver.versions.items()))
        if driver.git_commit:
            tags["mlflow.source.git.commit"] = driver.git_commit
        if driver.gpus:
            tags["gpus"] = driver.gpus
    if isinstance(started, SweepStarted):
        return {**tags, KEY_TAG: run_key(sweep, PARENT), "space": sweep.space}
    tags |= {KEY_TAG: run_key(sweep, number), "config.id": started.config_id}
    if first_of(number) is None:
        tags |= {"trial": str(started.trial), "seed": str(started.seed)}
    if group := started.group:
        place = f"{group.member + 1} of {group.size}"
        tags |= {"group": str(group.first)}
        tags |= {"member": place} if first_of(number) is None else {"members": str(group.size)}
    if started.wanted:
        tags["asked.for"] = f"{started.wanted.verb} of trial {started.wanted.source}"
    return tags | ({"baseline": started.baseline} if started.baseline else {})


def death_of(driver: DriverStarted | None) -> str:
    """The reason for closing a run whose driver died."""
    return f"its driver died (host {driver.host}, pid {driver.pid})" if driver else "its driver died"


def ending_tags(end: Ending) -> dict[str, str]:
    """Tags of an ended run."""
    match end:
        case TrialEnded():
            return {STATE_TAG: end.state, REASON_TAG: end.reason or ""} | ({"note": end.note} if end.note else {})
        case TrialPaused():
            return {STATE_TAG: "waiting" if end.reason == "rung" else "paused", REASON_TAG: end.text}
        case GroupChanged():
            return {STATE_TAG: end.state, REASON_TAG: end.reason}
        case DriverStopped():
            return {STATE_TAG: "stopped", REASON_TAG: end.reason}
        case SweepEnded():
            counts = {state: str(getattr(end, state)) for state in ("done", "pruned", "failed", "stopped")}
            return {STATE_TAG: "done", **{f"trials.{state}": count for state, count in counts.items()}}


def ending_status(end: Ending) -> str:
    """MLflow's status of an ended run."""
    match end:
        case TrialEnded() | GroupChanged():
            return _STATUS.get(end.state, _PAUSED)
        case TrialPaused():
            return _PAUSED
        case DriverStopped():
            return _STATUS["stopped"]
        case SweepEnded():
            return _STATUS["done"]
