"""Whether a difference is beyond chance: McNemar's test, Holm's correction, paired bootstrap intervals."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tracking.errors import TrackingError
from tracking.metrics.probability_scores import (
    BINS,
    FloatArray,
    checked_probabilities,
    confidence_bins,
    image_brier_scores,
    image_log_losses,
)
from tracking.metrics.scores import IntArray, Interval

RESAMPLES = 2000
_RESAMPLES_AT_ONCE = 100  # limits memory to 100 x n weights
_DRAWS = 20_000
_DRAWS_AT_ONCE = 1000
_MOST_CORRELATED = 1000
"""Largest number of candidates whose correlations, a k x k matrix, are computed."""

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class PairedDifferences:
    """Model a's metrics minus model b's on the same images, with bootstrap intervals; F1 differences [classes]."""

    metrics: dict[str, Interval]
    class_f1: tuple[Interval, ...]


def mcnemar_mid_p(only_a: int, only_b: int) -> float:
    """Two-sided mid-p of McNemar's test (Fagerland, Lydersen & Laake 2013).

    `only_a` and `only_b` are the numbers of images that only one model predicts correctly. The p-value is 1 if both are
    0.

    Raises:
        TrackingError: a negative count.
    """
    from scipy.stats import binom

    if only_a < 0 or only_b < 0:
        raise TrackingError(f"McNemar's test of {only_a} and {only_b}: expected counts >= 0")
    fewer, n = min(only_a, only_b), only_a + only_b
    if n == 0:
        return 1.0
    point = float(binom.pmf(fewer, n, 0.5))
    return 1 - point / 2 if only_a == only_b else 2 * float(binom.cdf(fewer, n, 0.5)) - point


def selected_p(chosen: BoolArray, present: BoolArray, candidates: BoolArray, generator: np.random.Generator) -> float:
    """Two-sided p-value that `chosen` is better than `present`: both [n], correct or not on the same images.

    `chosen` was selected on these images among `candidates` [k, n], which include it. The statistic of McNemar's test
    is therefore compared with the maximum of all candidates' differences to `present` under the null hypothesis:
    normal, with the correlations of the differences (Westfall & Young 1993). With one candidate it is McNemar's mid-p.
    """
    from scipy.stats import norm

    gained, lost = int((chosen & ~present).sum()), int((present & ~chosen).sum())
    p = mcnemar_mid_p(gained, lost)
    one_sided = p / 2 if gained > lost else 1 - p / 2
    differences = candidates.astype(np.float64) - present
    differences = differences[differences.std(axis=1) > 0]
    if len(differences) < 2:
        return min(1.0, 2 * one_sided)
    if len(differences) > _MOST_CORRELATED:
        return min(1.0, 2 * (1 - (1 - one_sided) ** len(differences)))  # as if independent, which is stricter
    values, vectors = np.linalg.eigh(np.corrcoef(differences))
    factor = (vectors * np.sqrt(np.maximum(values, 0))).T
    larger, least = 0, norm.isf(one_sided)
    for _ in range(_DRAWS // _DRAWS_AT_ONCE):
        drawn = generator.standard_normal((_DRAWS_AT_ONCE, len(factor))) @ factor
        larger += int((drawn.max(axis=1) >= least).sum())
    return min(1.0, 2 * max(one_sided, larger / _DRAWS))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for multiple tests (Holm 1979), in the given order."""
    count = len(p_values)
    corrected = [0.0] * count
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (count - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def paired_bootstrap(
    labels: IntArray,
    probabilities_a: NDArray[np.floating],
    probabilities_b: NDArray[np.floating],
    generator: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
) -> PairedDifferences:
    """95 % percentile intervals of metric a minus metric b; each resample draws the same images for both.

    Raises:
        TrackingError: as `checked_probabilities`, the two differ in shape, or there are no images.
    """
    a, b = (checked_probabilities(labels, given) for given in (probabilities_a, probabilities_b))
    if a.shape != b.shape or not labels.size:
        raise TrackingError(f"probabilities {a.shape} and {b.shape}: expected equal shapes, and at least one image")
    terms = np.concatenate([_image_terms(labels, a), _image_terms(labels, b)], axis=1)
    classes, n = a.shape[1], labels.size
    observed = _difference(np.ones((1, n)) @ terms, classes, n)
    resampled = np.concatenate(
        [_difference(weights @ terms, classes, n) for weights in _weights(n, resamples, generator)]
    )
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    intervals = [Interval(*map(float, bounds)) for bounds in zip(observed[0], low, high, strict=True)]
    return PairedDifferences(dict(zip(_METRICS, intervals, strict=False)), tuple(intervals[len(_METRICS) :]))


_METRICS = ("accuracy", "macro_f1", "balanced_accuracy", "log_loss", "brier", "ece")


def _weights(n: int, resamples: int, generator: np.random.Generator) -> Iterator[FloatArray]:
    """How often each image is drawn, [resamples at once, n] per block."""
    for begin in range(0, resamples, _RESAMPLES_AT_ONCE):
        rows = min(_RESAMPLES_AT_ONCE, resamples - begin)
        drawn = generator.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def _image_terms(labels: IntArray, probabilities: FloatArray) -> FloatArray:
    """The terms of each image in the sums from which all metrics are computed, [n, 3 classes + 2 + BINS].

    Columns: per class: label, prediction, both; log-loss, Brier score; per bin: confidence minus right (0 or 1).
    """
    classes = probabilities.shape[1]
    predictions = probabilities.argmax(axis=1)
    one_hot = np.eye(classes)
    is_class, as_class = one_hot[labels], one_hot[predictions]
    losses = np.stack([image_log_losses(labels, probabilities), image_brier_scores(labels, probabilities)], axis=1)
    gap = probabilities.max(axis=1) - (predictions == labels)
    gaps = np.eye(BINS)[confidence_bins(probabilities)] * gap[:, None]
    return np.concatenate([is_class, as_class, is_class * as_class, losses, gaps], axis=1)


def _difference(sums: FloatArray, classes: int, n: int) -> FloatArray:
    """Metrics of a minus those of b, [resamples, metrics + classes], from both models' sums [resamples, 2 x terms]."""
    half = sums.shape[1] // 2
    return _metrics(sums[:, :half], classes, n) - _metrics(sums[:, half:], classes, n)


def _metrics(sums: FloatArray, classes: int, n: int) -> FloatArray:
    labelled, predicted, both, losses, gaps = np.split(
        sums, [classes, 2 * classes, 3 * classes, 3 * classes + 2], axis=1
    )
    f1 = _ratio(2 * both, labelled + predicted)
    # A class of which a resample drew no image has no recall and does not count there.
    recall = _ratio(both, labelled)
    balanced = recall.sum(axis=1) / (labelled > 0).sum(axis=1)
    ece = np.abs(gaps).sum(axis=1) / n
    columns = [both.sum(axis=1) / n, f1.mean(axis=1), balanced, losses[:, 0] / n, losses[:, 1] / n, ece]
    return np.concatenate([np.stack(columns, axis=1), f1], axis=1)


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
