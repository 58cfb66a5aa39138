"""Compares whole sweeps: the result of each, and how fast it was reached."""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from statistics import median

from fer_common.frozen import Finite
from tracking.metrics.front import front_volume, highest_costs, scored_trials
from tracking.record.events import OBJECTIVE
from tracking.record.history import SweepHistory
from tracking.record.objectives import ACCURACY_ALONE, objectives_of, point_in_words
from tracking.record.spans import MINUTE_MS, attempt_spans, trial_minutes


class Improvement(Finite):
    """An epoch, or the mean of a complete group, that was better than all earlier ones of its sweep.

    `minutes` is the time until then during which at least one trial was running.
    """

    trial: int
    trials: int
    """Number of trials started by then."""
    minutes: float
    accuracy: float


class SweepSummary(Finite):
    """The summary of a whole sweep. Accuracies are those of each trial's best epoch on the selecting split.

    The accuracy of a group is the mean of its trials.
    """

    name: str
    best_trial: int
    best: float
    best_minutes: float
    """Minutes until the best was known, during which at least one trial was running."""
    median: float
    """Median over the trials with a finished epoch, a group counted once."""
    trials: int
    states: dict[str, int]
    epochs: int
    worker_minutes: float
    minutes: float
    """Minutes during which at least one trial was running."""
    gains: tuple[Improvement, ...]
    objectives: tuple[str, ...] = ACCURACY_ALONE
    front: tuple[tuple[float, ...], ...] = ()
    """For several objectives, the values of each trial on the Pareto front, the most accurate first."""
    hypervolume: float | None = None
    """Hypervolume of that front, up to the highest costs of any trial of the sweeps with the same objectives."""

    @property
    def falls_when_confirmed(self) -> bool:
        """Whether its best, the mean of confirmed trials, is lower than the best before."""
        return bool(self.gains) and self.best < self.gains[-1].accuracy

    @property
    def points(self) -> list[str]:
        """The points of the front in words."""
        return [point_in_words(self.objectives, values) for values in self.front]


def sweep_summaries(histories: Mapping[str, SweepHistory]) -> tuple[SweepSummary, ...]:
    """The summaries of sweeps, by name. Each sweep needs a trial with a finished epoch."""
    scored = {name: scored_trials(history) for name, history in histories.items()}
    found = []
    for name, history in histories.items():
        objectives = objectives_of(history.spec)
        alike = [one for other in scored if objectives_of(histories[other].spec) == objectives for one in scored[other]]
        front = [one for one in scored[name] if one.is_on_front]
        several = {
            "objectives": objectives,
            "front": tuple(one.values for one in front),
            "hypervolume": front_volume(front, highest_costs(alike)) if front else None,
        }
        found.append(sweep_summary(name, history).model_copy(update=several))
    return tuple(found)


def sweep_summary(name: str, history: SweepHistory) -> SweepSummary:
    """The summary of a sweep that has a trial with a finished epoch, without its front."""
    trials = list(history.trials.values())
    ranked = history.ranked_groups()
    best = [epoch for trial in ranked[0].members.values() if (epoch := trial.best_epoch())]
    clock = _Clock(span for trial in trials for span in attempt_spans(trial))
    return SweepSummary(
        name=name,
        best_trial=ranked[0].ranked()[0].number,
        best=ranked[0].mean,
        best_minutes=clock.minutes_at(max(epoch.time_ms for epoch in best)),
        median=median(group.mean for group in ranked),
        trials=len(trials),
        states=history.states,
        epochs=sum(len(trial.epochs) for trial in trials),
        worker_minutes=sum(trial_minutes(trial) for trial in trials),
        minutes=clock.minutes_at(clock.end_ms),
        gains=_improvements(history, clock),
    )


class _Clock:
    """A clock that runs while at least one trial is running."""

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        self._spans = sorted(spans)
        first = self._spans[0][0]
        self._covered = list(accumulate((end for _, end in self._spans), max, initial=first))
        self.end_ms = self._covered[-1]

    def minutes_at(self, time_ms: int) -> float:
        """Minutes on this clock until `time_ms`."""
        parts = zip(self._spans, self._covered[:-1], strict=True)
        return sum(max(0, min(end, time_ms) - max(begin, covered)) for (begin, end), covered in parts) / MINUTE_MS


def _improvements(history: SweepHistory, clock: _Clock) -> tuple[Improvement, ...]:
    starts = sorted(trial.started.time_ms for trial in history.trials.values())
    gains: list[Improvement] = []
    for time_ms, trial, accuracy in sorted(_accuracies(history)):
        if math.isfinite(accuracy) and (not gains or accuracy > gains[-1].accuracy):
            gains.append(
                Improvement(
                    trial=trial,
                    trials=sum(start <= time_ms for start in starts),
                    minutes=clock.minutes_at(time_ms),
                    accuracy=accuracy,
                )
            )
    return tuple(gains)


def _accuracies(history: SweepHistory) -> Iterator[tuple[int, int, float]]:
    """The time of each epoch, or at which a group was complete; the trial, of a group its best; the accuracy."""
    for group in history.groups():
        if group.size == 1:
            for epoch in group.first.epochs:
                yield epoch.time_ms, epoch.trial, epoch.metrics.get(OBJECTIVE, math.nan)
        elif group.is_whole:
            last = max(trial.epochs[-1].time_ms for trial in group.members.values())
            yield last, group.ranked()[0].number, group.mean
