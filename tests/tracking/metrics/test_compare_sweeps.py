from html import unescape

import numpy as np
import pytest

from tests.tracking.small_sweep import Sweep
from tracking.metrics.compare import Comparison
from tracking.metrics.compare_sweeps import SweepSummary, sweep_summary
from tracking.pages.compare_page import comparison_page
from tracking.record.events import AttemptStarted, EpochDone, Group, TrialEnded, TrialStarted
from tracking.record.history import SweepHistory

MINUTE = 60_000


def at(minutes: float) -> int:
    return 1_700_000_000_000 + round(minutes * MINUTE)


@pytest.fixture
def paused(sweep: Sweep) -> SweepHistory:
    """Two trials at once for two minutes, a night of an hour, then one more minute of the second."""
    sweep.start()
    for trial in (0, 1):
        sweep.write(TrialStarted(time_ms=at(0), trial=trial, config_id="c", config={}, seed=0, epochs=3))
    for minutes, trial, epoch, accuracy in ((1, 0, 1, 0.3), (1.5, 1, 1, 0.2), (2, 0, 2, 0.4)):
        metrics = {"val_accuracy": accuracy}
        sweep.write(EpochDone(time_ms=at(minutes), trial=trial, epoch=epoch, metrics=metrics))
    for trial, final in ((0, True), (1, False)):
        state = "done" if final else "stopped"
        sweep.write(TrialEnded(time_ms=at(2), trial=trial, state=state, epochs=2, final=final))
    sweep.write(AttemptStarted(time_ms=at(62), trial=1, attempt=1, reason="resumed"))
    sweep.write(EpochDone(time_ms=at(63), trial=1, epoch=2, metrics={"val_accuracy": 0.7}))
    sweep.write(TrialEnded(time_ms=at(63), trial=1, state="done", epochs=2))
    return SweepHistory.load(sweep.folder.journal)


def test_a_course_by_hand(paused: SweepHistory) -> None:
    found = sweep_summary("night", paused)
    assert (found.best_trial, found.best, found.trials, found.epochs) == (1, 0.7, 2, 4)
    assert found.states == {"done": 2}
    assert found.median == pytest.approx((0.4 + 0.7) / 2)
    assert found.worker_minutes == pytest.approx(2 + 2 + 1), "to the last sign of each attempt"
    assert found.minutes == pytest.approx(2 + 1), "two at once count once, the pause not at all"
    steps = [(gain.trial, gain.trials, gain.accuracy) for gain in found.gains]
    assert steps == [(0, 2, 0.3), (0, 2, 0.4), (1, 2, 0.7)]
    assert [gain.minutes for gain in found.gains] == pytest.approx([1, 2, 3])
    assert found.best_minutes == pytest.approx(3)
    assert SweepSummary.model_validate_json(found.model_dump_json()) == found


def test_a_diverged_epoch_is_no_gain(sweep: Sweep) -> None:
    sweep.start()
    sweep.write(TrialStarted(time_ms=sweep.tick(), trial=0, config_id="c", config={}, seed=0, epochs=3))
    for epoch, accuracy in enumerate((0.2, np.nan, 0.1), start=1):
        sweep.write(EpochDone(time_ms=sweep.tick(), trial=0, epoch=epoch, metrics={"val_accuracy": accuracy}))
    assert [gain.accuracy for gain in sweep_summary("night", SweepHistory.load(sweep.folder.journal)).gains] == [0.2]


def compared(first: SweepSummary) -> Comparison:
    """The comparison of a sweep `night` with another."""
    return Comparison(
        names=("night/1", "day/0"), dataset="FER2013", fingerprint="ab", split="val", synthetic=False, classes=("Happy",),
        n=None, n_leaked=0, notes=(), settings={}, metrics={"val_accuracy": (0.7, 0.6)}, summaries=(), pairs=(),
        disagreements=(), disagreed=0, stands_for={"night": "night/1", "day": "day/0"},
        sweeps=(first, first.model_copy(update={"name": "day"})),
    )  # fmt: skip


def test_the_page_says_whose_best_trial_stands_for_a_sweep(paused: SweepHistory) -> None:
    found = compared(sweep_summary("night", paused))
    page = comparison_page(found)
    assert "night is a sweep: its best trial, night/1, is compared." in page
    assert "Whole sweeps" in page
    assert "70.00\u00a0%" in page
    assert "55.00\u00a0%" in page, "the median"
    assert "best val accuracy so far" in page, "the picture"
    assert Comparison.model_validate_json(found.to_json()) == found


def test_a_curve_that_ends_at_a_lower_mean_of_confirmed_trials_is_explained(sweep: Sweep) -> None:
    def trial(number: int, accuracy: float, group: Group | None = None) -> None:
        sweep.trial(number, group=group)
        sweep.write(
            EpochDone(time_ms=sweep.tick(), trial=number, epoch=1, metrics={"val_accuracy": accuracy}),
            TrialEnded(time_ms=sweep.tick(), trial=number, state="done", epochs=1),
        )

    def summary() -> SweepSummary:
        return sweep_summary("night", SweepHistory.load(sweep.folder.journal))

    sweep.start()
    trial(0, 0.5)
    trial(1, 0.6)
    words = "A line that falls at its end ends at the mean of the sweep's confirmed trials."
    assert words not in unescape(comparison_page(compared(summary())))
    for member, accuracy in enumerate((0.56, 0.58)):
        trial(2 + member, accuracy, Group(first=2, member=member, size=2, confirms=1))
    found = summary()
    assert (found.best, found.gains[-1].accuracy) == (pytest.approx(0.57), 0.6)
    assert words in unescape(comparison_page(compared(found)))
