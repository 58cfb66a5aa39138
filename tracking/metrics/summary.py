"""All scores of one net's predictions on one split, on all faces and without leaked ones; stored as JSON."""

import math
import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fer_common.frozen import Finite
from tracking.errors import TrackingError
from tracking.metrics.probability_scores import (
    FloatArray,
    at_temperature,
    checked_probabilities,
    fit_temperature,
    grade,
    image_brier_scores,
    image_log_losses,
    macro_roc,
    micro_roc,
    reliability,
    roc_curves,
)
from tracking.metrics.scores import (
    IntArray,
    Interval,
    balanced_accuracy,
    confusion_matrix,
    macro_f1,
    wilson_interval,
)
from tracking.record.events import LEAK_FREE

METRIC_NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "balanced_accuracy": "balanced accuracy",
    "auc_macro": "macro AUC",
    "auc_micro": "micro AUC",
    "log_loss": "log-loss",
    "brier": "Brier score",
    "ece": "calibration error (ECE)",
    "ece_calibrated": "ECE at the fitted temperature",
}
"""Metric → its name in tables."""

LOWER_IS_BETTER = frozenset({"log_loss", "brier", "ece", "ece_calibrated"})


class ClassScores(Finite):
    """Scores of one class against all others; a score that no image determines is None. Intervals are Wilson's."""

    name: str
    labelled: int
    predicted: int
    precision: Interval | None
    recall: Interval | None
    f1: float
    auc: float | None
    grade: str


class Scores(Finite):
    """All scores on one set of images. `confusion` [classes, classes]: row = label, column = prediction."""

    n: int
    accuracy: Interval
    macro_f1: float
    balanced_accuracy: float
    auc_macro: float | None
    auc_micro: float | None
    log_loss: float
    brier: float
    """Multiclass, 0..2 (Brier 1950)."""
    ece: float
    ece_calibrated: float
    """ECE at the temperature of the summary."""
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]

    def value(self, metric: str) -> float | None:
        """The metric of that name in `METRIC_NAMES`."""
        found: float | Interval | None = getattr(self, metric)
        return found.value if isinstance(found, Interval) else found


class ScoreSummary(Finite):
    """Scores on all images and, if some are also in the training split, on the others alone."""

    temperature: float
    full: Scores
    leak_free: Scores | None = None

    def metrics(self, prefix: str = "best_val_") -> dict[str, float]:
        """Flat names for MLflow: `best_val_macro_f1`, `best_val_macro_f1_leak_free`, `best_val_f1/Happy` …"""
        found = {f"{prefix}temperature": self.temperature}
        for scores, ending in ((self.full, ""), (self.leak_free, LEAK_FREE)):
            if scores is not None:
                found |= {f"{prefix}{name}": value for name, value in _flat(scores, ending)}
        return found


def summary(
    labels: IntArray,
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
    leaked: NDArray[np.bool_] | None = None,
    temperature: float | None = None,
) -> ScoreSummary:
    """Score probabilities [n, classes] against labels [n]; `leaked` [n] marks faces that are also in training.

    The `temperature` is fitted on these images unless given, for example as fitted on another split.

    Raises:
        TrackingError: no images, shapes that do not fit, or values that are not probabilities.
    """
    if not labels.size or len(classes) != probabilities.shape[-1]:
        raise TrackingError(
            f"{labels.size} images, probabilities {probabilities.shape}, {len(classes)} classes: expected at "
            "least one image, and one column per class"
        )
    if leaked is not None and leaked.shape != labels.shape:
        raise TrackingError(f"leaked {leaked.shape} and labels {labels.shape}: expected one length")
    checked = checked_probabilities(labels, probabilities)
    temperature = fit_temperature(labels, checked) if temperature is None else temperature
    calibrated = at_temperature(checked, temperature)
    full = _scores(labels, checked, calibrated, classes)
    if leaked is None or not leaked.any() or leaked.all():
        return ScoreSummary(temperature=temperature, full=full)
    rest = ~leaked
    return ScoreSummary(
        temperature=temperature, full=full, leak_free=_scores(labels[rest], checked[rest], calibrated[rest], classes)
    )


def _scores(labels: IntArray, probabilities: FloatArray, calibrated: FloatArray, classes: Sequence[str]) -> Scores:
    predictions = probabilities.argmax(axis=1)
    matrix = confusion_matrix(labels, predictions, len(classes))
    curves = roc_curves(labels, probabilities, classes)
    return Scores(
        n=labels.size,
        accuracy=wilson_interval(int(np.trace(matrix)), labels.size),
        macro_f1=macro_f1(labels, predictions, len(classes)),
        balanced_accuracy=balanced_accuracy(matrix),
        auc_macro=_defined(macro_roc(curves).auc),
        auc_micro=_defined(micro_roc(labels, probabilities).auc),
        log_loss=float(image_log_losses(labels, probabilities).mean()),
        brier=float(image_brier_scores(labels, probabilities).mean()),
        ece=reliability(labels, probabilities).error,
        ece_calibrated=reliability(labels, calibrated).error,
        classes=tuple(_class_scores(matrix, index, curve.name, curve.auc) for index, curve in enumerate(curves)),
        confusion=tuple(tuple(int(cell) for cell in row) for row in matrix),
    )


def _class_scores(matrix: NDArray[np.int64], index: int, name: str, auc: float) -> ClassScores:
    right, labelled, predicted = (
        int(count) for count in (matrix[index, index], matrix[index].sum(), matrix[:, index].sum())
    )
    either = labelled + predicted
    return ClassScores(
        name=name,
        labelled=labelled,
        predicted=predicted,
        precision=wilson_interval(right, predicted) if predicted else None,
        recall=wilson_interval(right, labelled) if labelled else None,
        f1=2 * right / either if either else 0.0,
        auc=_defined(auc),
        grade=grade(auc),
    )


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _flat(scores: Scores, ending: str) -> Iterator[tuple[str, float]]:
    for metric in METRIC_NAMES:
        value = scores.value(metric)
        if value is not None:
            yield metric + ending, value
    yield "accuracy_low" + ending, scores.accuracy.low
    yield "accuracy_high" + ending, scores.accuracy.high
    for one in scores.classes:
        # MLflow accepts letters, digits, `_ - . / :` and spaces.
        name = re.sub(r"[^\w.\- ]", "_", one.name)
        yield f"f1/{name}{ending}", one.f1
        for metric, share in (("precision", one.precision), ("recall", one.recall)):
            if share is not None:
                yield f"{metric}/{name}{ending}", share.value
        if one.auc is not None:
            yield f"auc/{name}{ending}", one.auc


def data_name(dataset: str, synthetic: bool) -> str:
    """The data set's name in titles and pages, which marks synthetic faces clearly."""
    return "SYNTHETIC FACES" if synthetic else dataset
