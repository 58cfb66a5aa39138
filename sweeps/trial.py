"""One trial: faces → net → epochs → reports. Knows neither Ray nor MLflow.

Heavy imports stand inside the functions, so that a driver that only passes `run_trial` on does not pay for torch.
"""

from __future__ import annotations

import errno
import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_data import limit_train, open_cached
from sweeps.messages import OBJECTIVE, EpochReport, FacesRef, Message, Task, TrialEnd, val_title
from tracking.files import write_bytes, write_json
from tracking.layout import TrialFolder

if TYPE_CHECKING:
    from fer_data import Faces
    from fer_models.fit import Epoch
    from fer_models.state import TrainingState


def run_trial(task: Task) -> Iterator[Message]:
    """Train, checkpoint and report until the epochs are run, the driver's verdict is found, or it diverges.

    Yields an EpochReport after each epoch (those of an earlier attempt again, which the driver knows how to drop)
    and a TrialEnd. A fault of the trial itself is a TrialEnd with its traceback in `error.txt`; an OSError other
    than a full disk is raised, since another attempt may mend it.
    """
    from fer_models.errors import Diverged

    folder = TrialFolder(Path(task.folder)).create()
    try:
        claim(task)
        yield from _train(task, folder)
        yield TrialEnd(attempt=task.attempt, state="ended")
    except Diverged as error:
        _drop_state(folder)
        yield TrialEnd(attempt=task.attempt, state="failed", diverged=True, reason=str(error))
    except Exception as error:
        if _disk_is_full(error):
            yield TrialEnd(attempt=task.attempt, state="blocked", reason=str(error))
            return
        if isinstance(error, OSError):
            raise
        log = folder.root / "error.txt"
        write_bytes(log, traceback.format_exc().encode())
        reason = f"{type(error).__name__}: {error} (traceback in {log})"
        yield TrialEnd(attempt=task.attempt, state="failed", reason=reason)


def _disk_is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


def claim(task: Task) -> None:
    """Make this attempt the folder's owner; `still_owned` tells an earlier one that it was given up for dead."""
    write_json(_attempt_file(task), {"attempt": task.attempt})


def still_owned(task: Task) -> bool:
    """Whether no later attempt has taken the trial over."""
    return int(json.loads(_attempt_file(task).read_text())["attempt"]) <= task.attempt


def _attempt_file(task: Task) -> Path:
    return Path(task.folder) / ".attempt.json"


def _train(task: Task, folder: TrialFolder) -> Iterator[Message]:
    import torch

    from fer_data.batches import train_batches
    from fer_models.fit import fit

    torch.set_num_threads(task.threads)
    config, faces = task.config, open_faces(task.faces)
    recipe = config.recipe
    state, history = _begin(task, folder, faces)
    yield from history
    epochs = fit(
        state,
        lambda generator: train_batches(faces.train, recipe.batch_size, config.augment, generator, task.device),
        (faces.val.images, faces.val.labels),
        recipe=recipe,
        epochs=task.epochs,
        seed=task.seed,
        iterations_per_epoch=len(faces.train) // recipe.batch_size,
        device=task.device,
        precision="fp32" if config.precision == "auto" else config.precision,
        memory_format="contiguous" if config.memory_format == "auto" else config.memory_format,
        class_counts=faces.train.counts(len(faces.classes)),
    )
    # The driver's verdict stands in the trial's folder before it asks for the next epoch.
    while not folder.verdict.exists() and (epoch := next(epochs, None)) is not None:
        report = EpochReport(
            attempt=task.attempt, epoch=epoch.number, metrics=epoch.metrics(), iterations=epoch.iterations
        )
        if not still_owned(task):
            return
        best = max((past.metrics[OBJECTIVE] for past in history), default=-1.0)
        history.append(report)
        if epoch.val_accuracy > best:
            _keep_best(folder, state, epoch, faces)
        _checkpoint(folder, state, history)
        yield report
    _finish(task, folder, faces, history)


def open_faces(reference: FacesRef) -> Faces:
    """The faces that a reference means, mapped into memory."""
    faces = open_cached(Path(reference.folder))
    if reference.limit_train is None:
        return faces
    return limit_train(faces, reference.limit_train, reference.limit_seed)


