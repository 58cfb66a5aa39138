"""Scores a net on all faces of a csv in FER2013's format: probabilities, confusion matrix and scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer_data import EXPRESSIONS
from fer_data.images.resizing import all_resized
from fer_data.sources.csv_rows import USAGES
from fer_data.sources.fer2013 import read_rows_of
from sweeps.errors import InputError
from sweeps.use.classifier import FACES_AT_ONCE, Classifier
from tracking.metrics.summary import ScoreSummary, summary


@dataclass(frozen=True, eq=False)
class Scored:
    """Labels of a csv, the net's predictions, their scores, those of each Usage if the csv has them, and the omitted
    lines."""

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    scores: ScoreSummary
    by_usage: dict[str, ScoreSummary]
    faults: tuple[str, ...]


def score_csv(path: Path, classifier: Classifier, on_batch: Callable[[int, int], object] = lambda *_: None) -> Scored:
    """Predict every valid row. Raises DataError if there is none, InputError for a net of other classes.

    After each batch `on_batch` receives how many faces are done, and how many there are.
    """
    if tuple(classifier.classes) != EXPRESSIONS:
        raise InputError(
            f"{path}: its labels are FER2013's ({', '.join(EXPRESSIONS)}), but {classifier.about.name} knows "
            f"{', '.join(classifier.classes)}; use a net with these classes"
        )
    rows = read_rows_of(path)
    side = int(rows.pixels.shape[1] ** 0.5)
    images = rows.pixels.reshape(-1, side, side)
    faces = np.asarray(all_resized(images, classifier.side, classifier.resize_method), np.uint8)
    parts = []
    for start in range(0, len(faces), FACES_AT_ONCE):
        parts.append(classifier.probabilities(faces[start : start + FACES_AT_ONCE]))
        on_batch(start + len(parts[-1]), len(faces))
    probabilities = np.concatenate(parts)
    labels = rows.emotions.astype(np.int64)
    by_usage = {}
    if rows.usages is not None:
        for number in np.unique(rows.usages):
            mine = rows.usages == number
            by_usage[USAGES[number]] = summary(labels[mine], probabilities[mine], classifier.classes)
    scores = summary(labels, probabilities, classifier.classes)
    return Scored(labels, probabilities, scores, by_usage, rows.left_out)
