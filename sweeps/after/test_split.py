"""The only access to the test split. A trial is tested once; the journal records when, its folder has the predictions.

To test several runs and take the best is selection on the test split. So looks (evaluations) are counted over all runs
of a sweep, and over all runs on the same test images, whatever the name of their data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer_data import Faces
from fer_data.faces import fingerprint_of
from sweeps.errors import InputError
from sweeps.planning.resources import Device
from sweeps.runs import Run, readable_sweeps, related_sweeps
from sweeps.trial.results import draw_scores, write_answers, write_scores
from tracking.metrics.probability_scores import fit_temperature
from tracking.metrics.scores import Interval, wilson_interval
from tracking.metrics.summary import ScoreSummary, data_name, summary
from tracking.record.events import TrialTested
from tracking.record.folder_lock import hold_folder
from tracking.record.history import SweepHistory
from tracking.record.journal import Journal


@dataclass(frozen=True)
class Looks:
    """How often a test split was read, including this time: for a run, for its sweep, and for the images of the split
    in one --out.

    Runs that are made from a sweep's trials (ensembles, support vector machines) count as looks of that sweep.
    """

    of_run: int
    in_sweep: int
    on_data: int


@dataclass(frozen=True)
class Outcome:
    """A finalist's test scores, on all faces and on those that are in no other split, if any."""

    dataset: str
    split: str
    n: int
    accuracy: Interval
    leak_free_n: int
    leak_free: Interval | None
    looks: Looks
    scores: ScoreSummary
    """Calibrated with the temperature fitted on the validation split."""
    files: tuple[Path, ...]
    """Predictions, scores and their pictures."""


def test_run(run: Run, *, again: bool, device: Device = "cpu") -> Outcome:  # noqa: PT028 (no test)
    """Evaluate a finalist on the test split, once, and record it.

    The test split is predicted in fp32. The accuracy on val was measured in the precision of the training, often bf16,
    which predicts some faces differently.

    Of a trial that is paused, waits or was stopped it is the best epoch so far.

    Raises InputError for a trial that runs, and for a second look without `again`.
    """
    if run.trial.is_out:
        run.refuse_unfinished()
    if run.trial.tests and not again:
        raise InputError(
            f"{run.name}: its test split was read on {run.trial.tests[-1].when}; a second evaluation makes the number "
            "less trustworthy; --again does it anyway and records it"
        )
    with hold_folder(run.sweep.root), Journal.open(run.sweep.journal) as journal:
        faces, test_split = run.faces(), fingerprint_of([run.raw_faces().test])
        looks = _count_looks(run, test_split)
        if not len(faces.test):
            raise InputError(f"{run.name}: {faces.name} has no test split; use data that has one")
        probabilities = run.predict("test", device)
        found = _scores(run, faces, probabilities)
        clean = _leak_free(faces, probabilities)
        metrics = found.metrics("test_") | {
            "test_looks_in_sweep": float(looks.in_sweep),
            "test_looks_on_data": float(looks.on_data),
        }
        if clean:
            metrics["test_accuracy_leak_free"] = clean.value
        look = TrialTested(trial=run.trial.number, look=looks.of_run, metrics=metrics, test_split=test_split)
        journal.append(look)
        files = _keep(run, faces, probabilities, found)
    return Outcome(
        dataset=faces.name,
        split=test_title(faces.name),
        n=found.full.n,
        accuracy=found.full.accuracy,
        leak_free_n=0 if faces.test.leaked is None else int((~faces.test.leaked).sum()),
        leak_free=clean,
        looks=looks,
        scores=found,
        files=files,
    )


def test_title(dataset: str) -> str:
    """The data set's own name for the test split."""
    return "PrivateTest" if dataset == "FER2013" else "test"


def _leak_free(faces: Faces, probabilities: NDArray[np.float32]) -> Interval | None:
    if faces.test.leaked is None or faces.test.leaked.all():
        return None
    right = (probabilities.argmax(1) == faces.test.labels)[~faces.test.leaked]
    return wilson_interval(int(right.sum()), len(right))


def _scores(run: Run, faces: Faces, probabilities: NDArray[np.float32]) -> ScoreSummary:
    of_val = run.predictions()
    temperature = fit_temperature(of_val.labels, of_val.probabilities.astype(np.float64))
    labels = np.asarray(faces.test.labels, np.int64)
    return summary(labels, probabilities, faces.classes, faces.test.leaked, temperature)


def _keep(run: Run, faces: Faces, probabilities: NDArray[np.float32], found: ScoreSummary) -> tuple[Path, ...]:
    best = run.trial.best_epoch()
    epoch = best.epoch if best else 0
    folder, kept = run.files.test.create(), run.files.test_probabilities
    write_answers(kept, probabilities, epoch, faces.test)
    split = test_title(faces.name)
    write_scores(folder, found, faces, split, epoch)
    data = data_name(faces.name, faces.synthetic)
    title = f"{run.name}: {run.trial.started.title} on {data}, {split}, n = {len(faces.test):,}, epoch {epoch}"
    drawn = run.spec.figures
    pictures = draw_scores(folder, faces, faces.test, probabilities, found, title) if drawn else []
    return (kept, folder.scores, folder.confusion_matrix_json, *pictures)


def _count_looks(run: Run, test_split: str) -> Looks:
    on_data = sum(
        look.test_split == test_split if look.test_split else _dataset(history) == _dataset(run.history)
        for _, history in readable_sweeps(run.sweep.root.parent)
        for look in _tests(history)
    )
    in_sweep = sum(len(_tests(history)) for _, history in related_sweeps(run))
    return Looks(1 + len(run.trial.tests), 1 + in_sweep, 1 + on_data)


def _dataset(history: SweepHistory) -> tuple[object, object]:
    """The name and the classes of a sweep's data, for looks of earlier versions, which have no fingerprint."""
    return history.started.tags.get("dataset"), history.spec.get("classes")


def _tests(history: SweepHistory) -> list[TrialTested]:
    return [look for trial in history.trials.values() for look in trial.tests]
