"""MLflow's runs that summarise several trials: the run of the sweep, and one per group of trials.

Their values are computed from all of a sweep's events in order, so a replay gives exactly the same values.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from tracking.metrics.groups import mean_interval
from tracking.record.events import (
    OBJECTIVE,
    Act,
    AttemptStarted,
    DriverStopped,
    EpochDone,
    Event,
    Group,
    SweepEnded,
    TrialEnded,
    TrialPaused,
    TrialStarted,
    TrialState,
)

PARENT = -1
"""The number of the sweep's own run; a trial's run has the trial's number."""

_BEST = f"best_{OBJECTIVE}"

MemberState = TrialState | Literal["running", "waiting", "paused"]


@dataclass(frozen=True, slots=True)
class Point:
    """One value of one metric."""

    key: str
    value: float
    time_ms: int
    step: int


@dataclass
class SweepProgress:
    """A sweep's progress, computed from all its events in order, independent of which runs are already complete.

    Its points are those of the sweep's own run: the best value over the total number of epochs, and the counts over the
    number of trials ended. An epoch that is in the journal twice counts once.
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


def group_run(first: int) -> int:
    """The number of the run of the group whose first trial is `first`."""
    return PARENT - 1 - first


def first_of(number: int) -> int | None:
    """The first trial of a run's group. None for the run of a trial or of the sweep."""
    return PARENT - 1 - number if number < PARENT else None


@dataclass(frozen=True)
class GroupChanged:
    """A change of a group: its new state and points."""

    time_ms: int
    state: MemberState
    reason: str = ""
    points: tuple[Point, ...] = ()


@dataclass
class _Member:
    trial: int
    state: MemberState = "running"
    reason: str = ""
    best: float | None = None


@dataclass
class _Group:
    place: Group
    members: dict[int, _Member] = field(default_factory=dict)
    left_off: MemberState | None = None
    """The state in which its sweep left it off. None while it continues, and again once a member does."""

    @property
    def values(self) -> list[float]:
        """The best accuracies of the members that are done."""
        members = (one for _, one in sorted(self.members.items()))
        return [one.best for one in members if one.state == "done" and one.best is not None]

    def state(self) -> tuple[MemberState, str]:
        """Its state, and why: it is done when all members are done. A member that is pruned ends the group."""
        states = [one.state for one in self.members.values()]
        if "running" in states:
            return "running", ""
        if states.count("done") == self.place.size:
            return "done", ""
        for one in self.members.values():
            if one.state in ("waiting", "paused"):
                return one.state, f"trial {one.trial}: {one.reason}"
        is_going_on = self.place.confirms is not None and len(self.members) < self.place.size
        for one in self.members.values():
            if one.state != "done" and not is_going_on:
                return one.state, f"trial {one.trial} is {one.state}: {one.reason}"
        return "running", ""

    def points(self, time_ms: int) -> Iterator[Point]:
        """The mean of the members that are done, which is also the group's value; with two or more, its interval."""
        values = self.values
        if not values:
            return
        mean = sum(values) / len(values)
        shown = {_BEST: mean, f"group/mean_{OBJECTIVE}": mean, "group/members": float(len(values))}
        if interval := mean_interval(values):
            shown |= {f"group/mean_{OBJECTIVE}_low": interval.low, f"group/mean_{OBJECTIVE}_high": interval.high}
        for key, value in shown.items():
            yield Point(key, value, time_ms, len(values))


class GroupRuns:
    """A sweep's groups so far."""

    def __init__(self) -> None:
        self._groups: dict[int, _Group] = {}
        self._places: dict[int, Group] = {}

    def above(self, number: int) -> int:
        """The parent of the run with this number; the sweep's own run has none."""
        place = self._places.get(number)
        return group_run(place.first) if place else PARENT

    def changes(self, event: Event) -> Iterator[tuple[int, TrialStarted | GroupChanged]]:
        """Take the next event; return the changes of groups, each with the number of the group's run.

        A group starts with its first trial.
        """
        match event:
            case DriverStopped():
                yield from self._leave_off(event.time_ms, "stopped", event.reason)
            case SweepEnded():
                yield from self._leave_off(event.time_ms, "pruned", "")
            case TrialStarted() | AttemptStarted() | EpochDone() | TrialPaused() | TrialEnded():
                yield from self._of_member(event)

    def _of_member(
        self, event: TrialStarted | AttemptStarted | EpochDone | TrialPaused | TrialEnded
    ) -> Iterator[tuple[int, TrialStarted | GroupChanged]]:
        if isinstance(event, TrialStarted) and event.group:
            self._places[event.trial] = event.group
        place = self._places.get(event.trial)
        if place is None:
            return
        number, group = group_run(place.first), self._groups.setdefault(place.first, _Group(place))
        group.left_off = None
        points: list[Point] = []
        match event:
            case TrialStarted():
                if not group.members:
                    yield number, event
                group.members[place.member] = _Member(event.trial)
            case AttemptStarted():
                group.members[place.member].state = "running"
            case TrialPaused():
                member = group.members[place.member]
                member.state, member.reason = "waiting" if event.reason == "rung" else "paused", event.text
            case TrialEnded():
                best = event.best.get(_BEST)
                group.members[place.member] = _Member(event.trial, event.state, event.reason or "", best)
                points += group.points(event.time_ms) if event.state == "done" else []
        state, reason = group.state()
        yield number, GroupChanged(event.time_ms, state, reason, tuple(points))

    def _leave_off(self, time_ms: int, state: MemberState, reason: str) -> Iterator[tuple[int, GroupChanged]]:
        """End the groups whose next member will not start, or not before the sweep is resumed."""
        for first, group in self._groups.items():
            # A group that was given up stays so, also when a later driver of the sweep ends.
            if group.state()[0] == "running" and group.left_off not in (state, "pruned"):
                group.left_off = state
                done = f"{len(group.values)} of {group.place.size} members done"
                why = reason or f"{done}; it could no longer win"
                yield group_run(first), GroupChanged(time_ms, state, why)
