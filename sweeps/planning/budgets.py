"""Stops a sweep when a budget is used up, when little gain is expected, or when too many trials fail."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Protocol

from sweeps.errors import InputError
from sweeps.search.expected_gain import LEAST_DONE, LEAST_TRIALS, ExpectedGain, expected_gain
from sweeps.spec import SweepSpec
from tracking.record.events import now_ms
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.spans import attempt_spans

_HOUR_MS = 3_600_000
_LEAST_ENDED = 4


@dataclass(frozen=True)
class Used:
    """What a sweep has used, over all its drivers."""

    cpu_hours: float
    gpu_hours: float
    hours: float
    """Hours during which a driver ran, from the start of its first trial."""


class Stoppable(Protocol):
    """A sweep that can be asked to stop."""

    @property
    def history(self) -> SweepHistory:
        """The history of the sweep so far."""
        ...

    def request_stop(self, reason: str) -> None:
        """Stop every trial at its next report; the sweep can be resumed."""
        ...

    def run_out(self, reason: str) -> None:
        """Pause every trial at its next report, since a budget is used up; the sweep can be resumed."""
        ...


class Budgets:
    """The budgets of a sweep. Its director calls this regularly.

    A trial uses its cores and its share of the GPUs while it has a worker. If a driver died, its last record counts as
    its end.
    """

    def __init__(self, spec: SweepSpec, until: datetime | None = None, clock: Callable[[], int] = now_ms) -> None:
        self._spec, self._until, self._clock = spec, until, clock
        self._over: dict[tuple[int, int], tuple[float, float]] = {}
        """The core and GPU hours of finished trials, by number and attempts: a trial may get more epochs."""
        self._earlier: dict[tuple[float, ...], float] = {}  # starts of drivers -> hours of all but the last
        self._first: dict[int, int] = {}  # number of drivers -> when the first trial of the last one started
        self._gain: tuple[tuple[int, int], ExpectedGain | None] = (
            (-1, -1),
            None,
        )  # keyed by the numbers of epochs and of finished trials

    def __call__(self, sweep: Stoppable) -> None:
        """Stop the sweep if a budget is used up, or if little gain is expected."""
        if reason := self._used_up(sweep.history):
            sweep.run_out(reason)
        elif reason := self._too_little_gain(sweep.history, int(sweep.history.spec["trials"])):  # `extend` changes it
            sweep.request_stop(reason)

    @property
    def is_any(self) -> bool:
        """Whether there is any limit."""
        spec = self._spec
        limits = (spec.cpu_hours, spec.gpu_hours, spec.max_cost, spec.until_gain, self._until)
        return any(limit is not None for limit in limits)

    def exceeded(self, history: SweepHistory) -> str | None:
        """Why the sweep may not go on: the budget that is used up, or the gain that is expected; None if it may."""
        return self._used_up(history) or self._too_little_gain(history, self._spec.trials)

    def _used_up(self, history: SweepHistory) -> str | None:
        for option, limit, used, unit in self._limits(history):
            if used >= limit:
                return f"{option} {limit:g} is used up: {_amount(used)} {unit}"
        if self._until and self._clock() >= self._until.timestamp() * 1000:
            return f"it is past {self._until_text()}, the time of --until"
        return None

    def _too_little_gain(self, history: SweepHistory, trials: int) -> str | None:
        least, gain = self._spec.until_gain, self._gain_ahead(history)
        # Of a sweep whose trials have all started it would only cut off those that run, and the confirmations.
        if least is not None and gain and gain.points < least and trials > history.configurations:
            expected = f"{gain.trials} more trials are expected to gain {gain.points:.2f} points"
            return f"{expected}, less than --until-gain {least:g}"
        return None

    def refuse_if_used_up(self, history: SweepHistory) -> None:
        """Raise InputError if nothing is left for a resume."""
        if reason := self.exceeded(history):
            raise InputError(f"{self._spec.name}: {reason}; {self.way_on}")

    @property
    def way_on(self) -> str:
        """How a sweep continues whose budget is used up."""
        return f"to continue, repeat its command with another limit, --name {self._spec.name} and --resume"

    def lines(self, history: SweepHistory | None) -> list[str]:
        """One line per budget: its limit, and how much of it is used."""
        found = [f"{_amount(used)} of {limit:g} {unit}" for _, limit, used, unit in self._limits(history)]
        if self._spec.until_gain is not None:
            found.append(self._gain_line(history))
        return found + ([f"until {self._until_text()}"] if self._until else [])

    def _until_text(self) -> str:
        """The time of --until, with its date unless that is today."""
        assert self._until
        today = datetime.fromtimestamp(self._clock() / 1000, self._until.tzinfo).date()
        return f"{self._until:%H:%M}" if self._until.date() == today else f"{self._until:%Y-%m-%d %H:%M}"

    def used(self, history: SweepHistory) -> Used:
        """What was used so far, including running trials."""
        hours = [self._hours_of(trial, history) for trial in history.trials.values()]
        return Used(sum(cores for cores, _ in hours), sum(gpus for _, gpus in hours), self._driver_hours(history))

    def _gain_line(self, history: SweepHistory | None) -> str:
        gain = self._gain_ahead(history)
        now = (
            f"{gain.points:.2f} now" if gain else f"known after {LEAST_TRIALS} drawn trials, {LEAST_DONE} of them done"
        )
        return f"until 50 % more trials are expected to gain less than {self._spec.until_gain:g} points ({now})"

    def _gain_ahead(self, history: SweepHistory | None) -> ExpectedGain | None:
        """The gain that is expected from more trials. None if too little is known, or without --until-gain."""
        if history is None or self._spec.until_gain is None:
            return None
        trials = history.trials.values()
        now = (sum(trial.last_epoch for trial in trials), sum(trial.is_over for trial in trials))
        if now != self._gain[0]:
            self._gain = (now, expected_gain(history))
        return self._gain[1]

    def _limits(self, history: SweepHistory | None) -> Iterator[tuple[str, float, float, str]]:
        spec = self._spec
        if (spec.cpu_hours, spec.gpu_hours, spec.max_cost) == (None, None, None):
            return  # called at each event; most sweeps have no budget
        used = self.used(history) if history else Used(0.0, 0.0, 0.0)
        for option, limit, amount, unit in (
            ("--cpu-hours", spec.cpu_hours, used.cpu_hours, "CPU hours"),
            ("--gpu-hours", spec.gpu_hours, used.gpu_hours, "GPU hours"),
            ("--max-cost", spec.max_cost, used.hours * (spec.price_per_hour or 0.0), "spent"),
        ):
            if limit is not None:
                yield option, limit, amount, unit

    def _hours_of(self, trial: TrialHistory, history: SweepHistory) -> tuple[float, float]:
        if (key := (trial.number, len(trial.attempts))) in self._over:
            return self._over[key]
        spans = attempt_spans(trial)
        if trial.has_worker:
            spans[-1] = (spans[-1][0], max(self._clock(), spans[-1][1]))
        cpu, gpu = 0.0, 0.0
        for begin, end in spans:
            spec, hours = self._spec_at(begin, history), (end - begin) / _HOUR_MS
            cpu += hours * (spec.cpus_per_trial or spec.threads)
            gpu += hours * spec.gpu_share(trial.started.net)
        if trial.is_over:
            self._over[key] = (cpu, gpu)
        return cpu, gpu

    def _spec_at(self, time_ms: int, history: SweepHistory) -> SweepSpec:
        """The options of the driver at that time."""
        specs = [driver.spec for driver in history.drivers[:-1] if driver.time_ms <= time_ms and driver.spec]
        last = history.drivers[-1].time_ms if history.drivers else 0
        return self._spec if time_ms >= last or not specs else SweepSpec.model_validate(specs[-1])

    def _driver_hours(self, history: SweepHistory) -> float:
        if self._spec.max_cost is None or not history.drivers:
            return 0.0
        starts, over = [driver.time_ms for driver in history.drivers], history.stopped or history.finished
        if not over and not history.is_driven:  # it was killed, so its records give its end, too
            return self._hours_by_records([*starts, math.inf], history)
        last = over.time_ms if over else self._clock()
        return self._hours_by_records(starts, history) + (last - self._first_start(history, last)) / _HOUR_MS

    def _first_start(self, history: SweepHistory, otherwise: int) -> int:
        """When the first trial of the last driver started: a sweep may wait long for a slot before."""
        place, since = len(history.drivers), history.drivers[-1].time_ms
        if place not in self._first:
            trials = history.trials.values()
            starts = [one.time_ms for trial in trials for one in (trial.started, *trial.attempts)]
            if not (starts := [start for start in starts if start >= since]):
                return otherwise
            self._first[place] = min(starts)
        return self._first[place]

    def _hours_by_records(self, starts: Sequence[float], history: SweepHistory) -> float:
        """The hours between the first and the last record after each of these times, until the next one."""
        if (key := tuple(starts)) not in self._earlier:
            signs = [sign for trial in history.trials.values() for span in attempt_spans(trial) for sign in span]
            spans = [[sign for sign in signs if begin <= sign < end] or [0] for begin, end in pairwise(starts)]
            self._earlier[key] = sum(max(span) - min(span) for span in spans) / _HOUR_MS
        return self._earlier[key]


def _amount(used: float) -> str:
    return f"{used:.2f}" if used >= 1 else f"{used:.3g}"


class FailureLimit:
    """Stops a sweep in which too many trials fail, probably for a reason other than their settings.

    It counts the trials that ended, or reached a rung at which they wait, since this object was made. After a resume it
    starts again from zero.
    """

    def __init__(self, share: float, history: SweepHistory) -> None:
        self._share = share
        self._before = {trial.number for trial in history.trials.values() if trial.is_over or trial.waits_at_rung}

    def __call__(self, sweep: Stoppable) -> None:
        """Stop the sweep if more than the allowed share has failed."""
        trials = [trial for trial in sweep.history.trials.values() if trial.number not in self._before]
        ended = [trial for trial in trials if trial.is_over or trial.waits_at_rung]
        failed = [trial.end for trial in ended if trial.end and trial.end.state == "failed"]
        if len(ended) < _LEAST_ENDED or len(failed) <= self._share * len(ended):
            return
        reasons = Counter((end.reason or "").partition(" (traceback in ")[0] for end in failed)
        reason, count = reasons.most_common(1)[0]
        sweep.request_stop(
            f"{len(failed)} of {len(ended)} trials failed, more than --max-failed {self._share:.0%} allows; "
            f"{count} of them: {reason}"
        )
