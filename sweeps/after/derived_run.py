"""Records a run without training, as a sweep of one trial: its predictions on the validation split."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.driver.environment import driver_started
from sweeps.errors import InputError
from sweeps.runs import Run
from sweeps.spec import SweepSpec, check_name
from sweeps.trial.messages import OBJECTIVE
from sweeps.trial.results import draw, keep_answers, leak_free_accuracy, score
from tracking.metrics.probability_scores import image_log_losses
from tracking.record.events import EpochDone, Event, SweepEnded, SweepStarted, TrialEnded, TrialStarted
from tracking.record.folder_lock import hold_folder
from tracking.record.history import SweepHistory
from tracking.record.journal import Journal
from tracking.record.layout import SweepFolder


def new_folder(name: str, out: Path) -> SweepFolder:
    """The folder of a new run, not created yet. Raises InputError if the name is taken or invalid."""
    folder = SweepFolder(out / check_name(name))
    if folder.journal.exists():
        raise InputError(f"{folder.root} exists already: choose another --name")
    return folder


def record_run(
    folder: SweepFolder,
    like: Run,
    probabilities: NDArray[np.floating],
    *,
    space: str,
    config: Mapping[str, Any],
    what: str,
    tracking_uri: str | None = None,
) -> Run:
    """Score and draw probabilities [n, classes] on the validation split of `like`; write the journal last.

    `space` is the experiment in MLflow, `what` is the run's title in its pictures. Its records go to `tracking_uri` (in
    the form of `recordable`), by default to the same place as those of `like`.
    """
    folder.create()
    spec = like.spec.model_copy(
        update={
            "name": folder.root.name,
            "space": space,
            "trials": 1,
            "baselines": {},
            "tracking_uri": tracking_uri or like.spec.tracking_uri,
        }
    )
    faces = like.faces()
    labels, answers = np.asarray(faces.val.labels, np.int64), probabilities.astype(np.float32)
    wide = answers.astype(np.float64)  # scored exactly as stored
    metrics = {
        OBJECTIVE: float((wide.argmax(1) == labels).mean()),
        "val_loss": float(image_log_losses(labels, wide).mean()),
    } | leak_free_accuracy(wide, faces)
    files = folder.trial(0).create()
    keep_answers(files, answers, 1, faces)
    scores = score(files, faces, 1)
    epoch = EpochDone(trial=0, epoch=1, metrics=metrics)
    draw(files, faces, [epoch], 1, f"{folder.root.name}: {what}")
    best = scores | {f"best_{key}": value for key, value in metrics.items()}
    with hold_folder(folder.root), Journal.open(folder.journal) as journal:
        journal.append(*_events(spec, like, config, epoch, best))
    history = SweepHistory.load(folder.journal)
    return Run(folder, history, history.trials[0])


def _events(
    spec: SweepSpec, like: Run, config: Mapping[str, Any], epoch: EpochDone, best: dict[str, float]
) -> Iterator[Event]:
    """The journal of a sweep of one trial of one epoch."""
    yield SweepStarted(
        sweep_id=uuid.uuid4().hex,
        name=spec.name,
        space=spec.space,
        tags=like.history.started.tags,
        spec=spec.model_dump(mode="json"),
    )
    yield driver_started(spec, resumed=False)
    started = like.trial.started
    yield TrialStarted(
        trial=0, config_id=started.config_id, config=dict(config), seed=spec.seed, epochs=1, fold=started.fold
    )
    yield epoch
    yield TrialEnded(trial=0, state="done", best=best, epochs=1)
    yield SweepEnded(done=1)