def _begin(task: Task, folder: TrialFolder, faces: Faces) -> tuple[TrainingState, list[EpochReport]]:
    """The state after the last epoch on disk, or before the first, and the reports up to there."""
    import torch

    from fer_models import ModelError
    from fer_models.registry import build
    from fer_models.state import new_state
    from fer_models.weights import load_state

    def fresh() -> TrainingState:
        generator = torch.Generator().manual_seed(task.seed)
        net = build(task.config.net, classes=len(faces.classes), mean_image=faces.mean_image(), generator=generator)
        return new_state(net, task.config.recipe)

    for checkpoint in (folder.last, folder.previous):
        if checkpoint.exists():
            state = fresh()
            try:
                past: dict[str, Any] = load_state(state, checkpoint)
            except ModelError:
                continue  # cut short or damaged: the one before it, or the beginning, gives the same numbers
            reports = [EpochReport.model_validate(report) for report in past["reports"]]
            return state, [report.model_copy(update={"attempt": task.attempt}) for report in reports]
    return fresh(), []


def _checkpoint(folder: TrialFolder, state: TrainingState, history: list[EpochReport]) -> None:
    from fer_models.weights import save_state

    if folder.last.exists():
        folder.last.replace(folder.previous)
    save_state(state, folder.last, {"reports": [report.model_dump(mode="json") for report in history]})


def _keep_best(folder: TrialFolder, state: TrainingState, epoch: Epoch, faces: Faces) -> None:
    import io

    import numpy as np

    from fer_models.weights import save_weights

    save_weights(
        state.judged_net,
        folder.best,
        {"epoch": str(epoch.number), "dataset": faces.name, "dataset.fingerprint": faces.fingerprint},
    )
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        probabilities=epoch.val_probabilities,
        labels=np.asarray(faces.val.labels),
        epoch=epoch.number,
    )
    write_bytes(folder.val_probabilities, buffer.getvalue())


def _finish(task: Task, folder: TrialFolder, faces: Faces, history: list[EpochReport]) -> None:
    """Draw the pictures, write the confusion matrix, and drop what only a running trial needs."""
    if task.figures and history:
        _draw(task, folder, faces, history)
    folder.previous.unlink(missing_ok=True)
    if folder.verdict.exists():
        _drop_state(folder)


def _drop_state(folder: TrialFolder) -> None:
    """A trial that was given up or diverged never goes on: what it would go on from is the bulk of its folder."""
    folder.last.unlink(missing_ok=True)
    folder.previous.unlink(missing_ok=True)


def _draw(task: Task, folder: TrialFolder, faces: Faces, history: list[EpochReport]) -> None:
    import numpy as np

    from tracking.events import EpochDone
    from tracking.figures import draw_confusion_matrix, draw_curves
    from tracking.scores import confusion_matrix

    with np.load(folder.val_probabilities) as kept:
        labels, predictions, epoch = kept["labels"], kept["probabilities"].argmax(1), int(kept["epoch"])
    name = "SYNTHETIC FACES" if faces.synthetic else faces.name
    where = f"{name}, {val_title(faces.name)}, n = {len(faces.val):,}"
    title = f"trial {task.trial}: {task.config.net.name} on {where}"
    epochs = [
        EpochDone(trial=task.trial, epoch=report.epoch, metrics=report.metrics, iterations=report.iterations)
        for report in history
    ]
    draw_curves(folder.curves, epochs, title)
    matrix = confusion_matrix(labels, predictions, len(faces.classes))
    draw_confusion_matrix(folder.confusion_matrix_png, matrix, faces.classes, f"{title}, epoch {epoch}")
    rows = matrix.sum(axis=1, keepdims=True)
    content = {
        "dataset": faces.name,
        "split": val_title(faces.name),
        "n": len(labels),
        "epoch": epoch,
        "classes": faces.classes,
        "counts": matrix.tolist(),
        "normalised": (matrix / np.maximum(rows, 1)).round(6).tolist(),
    }
    write_json(folder.confusion_matrix_json, content)
