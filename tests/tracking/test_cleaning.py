import pytest
from small_sweep import Sweep

from tracking import AttemptStarted, SweepHistory, TrackingError
from tracking.record.cleaning import removable, remove


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
    assert sorted(names) == sorted([*states, "0000/best.safetensors", "0001/best.safetensors"])
    reasons = {one.path.name + one.path.parent.name: one.reason for one in found}
    assert reasons["last.safetensors0001"] == "trial 1 is pruned: nothing goes on from it"
    # By hand: val_accuracy 0.3 + number / 7 at epoch 3; trial 3 has 0.1 + 3/7.
    assert reasons["best.safetensors0001"] == "trial 1 is number 3 of 4 by val_accuracy; 1 are kept"
    assert all(one.path.exists() for one in found)
    assert remove(found) == sum(one.size_bytes for one in found) == 3 * (1 + 2) + 2 * 3
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
    # By val_accuracy 2, 1, 0 come in this order.
    assert [one.path.parent.name for one in removable(sweep.folder, history, 1, also={0})] == ["0001"]
    with pytest.raises(TrackingError, match="keep 0: expected 1"):
        removable(sweep.folder, history, keep=0)
