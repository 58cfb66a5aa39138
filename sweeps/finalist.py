"""The only door to the test split: a finalist is tested once, and the journal says when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sweeps.errors import InputError
from sweeps.runs import Run
from tracking.events import TrialTested
from tracking.folder_lock import hold_folder
from tracking.journal import Journal
from tracking.scores import Interval, wilson_interval


@dataclass(frozen=True)
class Outcome:
    """What the test split showed of a finalist, on all its faces and on those that stand in no other split."""

    title: str
    n: int
    accuracy: Interval
    leak_free_n: int
    leak_free: Interval
    looks: int


def test_run(run: Run, *, again: bool) -> Outcome:
    """Read the test split once for a finalist and record it. Raises InputError for a second look without `again`."""
    looks = len(run.trial.tests)
    if looks and not again:
        raise InputError(
            f"{run.name}: its test split was read on {run.trial.tests[-1].when}; a second look makes the number worth "
            "less: --again reads it anyway and marks it"
        )
    with hold_folder(run.sweep.root), Journal.open(run.sweep.journal) as journal:
        outcome = _measure(run, looks + 1)
        journal.append(
            TrialTested(
                trial=run.trial.number,
                look=outcome.looks,
                metrics={
                    "test_accuracy": outcome.accuracy.value,
                    "test_accuracy_leak_free": outcome.leak_free.value,
                },
            )
        )
    return outcome


def _measure(run: Run, looks: int) -> Outcome:
    faces = run.faces()
    right = run.predict("test").argmax(1) == faces.test.labels
    leaked = faces.test.leaked if faces.test.leaked is not None else np.zeros(len(right), bool)
    clean = right[~leaked]
    return Outcome(
        title=f"{faces.name}, {'PrivateTest' if faces.name == 'FER2013' else 'test'}",
        n=len(right),
        accuracy=wilson_interval(int(right.sum()), len(right)),
        leak_free_n=len(clean),
        leak_free=wilson_interval(int(clean.sum()), len(clean)) if len(clean) else Interval(0.0, 0.0, 0.0),
        looks=looks,
    )
