"""What holds of the events of every trial in a journal, whatever was killed while it was written."""

from collections.abc import Sequence

from tracking.record.events import AttemptStarted, EpochDone, Event, TrialDrawn, TrialEnded, TrialStarted, Verdict


def check_trials(events: Sequence[Event]) -> None:
    """Trials start once and in order, and each obeys the laws."""
    numbers = [event.trial for event in events if isinstance(event, TrialStarted)]
    assert numbers == list(range(len(numbers))), "every trial starts once, in order"
    for number in numbers:
        check_trial([event for event in events if getattr(event, "trial", None) == number])


def check_trial(events: Sequence[Event]) -> None:
    """The laws of one trial, by its own events."""
    started = events[0]
    assert isinstance(started, TrialStarted)
    epochs = [event for event in events if isinstance(event, EpochDone)]
    assert [event.epoch for event in epochs] == list(range(1, len(epochs) + 1)), "no epoch is lost and none comes twice"
    attempts = [event.attempt for event in events if isinstance(event, AttemptStarted)]
    assert attempts == list(range(1, len(attempts) + 1)), "attempts are counted"
    final = [event for event in events if isinstance(event, TrialEnded) and event.final]
    assert len(final) <= 1, "a trial ends once"
    if final:
        after = list(events[events.index(final[0]) + 1 :])
        assert len(after) <= final[0].undrawn, "and nothing comes after its end but its pictures, once"
        assert all(isinstance(event, TrialDrawn) and event.epochs == final[0].epochs for event in after)
    verdicts = [event for event in events if isinstance(event, Verdict)]
    assert len(verdicts) <= 1
    if final and final[0].state == "done":
        assert len(epochs) == started.epochs
        assert not verdicts
