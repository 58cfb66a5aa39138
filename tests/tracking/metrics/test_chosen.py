"""The best of many is flattered by the choice, and what is promised of it instead holds on new faces."""

from collections.abc import Iterator
from statistics import mean

import numpy as np
import pytest

from tests.tracking.small_sweep import Sweep
from tracking.errors import TrackingError
from tracking.metrics.chosen import Choice, accuracy_when_chosen, can_win, choice_of
from tracking.pages.report import DataFacts, SweepReport, report_page
from tracking.record.events import EpochDone, Group, TrialEnded
from tracking.record.history import SweepHistory

TRUTH, FACES, TRIALS = 0.5, 400, 40


def equals(seeds: int) -> Iterator[list[np.ndarray]]:
    """Sweeps whose trials are all of the same worth, so that the best is a matter of luck."""
    for seed in range(seeds):
        yield list(np.random.default_rng(seed).random((TRIALS, FACES)) < TRUTH)


def test_the_best_of_equals_is_promised_no_more_than_it_is_worth() -> None:
    naive, promised, covered = [], [], []
    for right in equals(100):
        expected = accuracy_when_chosen(right)
        naive.append(max(one.mean() for one in right) - TRUTH)
        promised.append(expected.value - TRUTH)
        covered.append(expected.low <= TRUTH <= expected.high)
    assert mean(naive) > 0.04
    assert abs(mean(promised)) < 0.01
    assert mean(covered) > 0.93


def test_one_trial_alone_is_not_flattered() -> None:
    right = np.arange(300) % 10 < 7
    expected = accuracy_when_chosen([right])
    assert expected.value == pytest.approx(0.7, abs=0.003)
    assert (expected.low, expected.high) == (pytest.approx(0.646, abs=0.004), pytest.approx(0.749, abs=0.004))


def test_trials_far_behind_are_left_out() -> None:
    assert can_win([0.30, 0.62, 0.60, 0.10], faces=3589) == [1, 2]
    assert can_win([], faces=3589) == []


def predicted(
    sweep: Sweep, trial: int, right: np.ndarray, group: Group | None = None, baseline: str | None = None
) -> None:
    """A finished trial that predicts these faces correctly."""
    sweep.trial(trial, baseline, group)
    sweep.write(
        EpochDone(time_ms=sweep.tick(), trial=trial, epoch=3, metrics={"val_accuracy": float(right.mean())}),
        TrialEnded(time_ms=sweep.tick(), trial=trial, state="done", epochs=3),
    )
    probabilities = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
    path = sweep.folder.trial(trial).create().val_probabilities
    np.savez(path, labels=np.zeros(FACES, np.int64), probabilities=probabilities, epoch=3)


def choice_in(sweep: Sweep) -> Choice:
    found = choice_of(sweep.folder, SweepHistory.load(sweep.folder.journal))
    assert found is not None
    return found


def test_an_incomplete_group_does_not_turn_off_the_correction(sweep: Sweep) -> None:
    """Groups of two. One looks much better than the others, but its second member failed."""
    sweep.start()
    for trial, right in enumerate(next(equals(1))):
        predicted(sweep, trial, right, Group(first=trial - trial % 2, member=trial % 2, size=2))
    without = choice_in(sweep)
    assert without.among == TRIALS / 2
    assert without.expected.value < without.accuracy - 0.01
    predicted(sweep, TRIALS, np.arange(FACES) % 10 < 9, Group(first=TRIALS, member=0, size=2))
    sweep.trial(TRIALS + 1, group=Group(first=TRIALS, member=1, size=2))
    sweep.end(TRIALS + 1, "failed", reason="worker died")
    assert choice_in(sweep) == without


@pytest.mark.parametrize(("confirmed", "lead"), [([1], 0.01), ([1, 0], 0.02)], ids=["the best", "the baseline too"])
def test_a_confirmed_winner_is_compared_with_the_baseline(sweep: Sweep, confirmed: list[int], lead: float) -> None:
    """Of 400 faces the baseline predicts 200 correctly, under new seeds 196; the winner 240 others, then 204."""
    first, again = [200, 240], [196, 204]

    def right(trial: int, count: int) -> np.ndarray:
        return np.roll(np.arange(FACES) < count, 200 * trial)

    sweep.start()
    for trial, name in enumerate(("report", None)):
        predicted(sweep, trial, right(trial, first[trial]), baseline=name)
    for source in confirmed:
        begun = 2 + 3 * confirmed.index(source)
        for member in range(3):
            place = Group(first=begun, member=member, size=3, confirms=source)
            predicted(
                sweep,
                begun + member,
                right(source, again[source] + 2 * member - 2),
                place,
                None if source else "report",
            )
    choice = choice_in(sweep)
    assert (choice.trial >= 2, choice.among, choice.baseline) == (True, len(confirmed), "report")
    assert choice.lead is not None
    assert choice.lead.value + choice.accuracy - choice.expected.value == pytest.approx(lead)
    assert "baseline not beaten: the lead over report is within noise" in str(choice)
    facts = DataFacts("FER", "0" * 64, "val", FACES, {}, ("a", "b"), synthetic=False)
    report = SweepReport(SweepHistory.load(sweep.folder.journal), sweep.folder, facts, "Which is best?", {})
    page = report_page(report)
    assert "the lead over report is within noise: baseline not beaten" in page
    assert "best of 1 is biased" not in page


@pytest.mark.parametrize("right", [[], [np.ones(3, bool), np.ones(4, bool)]])
def test_what_cannot_be_judged_is_refused(right: list[np.ndarray]) -> None:
    with pytest.raises(TrackingError, match="at least one trial, all evaluated on the same faces"):
        accuracy_when_chosen(right)


@pytest.mark.slow
def test_on_recorded_curves_the_promise_holds() -> None:
    """200 sweeps of 30 recorded runs, each with its own division of the judged faces into val and new ones."""
    from tests.benchmarks.search.flattery import flattery

    found = flattery(sweeps=200, trials=30)
    assert abs(found.promised) < 0.003
    assert found.naive > found.promised
    assert 0.92 <= found.covered <= 0.98
    assert found.worse_if_beaten <= 0.03


@pytest.mark.parametrize("faces", [1, 2, 7])
def test_few_faces_give_a_number_too(faces: int) -> None:
    """A resample of few faces may leave none out; of one face, every resample."""
    right = np.arange(faces) % 2 == 0
    found = accuracy_when_chosen([right, ~right])
    assert 0 <= found.value <= 1
    assert found.low <= found.value <= found.high
