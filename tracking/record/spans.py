"""When the trials of a sweep held their workers."""

from tracking.record.history import SweepHistory, TrialHistory

MINUTE_MS = 60_000


def attempt_spans(trial: TrialHistory) -> list[tuple[int, int]]:
    """When the trial's attempts ran, as (start, last event) in ms; time without a worker is not counted."""
    starts = [trial.started.time_ms, *(attempt.time_ms for attempt in trial.attempts)]
    signs = [epoch.time_ms for epoch in trial.epochs]
    if trial.left_ms is not None:
        signs.append(trial.left_ms)
    spans = []
    for start, following in zip(starts, [*starts[1:], None], strict=True):
        within = [sign for sign in signs if sign >= start and (following is None or sign < following)]
        spans.append((start, max(within, default=start)))
    return spans


def last_work_ms(history: SweepHistory) -> int:
    """When the last driver or one of its workers last recorded something: the end of a driver that was killed."""
    ends = [end for trial in history.trials.values() for _, end in attempt_spans(trial)]
    return max([driver.time_ms for driver in history.drivers] + ends, default=history.started.time_ms)


def trial_minutes(trial: TrialHistory) -> float:
    """Worker minutes of the trial, over all its attempts."""
    return sum(end - start for start, end in attempt_spans(trial)) / MINUTE_MS
