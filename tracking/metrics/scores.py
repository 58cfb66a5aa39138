"""Scores of predictions, with confidence intervals."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tracking.errors import TrackingError

IntArray = NDArray[np.integer]


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its confidence interval."""

    value: float
    low: float
    high: float


def confusion_matrix(labels: IntArray, predictions: IntArray, classes: int) -> NDArray[np.int64]:
    """Counts [classes, classes]: row = label, column = prediction.

    Raises:
        TrackingError: lengths differ, or a class is out of range.
    """
    if labels.shape != predictions.shape or labels.ndim != 1:
        raise TrackingError(f"labels {labels.shape} and predictions {predictions.shape}: expected two equal lengths")
    for name, values in (("label", labels), ("prediction", predictions)):
        wrong = values[(values < 0) | (values >= classes)]
        if wrong.size:
            raise TrackingError(f"{name} {wrong[0]} outside 0..{classes - 1}")
    # Converted first, since `labels * classes` would overflow in uint8.
    cells = labels.astype(np.int64) * classes + predictions.astype(np.int64)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def macro_f1(labels: IntArray, predictions: IntArray, classes: int) -> float:
    """Mean over the classes of the F1 score; a class without labels and predictions counts 0."""
    from sklearn.metrics import f1_score

    every_class = list(range(classes))
    return float(f1_score(labels, predictions, labels=every_class, average="macro", zero_division=0.0))


def balanced_accuracy(matrix: NDArray[np.int64]) -> float:
    """Mean recall over the classes that have labels; NaN for an empty matrix."""
    labelled = matrix.sum(axis=1)
    there = labelled > 0
    return float((np.diag(matrix)[there] / labelled[there]).mean()) if there.any() else math.nan


def wilson_interval(right: int, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion (Wilson 1927, without continuity correction).

    Raises:
        TrackingError: n < 1 or `right` outside 0..n.
    """
    if n < 1 or not 0 <= right <= n:
        raise TrackingError(f"{right} right of {n}: expected 0 <= right <= n and n >= 1")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = right / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def difference_interval(right_a: int, n_a: int, right_b: int, n_b: int, confidence: float = 0.95) -> Interval:
    """Interval of accuracy a minus accuracy b on different images (Newcombe 1998, method 10).

    Raises:
        TrackingError: as `wilson_interval`.
    """
    a, b = wilson_interval(right_a, n_a, confidence), wilson_interval(right_b, n_b, confidence)
    difference = a.value - b.value
    return Interval(
        difference,
        difference - math.hypot(a.value - a.low, b.high - b.value),
        difference + math.hypot(a.high - a.value, b.value - b.low),
    )


def paired_difference_interval(labels: IntArray, predictions_a: IntArray, predictions_b: IntArray) -> Interval:
    """95 % interval of accuracy a minus accuracy b on the same images (Newcombe 1998, paired, method 10).

    The more images both predict correctly together, the narrower it is compared with `difference_interval`.

    Raises:
        TrackingError: lengths differ, or there are no images.
    """
    if not labels.shape == predictions_a.shape == predictions_b.shape:
        raise TrackingError(
            f"labels {labels.shape}, predictions {predictions_a.shape} and {predictions_b.shape}: expected one length"
        )
    right_a, right_b = predictions_a == labels, predictions_b == labels
    both, only_a = int((right_a & right_b).sum()), int((right_a & ~right_b).sum())
    only_b, neither = int((~right_a & right_b).sum()), int((~right_a & ~right_b).sum())
    n = labels.size
    a, b = wilson_interval(both + only_a, n), wilson_interval(both + only_b, n)
    phi = _correlation(both, only_a, only_b, neither)
    difference = a.value - b.value
    below = _joined(a.value - a.low, b.high - b.value, phi)
    above = _joined(a.high - a.value, b.value - b.low, phi)
    return Interval(difference, difference - below, difference + above)


def _correlation(both: int, only_a: int, only_b: int, neither: int) -> float:
    # With Newcombe's continuity correction, which applies only to positive association.
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if margins == 0:
        return 0.0
    product = float(both * neither - only_a * only_b)
    if product > 0:
        product = max(product - (both + only_a + only_b + neither) / 2, 0.0)
    return product / math.sqrt(margins)


def _joined(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))
