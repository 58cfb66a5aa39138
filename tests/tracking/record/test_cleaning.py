import pytest

from tests.tracking.small_sweep import Sweep
from tracking.errors import TrackingError
from tracking.record.cleaning import BestTrials, of_best_groups, removable, remove
from tracking.record.events import AttemptStarted
from tracking.record.history import SweepHistory


def test_only_what_nobody_reads_again_goes(sweep: Sweep) -> None:
    sweep.whole()
    sweep.trial(3)
    sweep.epoch(3, 1)
    for number in range(4):
        folder = sweep.folder.trial(number).create()
        for path in (folder.best, folder.last, folder.previous, folder.val_probabilities):
            path.write_bytes(b"x" * (number + 1))
    history = SweepHistory.load(sweep.folder.journal)
    found = removable(sweep.folder, history, keep=1)
    names = [f"{one.path.parent.name}/{one.path.name}" for one in found]
    states = [f"{number:04d}/{name}.safetensors" for number in range(3) for name in ("last", "previous")]
    # By hand: of the trials that are over, val_accuracy is 0.3 + number / 7 at epoch 3; trial 0 is a baseline.
    assert sorted(names) == sorted([*states, "0001/best.safetensors"])
    reasons = {one.path.name + one.path.parent.name: one.reason for one in found}
    assert reasons["last.safetensors0001"] == "trial 1 is pruned: nothing continues from it"
    assert reasons["best.safetensors0001"] == "trial 1 is not among the best 1 by val_accuracy, nor a baseline"
    assert all(one.path.exists() for one in found)
    assert remove(found) == sum(one.size_bytes for one in found) == 2 * 1 + 3 * 2 + 2 * 3
    assert not any(one.path.exists() for one in found)
    assert sweep.folder.trial(3).last.exists()
    assert sweep.folder.trial(2).best.exists()
    assert removable(sweep.folder, history, keep=1) == []


def test_a_stopped_trial_that_a_resume_takes_up_keeps_all(sweep: Sweep) -> None:
    sweep.start()
    sweep.trial(0)
    sweep.epoch(0, 1)
    sweep.end(0, "stopped", final=False)
    sweep.folder.trial(0).create().last.write_bytes(b"x")
    assert removable(sweep.folder, SweepHistory.load(sweep.folder.journal), keep=1) == []
    sweep.write(AttemptStarted(time_ms=sweep.tick(), trial=0, attempt=1, reason="resumed"))
    sweep.end(0)
    assert len(removable(sweep.folder, SweepHistory.load(sweep.folder.journal), keep=1)) == 1


def test_trials_that_others_read_stay(sweep: Sweep) -> None:
    sweep.whole()
    for number in range(3):
        sweep.folder.trial(number).create().best.write_bytes(b"x")
    history = SweepHistory.load(sweep.folder.journal)
    assert [one.path.parent.name for one in removable(sweep.folder, history, 1)] == ["0001"]
    assert removable(sweep.folder, history, 1, needed={1}) == []
    assert removable(sweep.folder, history, None) == []
    with pytest.raises(TrackingError, match="keep 0: expected 1"):
        removable(sweep.folder, history, keep=0)


def test_of_equal_trials_the_earlier_stay(sweep: Sweep) -> None:
    sweep.start()
    for number in (0, 7, 14, 3):
        sweep.trial(number)
        sweep.epoch(number, 1)
    history = SweepHistory.load(sweep.folder.journal)
    for trial in history.trials.values():
        trial.epochs[0] = trial.epochs[0].model_copy(update={"metrics": {"val_accuracy": 0.5}})
    best = BestTrials(2)
    assert [best.add(history.trials[number]) for number in (14, 7, 0, 3)] == [None, None, 14, 7]


def test_a_trial_that_is_not_over_is_not_yet_ranked_with_its_group(sweep: Sweep) -> None:
    """It could fall while its worker writes its weights."""
    sweep.start()
    sweep.member(0, first=0)
    sweep.trial(2)
    sweep.epoch(2, 2)
    history = SweepHistory.load(sweep.folder.journal)
    history.spec = {**history.spec, "replicates": 2}
    assert history.ranked()[0].number == 2, "by its only epoch"
    assert of_best_groups(history, 5) == {0}


def test_what_another_file_is_too_frees_nothing(sweep: Sweep) -> None:
    sweep.whole()
    path = sweep.folder.trial(1).create().best
    path.write_bytes(b"xx")
    (sweep.folder.root / "copy").hardlink_to(path)
    (found,) = removable(sweep.folder, SweepHistory.load(sweep.folder.journal), 1)
    assert found.size_bytes == 0
