"""Scores of class probabilities: ROC curves, log-loss, Brier score, calibration.

Shapes: `labels` [n] integers, `probabilities` [n, classes] with rows that sum to 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tracking.errors import TrackingError
from tracking.metrics.scores import IntArray

FloatArray = NDArray[np.float64]

BINS = 15
"""Number of bins of the calibration error, as in Guo et al. 2017."""

_GRADES = ((0.9, "A"), (0.8, "B"), (0.7, "C"), (0.6, "D"))
_GRID = np.linspace(0, 1, 201)
_ROW_SUM_TOLERANCE = 1e-2  # bfloat16 has 8 significant bits
_LEAST_LOG_TEMPERATURE, _MOST_LOG_TEMPERATURE = -4.0, 4.0


@dataclass(frozen=True)
class RocCurve:
    """True against false positive rate, both [points] from 0 to 1, and the area under the curve.

    Without positives or without negatives there is no curve: the arrays are empty and the area is NaN.
    """

    name: str
    false_positive_rate: FloatArray
    true_positive_rate: FloatArray
    auc: float

    @property
    def grade(self) -> str:
        """The grade on the Caffe report's scale: A from .90, B .80, C .70, D .60, else F; '' without a curve."""
        return grade(self.auc)


@dataclass(frozen=True)
class Reliability:
    """Correct predictions against confidence, in `BINS` equal bins: counts, mean confidence, accuracy [bins].

    Means of an empty bin are NaN.
    """

    counts: NDArray[np.int64]
    confidence: FloatArray
    accuracy: FloatArray

    @property
    def error(self) -> float:
        """Expected calibration error: the mean of the bins' gaps, weighted by their counts; NaN without images."""
        there = self.counts > 0
        if not there.any():
            return math.nan
        gaps = np.abs(self.confidence[there] - self.accuracy[there])
        return float(np.average(gaps, weights=self.counts[there]))


def grade(auc: float) -> str:
    """The grade of an AUC on the Caffe report's scale A-F; '' for NaN."""
    if math.isnan(auc):
        return ""
    return next((letter for least, letter in _GRADES if auc >= least), "F")


def checked_probabilities(labels: IntArray, probabilities: NDArray[np.floating]) -> FloatArray:
    """The probabilities [n, classes] as float64 with rows that sum to 1 exactly.

    Raises:
        TrackingError: wrong shape, a label out of range, a value that is not a probability, or a row's sum far from 1.
    """
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise TrackingError(
            f"labels {labels.shape} and probabilities {probabilities.shape}: expected [n] and [n, classes]"
        )
    classes = probabilities.shape[1]
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise TrackingError(f"label {wrong[0]} outside 0..{classes - 1}")
    wide = probabilities.astype(np.float64)
    sums = wide.sum(axis=1, keepdims=True)
    # In this form NaN is refused too.
    faulty = ~((wide >= 0).all(axis=1) & (np.abs(sums[:, 0] - 1) < _ROW_SUM_TOLERANCE))
    if faulty.any():
        row = int(faulty.argmax())
        raise TrackingError(f"row {row} of the probabilities is {wide[row].round(4).tolist()}: expected >= 0, sum 1")
    return np.asarray(wide / sums, dtype=np.float64)


def image_log_losses(labels: IntArray, probabilities: FloatArray) -> FloatArray:
    """Negative natural logarithm of each image's probability of its own label, [n]; finite."""
    own = np.take_along_axis(probabilities, labels.astype(np.int64)[:, None], axis=1)[:, 0]
    return np.asarray(-np.log(np.maximum(own, np.finfo(np.float32).tiny)), dtype=np.float64)


def image_brier_scores(labels: IntArray, probabilities: FloatArray) -> FloatArray:
    """Each image's squared distance from its label, summed over the classes (Brier 1950): [n], 0..2."""
    return np.asarray(((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1), dtype=np.float64)


def confidence_bins(probabilities: FloatArray) -> NDArray[np.int64]:
    """Bin 0..BINS-1 of each image's highest probability, [n]; a bin includes its upper bound."""
    bins = np.ceil(probabilities.max(axis=1) * BINS).astype(np.int64) - 1
    return np.asarray(bins.clip(0, BINS - 1), dtype=np.int64)


def reliability(labels: IntArray, probabilities: FloatArray) -> Reliability:
    """Accuracy of predictions by their confidence (Guo et al. 2017)."""
    bins = confidence_bins(probabilities)
    counts = np.bincount(bins, minlength=BINS)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    sums = [np.bincount(bins, values, BINS) for values in (probabilities.max(axis=1), right)]
    confidence, hits = (np.divide(s, counts, out=np.full(BINS, np.nan), where=counts > 0) for s in sums)
    return Reliability(counts, confidence, hits)


def fit_temperature(labels: IntArray, probabilities: FloatArray) -> float:
    """The temperature that minimises the log-loss (Guo et al. 2017), within e^-4..e^4; 1 without images."""
    from scipy.optimize import minimize_scalar

    if not labels.size:
        return 1.0

    def loss(log_temperature: float) -> float:
        scaled = at_temperature(probabilities, math.exp(log_temperature))
        return float(image_log_losses(labels, scaled).mean())

    found = minimize_scalar(loss, bounds=(_LEAST_LOG_TEMPERATURE, _MOST_LOG_TEMPERATURE), method="bounded")
    return math.exp(float(found.x))


def at_temperature(probabilities: FloatArray, temperature: float) -> FloatArray:
    """Softmax of the log-probabilities divided by `temperature`; the predicted classes do not change."""
    logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)


def roc_curves(labels: IntArray, probabilities: FloatArray, classes: Sequence[str]) -> list[RocCurve]:
    """One curve per class against all others, in the classes' order."""
    return [_roc(name, labels == index, probabilities[:, index]) for index, name in enumerate(classes)]


def macro_roc(curves: Sequence[RocCurve]) -> RocCurve:
    """Mean of the classes' curves at equal false positive rates; its AUC is the mean of theirs."""
    there = [curve for curve in curves if not math.isnan(curve.auc)]
    if not there:
        return _no_curve("macro")
    rates = [np.interp(_GRID, curve.false_positive_rate, curve.true_positive_rate) for curve in there]
    mean = np.concatenate([[0.0], np.mean(rates, axis=0)])
    return RocCurve("macro", np.concatenate([[0.0], _GRID]), mean, float(np.mean([curve.auc for curve in there])))


def micro_roc(labels: IntArray, probabilities: FloatArray) -> RocCurve:
    """The curve over all (image, class) pairs."""
    is_label = np.eye(probabilities.shape[1], dtype=bool)[labels]
    return _roc("micro", is_label.ravel(), probabilities.ravel())


def _roc(name: str, positive: NDArray[np.bool_], scores: FloatArray) -> RocCurve:
    from sklearn.metrics import auc, roc_curve

    if positive.all() or not positive.any():
        return _no_curve(name)
    false_positive_rate, true_positive_rate, _ = roc_curve(positive, scores)
    return RocCurve(name, false_positive_rate, true_positive_rate, float(auc(false_positive_rate, true_positive_rate)))


def _no_curve(name: str) -> RocCurve:
    return RocCurve(name, np.empty(0), np.empty(0), math.nan)
