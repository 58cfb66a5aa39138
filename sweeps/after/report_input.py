"""Prepares runs and sweeps for the comparison and the report."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fer_data import DataError, Faces, open_cached, prepare
from sweeps.after.ensemble import is_fitted
from sweeps.after.importances import importances
from sweeps.config import setting_text
from sweeps.errors import InputError
from sweeps.options import same_trials
from sweeps.planning.budgets import Budgets
from sweeps.run_kinds import Ensemble, RunKind, SvmHead, TrainedNet, kind_of
from sweeps.runs import Run
from sweeps.spec import SweepSpec, recorded_spec
from tracking.flatten import flatten
from tracking.metrics.compare import ComparedRun, Comparison, compare
from tracking.metrics.compare_sweeps import sweep_summaries
from tracking.pages.report import DataFacts, SweepReport, report_page
from tracking.record.events import OBJECTIVE
from tracking.record.folder_lock import folder_holder
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder
from tracking.record.parameters import parameters_of
from tracking.record.predictions import best_predictions


def compare_runs(runs: Sequence[Run], whole: Sequence[bool], *, numbers_only: bool = False) -> Comparison:
    """Compare runs face by face on their validation split.

    `whole` says of each run whether it is the best trial of a sweep that was given without a trial. Two or more are
    also compared as whole sweeps. Raises TrackingError if faces differ.
    """
    compared = [_compared_run(run) for run in runs]
    found = compare(compared, numbers_only=numbers_only)
    asked = {run.sweep.root.name: run for run, is_whole in zip(runs, whole, strict=True) if is_whole}
    searched = {name: run for name, run in asked.items() if isinstance(run.kind, TrainedNet)}
    summaries = sweep_summaries({name: run.history for name, run in searched.items()}) if len(searched) > 1 else ()
    notes = [_fitted(run.name) for run in runs if is_fitted(run)]
    return found.model_copy(
        update={
            "stands_for": {name: run.name for name, run in searched.items()},
            "sweeps": summaries,
            "notes": (*found.notes, *notes),
        }
    )


def _fitted(name: str) -> str:
    return f"the weights of {name} were fitted to these faces, so its numbers are too high"


def _compared_run(run: Run) -> ComparedRun:
    best, spec = run.trial.best_epoch(), run.spec
    answers = run.kept_predictions()
    return ComparedRun(
        name=run.name,
        settings=flatten(run.trial.started.config),
        metrics=dict(best.metrics) if best else {},
        dataset=spec.dataset,
        fingerprint=spec.fingerprint,
        split=run.split,
        classes=spec.classes,
        synthetic=spec.synthetic,
        answers=answers,
        leaked=answers.leaked if answers else None,
    )


def val_faces(run: Run) -> NDArray[np.uint8] | None:
    """The validation faces of a run as grey levels. None if its data is gone or has changed."""
    try:
        return _grey_levels(run.raw_faces())
    except (DataError, InputError):
        return None


def _grey_levels(faces: Faces) -> NDArray[np.uint8]:
    return np.clip(np.asarray(faces.val.images), 0, 255).astype(np.uint8)


def _faces(spec: SweepSpec) -> Faces | None:
    try:
        faces = open_cached(prepare(spec.data))
    except DataError:
        return None
    return faces if faces.fingerprint == spec.fingerprint else None


def sweep_page(folder: SweepFolder, history: SweepHistory) -> str:
    """The report of a sweep as one self-contained HTML page."""
    return report_page(*sweep_report(folder, history))


def sweep_report(folder: SweepFolder, history: SweepHistory) -> tuple[SweepReport, NDArray[np.uint8] | None]:
    """The content of a sweep's report, and its validation faces as grey levels, if they are available."""
    if folder_holder(folder.root) is None:
        history.end_driver()
    spec = recorded_spec(history)
    faces = None if spec.folds else _faces(spec)  # each fold has other validation faces
    kind = _kind(history)
    report = SweepReport(
        history=history,
        folder=folder,
        data=_facts(spec, faces, _answered(folder, history)),
        question=_question(spec, kind),
        asked=_asked(spec, history) if isinstance(kind, TrainedNet) else _made_of(kind),
        published={name: text for name, text in spec.baselines.items() if text},
        commands=_commands(spec, kind),
        caution=_caution(folder, history),
        parameters=_parameters(folder, history),
        importances=importances(history),
    )
    return report, _grey_levels(faces) if faces else None


