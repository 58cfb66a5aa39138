"""Writes a trial's result files: predictions on the validation split, scores, pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sweeps.trial.messages import val_title
from tracking.errors import TrackingError
from tracking.record.events import LEAK_FREE, OBJECTIVE
from tracking.record.files import write_bytes, write_json
from tracking.record.layout import TrialFolder
from tracking.record.predictions import Predictions, read_predictions

if TYPE_CHECKING:
    from fer_data import Faces, Split
    from tracking.figures.trial_figures import EpochRow
    from tracking.metrics.summary import ScoreSummary


def leak_free_accuracy(probabilities: NDArray[np.floating], faces: Faces) -> dict[str, float]:
    """Accuracy of probabilities [n, classes] on the validation faces that are not also in train, by metric name.

    Empty if leaks are not known, or if all faces leak.
    """
    leaked = faces.val.leaked
    if leaked is None or leaked.all():
        return {}
    right = probabilities.argmax(1) == faces.val.labels
    return {OBJECTIVE + LEAK_FREE: float(right[~leaked].mean())}


def keep_answers(folder: TrialFolder, probabilities: NDArray[np.float32], epoch: int, faces: Faces) -> None:
    """Write probabilities [n, classes] on the validation split after an epoch, with the labels."""
    write_answers(folder.val_probabilities, probabilities, epoch, faces.val)


def write_answers(path: Path, probabilities: NDArray[np.float32], epoch: int, split: Split) -> None:
    """Write probabilities [n, classes] and labels of any split to a file."""
    buffer = io.BytesIO()
    labels = np.asarray(split.labels)
    leaked = np.zeros(len(labels), bool) if split.leaked is None else np.asarray(split.leaked)
    np.savez_compressed(buffer, probabilities=probabilities, labels=labels, leaked=leaked, epoch=epoch)
    write_bytes(path, buffer.getvalue())


def score(folder: TrialFolder, faces: Faces, epoch: int) -> dict[str, float]:
    """Score the kept predictions, write scores and confusion matrix as JSON, and return the scores by name."""
    from tracking.metrics.summary import summary

    answers = _answers(folder, epoch)
    found = summary(answers.labels, answers.probabilities, faces.classes, answers.leaked)
    write_scores(folder, found, faces, val_title(faces.name, is_fold=faces.val_is_fold), epoch)
    return found.metrics()


def write_scores(folder: TrialFolder, found: ScoreSummary, faces: Faces, split: str, epoch: int) -> None:
    """Write scores and confusion matrix on one split as JSON."""
    write_bytes(folder.scores, found.model_dump_json(indent=1).encode())
    counts = np.array(found.full.confusion)
    content = {
        "dataset": faces.name,
        "split": split,
        "n": found.full.n,
        "epoch": epoch,
        "classes": faces.classes,
        "counts": counts.tolist(),
        "normalised": (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).round(6).tolist(),
    }
    write_json(folder.confusion_matrix_json, content)


def draw(folder: TrialFolder, faces: Faces, epochs: Sequence[EpochRow], epoch: int, what: str) -> None:
    """Draw every picture of a trial from its kept predictions; `what` names trial and net."""
    from tracking.figures.trial_figures import draw_curves
    from tracking.metrics.summary import ScoreSummary, data_name

    split = val_title(faces.name, is_fold=faces.val_is_fold)
    title = f"{what} on {data_name(faces.name, faces.synthetic)}, {split}, n = {len(faces.val):,}"
    found = ScoreSummary.model_validate_json(folder.scores.read_bytes())
    draw_curves(folder.curves, epochs, title, epoch)
    draw_scores(folder, faces, faces.val, _answers(folder, epoch).probabilities, found, f"{title}, epoch {epoch}")


def draw_scores(
    folder: TrialFolder,
    faces: Faces,
    split: Split,
    probabilities: NDArray[np.floating],
    found: ScoreSummary,
    title: str,
) -> list[Path]:
    """Draw the pictures of probabilities [n, classes] on one split; return their paths."""
    from tracking.figure_text import drawable
    from tracking.figures.parts import save_png
    from tracking.figures.score_figures import mistakes_figure, score_figures, surest_mistakes
    from tracking.figures.trial_figures import draw_confusion_matrix

    names, labels = drawable(faces.classes), np.asarray(split.labels, np.int64)
    draw_confusion_matrix(folder.confusion_matrix_png, np.array(found.full.confusion), names, title)
    pictures = score_figures(labels, probabilities, found, names, title)
    mistakes = surest_mistakes(labels, probabilities)
    if len(mistakes.faces):
        wrong = np.clip(np.asarray(split.images[mistakes.faces]), 0, 255).astype(np.uint8)
        pictures["mistakes"] = mistakes_figure(wrong, mistakes, names, title)
    for name, figure in pictures.items():
        save_png(figure, folder.root / f"{name}.png")
    return [folder.confusion_matrix_png, *(folder.root / f"{name}.png" for name in pictures)]


def _answers(folder: TrialFolder, epoch: int) -> Predictions:
    answers = read_predictions(folder, epoch)
    if answers is None:
        raise TrackingError(f"{folder.val_probabilities}: not the predictions of epoch {epoch}, or damaged")
    return answers
