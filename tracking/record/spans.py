"""When the trials of a sweep held their workers."""

from tracking.record.history import SweepHistory, TrialHistory

MINUTE_MS = 60_000


def attempt_spans(trial: TrialHistory) -> list[tuple[int, int]]:
    """When the trial's attempts ran, as (start, last event) in ms; time without a worker is not counted."""
    starts = [trial.started.time_ms, *(attempt.time_ms for attempt in trial.attempts)]
    return list(zip(starts, trial.last_signs, strict=True))


def last_work_ms(history: SweepHistory) -> int:
    """When the last driver or one of its workers last recorded something: the end of a driver that was killed."""
    ends = [end for trial in history.trials.values() for _, end in attempt_spans(trial)]
    return max([driver.time_ms for driver in history.drivers] + ends, default=history.started.time_ms)


def trial_minutes(trial: TrialHistory) -> float:
    """Worker minutes of the trial, over all its attempts."""
    return sum(end - start for start, end in attempt_spans(trial)) / MINUTE_MS
