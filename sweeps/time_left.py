"""The expected time left of a sweep, estimated from its trials so far."""

from __future__ import annotations

from collections import Counter

from sweeps.spec import SweepSpec
from tracking.record.history import SweepHistory, TrialHistory

_FIRST_GUESS = 0.5  # of max_epochs, before any sampled trial has ended


def duration(seconds: float) -> str:
    """`1 h 05 min`, `4 min 10 s` or `12 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def epochs_left(history: SweepHistory, spec: SweepSpec) -> float:
    """Expected epochs still to be trained, from the lengths of the sampled trials so far."""
    sampled = [trial for trial in history.trials.values() if trial.started.baseline is None]
    over = Counter(trial.last_epoch for trial in sampled if trial.is_over or trial.waits_at_rung)
    if any(trial.waits_at_rung for trial in sampled) and max(over) < spec.max_epochs:
        over[spec.max_epochs] += 1  # at least one of the waiting trials continues to the end
    mean = _mean(over) if over else _FIRST_GUESS * spec.max_epochs
    left = sum(_epochs_left_of(trial, over) for trial in history.trials.values() if not trial.is_over)
    to_come = spec.to_begin(history)
    begun = history.baselines
    own = [epochs for name, epochs in zip(spec.baselines, spec.baseline_epochs, strict=False) if name not in begun]
    baselines = own[:to_come]
    further = spec.to_start(history) - to_come * spec.members
    return left + mean * further + spec.members * (sum(baselines) + mean * (to_come - len(baselines)))


def _epochs_left_of(trial: TrialHistory, over: Counter[int]) -> float:
    """The expected epochs left of a trial, from the trials that trained longer; all of them if there are none.

    Trials that stayed at the rung where it waits count too, since few of them continue.
    """
    last = trial.last_epoch
    to_the_end = trial.started.epochs - last
    least = last if trial.waits_at_rung else last + 1
    further = Counter({epochs - last: count for epochs, count in over.items() if epochs >= least})
    if trial.started.baseline or not further:
        return to_the_end
    return min(to_the_end, _mean(further))


def _mean(counts: Counter[int]) -> float:
    return sum(value * count for value, count in counts.items()) / counts.total()


def seconds_left(history: SweepHistory, spec: SweepSpec, slots: int) -> float | None:
    """Expected seconds to the end of the sweep, pruning included; None before the first epoch."""
    times = [e.metrics["epoch_seconds"] for trial in history.trials.values() for e in trial.epochs]
    if not times:
        return None
    return epochs_left(history, spec) * sum(times) / len(times) / slots
