"""The only door to the test split: a trial is tested once, and the journal says when.

Whoever reads the test split for several runs and takes the best has chosen on it, so looks are counted over all runs
that go back to one sweep, and over all runs on the data set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sweeps.errors import InputError
from sweeps.planning.resources import Device
from sweeps.runs import Run, readable_sweeps, related_sweeps
from tracking.metrics.scores import Interval, wilson_interval
from tracking.record.events import TrialTested
from tracking.record.folder_lock import hold_folder
from tracking.record.history import SweepHistory
from tracking.record.journal import Journal


@dataclass(frozen=True)
class Looks:
    """How often a test split was read, this time included: for a run, for its sweep, for the data set in one --out.

    Runs that are made of a sweep's trials (ensembles, support vector machines) count as looks of that sweep.
    """

    of_run: int
    in_sweep: int
    on_data: int


@dataclass(frozen=True)
class Outcome:
    """What the test split showed of a finalist, on all its faces and on those that are in no other split, if any."""

    dataset: str
    split: str
    n: int
    accuracy: Interval
    leak_free_n: int
    leak_free: Interval | None
    looks: Looks


def test_run(run: Run, *, again: bool, device: Device = "cpu") -> Outcome:  # noqa: PT028 (no test)
    """Read the test split once for a finalist and record it.

    It is predicted in fp32. The accuracy on val beside it was measured in the precision of the training, which is often
    bf16 and decides some faces otherwise.

    Raises InputError for a trial that is not over, and for a second look without `again`.
    """
    run.refuse_unfinished()
    if run.trial.tests and not again:
        raise InputError(
            f"{run.name}: its test split was read on {run.trial.tests[-1].when}; a second look makes the number worth "
            "less: --again reads it anyway and marks it"
        )
    with hold_folder(run.sweep.root), Journal.open(run.sweep.journal) as journal:
        outcome = _measure(run, _count_looks(run), device)
        metrics = {
            "test_accuracy": outcome.accuracy.value,
            "test_looks_in_sweep": float(outcome.looks.in_sweep),
            "test_looks_on_data": float(outcome.looks.on_data),
        }
        if outcome.leak_free:
            metrics["test_accuracy_leak_free"] = outcome.leak_free.value
        journal.append(TrialTested(trial=run.trial.number, look=outcome.looks.of_run, metrics=metrics))
    return outcome


def _measure(run: Run, looks: Looks, device: Device) -> Outcome:
    faces = run.faces()
    if not len(faces.test):
        raise InputError(f"{run.name}: {faces.name} has no test split; give data that has one")
    right = run.predict("test", device).argmax(1) == faces.test.labels
    leaked = faces.test.leaked
    clean = right[~leaked] if leaked is not None else right[:0]
    return Outcome(
        dataset=faces.name,
        split="PrivateTest" if faces.name == "FER2013" else "test",
        n=len(right),
        accuracy=wilson_interval(int(right.sum()), len(right)),
        leak_free_n=len(clean),
        leak_free=wilson_interval(int(clean.sum()), len(clean)) if len(clean) else None,
        looks=looks,
    )


def _count_looks(run: Run) -> Looks:
    sweeps = readable_sweeps(run.sweep.root.parent)
    on_data = [history for _, history in sweeps if _dataset(history) == _dataset(run.history)]
    in_sweep = [history for _, history in related_sweeps(run)]
    return Looks(1 + len(run.trial.tests), 1 + _tests(in_sweep), 1 + _tests(on_data))


def _dataset(history: SweepHistory) -> str | None:
    return history.started.tags.get("dataset")


def _tests(histories: Iterable[SweepHistory]) -> int:
    return sum(len(trial.tests) for history in histories for trial in history.trials.values())