def _kind(history: SweepHistory) -> RunKind:
    """What a sweep is that was made from other runs; else a trained net, as all its trials are."""
    first = next(iter(history.trials.values()), None)
    return kind_of(first.started.config) if first else TrainedNet()


def _caution(folder: SweepFolder, history: SweepHistory) -> str | None:
    ensembles = (Run(folder, history, trial) for trial in history.trials.values() if trial.epochs)
    return next((_fitted(run.name) for run in ensembles if is_fitted(run)), None)


def _question(spec: SweepSpec, kind: RunKind) -> str:
    if isinstance(kind, TrainedNet):
        return f"Which settings of {spec.space} recognise facial expressions best on {spec.dataset}?"
    what = "the average of these nets" if isinstance(kind, Ensemble) else "a support vector machine on this net"
    return f"How well does {what} recognise facial expressions on {spec.dataset}?"


def _answered(folder: SweepFolder, history: SweepHistory) -> int:
    """The number of validation faces according to stored predictions, if the faces are gone; 0 if unknown."""
    for trial in history.trials.values():
        if found := best_predictions(folder.trial(trial.number), trial):
            return len(found.labels)
    return 0


def _parameters(folder: SweepFolder, history: SweepHistory) -> dict[int, int]:
    counts = {number: parameters_of(folder.trial(number), trial) for number, trial in history.trials.items()}
    return {number: count for number, count in counts.items() if count is not None}


def _facts(spec: SweepSpec, faces: Faces | None, answered: int) -> DataFacts:
    return DataFacts(
        dataset=spec.dataset,
        fingerprint=spec.fingerprint,
        split=spec.val_title,
        n=len(faces.val) if faces else answered,
        sizes={split.name: len(split) for split in (faces.splits if faces else ())},
        classes=spec.classes,
        synthetic=spec.synthetic,
        notes=faces.notes if faces else (_why_no_faces(spec),),
        leaked=faces.val.leaked if faces else None,
    )


def _why_no_faces(spec: SweepSpec) -> str:
    if spec.folds:
        return f"val is one of {spec.folds} folds of train and val, a different one for each trial of a group"
    return "the data is gone, so sizes and leaks are not known"


def _asked(spec: SweepSpec, history: SweepHistory) -> Mapping[str, str]:
    asked = {
        "space": spec.space,
        "trials": str(spec.trials),
        "epochs per trial, at most": str(spec.max_epochs),
        "selected by": OBJECTIVE,
        **({"optimized together": ", ".join(spec.objectives)} if len(spec.objectives) > 1 else {}),
        "sampler": spec.sampler,
        "pruner": spec.pruner,
        "seed": str(spec.seed),
        "device": f"{spec.device}, threads per trial: {spec.threads}",
    }
    started = history.started
    for what, taken in (("learned from", started.lessons), ("proposed first", started.offers)):
        sources = Counter(one.source.rpartition("/")[0] for one in taken)
        if sources:
            asked[what] = ", ".join(f"{count} of sweep {name}" for name, count in sources.items())
    if spec.prefer:
        asked["preferred within noise of the best"] = spec.prefer
    if spec.members > 1:
        asked["trials per configuration"] = f"{spec.members} {'folds' if spec.folds else 'seeds'}"
    if budgets := Budgets(spec).lines(history):
        asked["budget"] = ", ".join(budgets)
    return asked | {f"fixed: {name}": setting_text(value) for name, value in spec.settings.items()}


def _made_of(kind: Ensemble | SvmHead) -> Mapping[str, str]:
    if isinstance(kind, SvmHead):
        return {"net": kind.member, "kernel": kind.kernel, "C": f"{kind.c:g}"}
    members = ", ".join(f"{name} {weight:.2f}" for name, weight in kind.members.items())
    return {"members and their weights": members, "method": kind.method}


def _commands(spec: SweepSpec, kind: RunKind) -> Mapping[str, str]:
    sweeps = "python", "-m", "sweeps"
    test = {"evaluate its best trial on the test split, once": shlex.join([*sweeps, "test", spec.name])}
    if not isinstance(kind, TrainedNet):
        return {"make it again": shlex.join([*sweeps, *kind.command])} | test
    run = ["python", "-m", "sweeps.run", spec.space, *same_trials(spec)]
    average = {"average its five best trials": shlex.join([*sweeps, "ensemble", "--sweep", spec.name])}
    return {"run the same sweep again": shlex.join(run)} | test | (average if spec.trials > 1 else {})
