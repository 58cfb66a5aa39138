"""Numbers by hand, from papers, and from scikit-learn and scipy."""

import math

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as sk

from tracking.errors import TrackingError
from tracking.figures.score_figures import mistakes_figure, surest_mistakes
from tracking.metrics.probability_scores import (
    at_temperature,
    checked_probabilities,
    fit_temperature,
    grade,
    macro_roc,
    micro_roc,
    reliability,
    roc_curves,
)
from tracking.metrics.summary import ScoreSummary, summary

CLASSES = ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")
CAFFE = [  # the Caffe report's own matrix, row = label
    [203, 6, 67, 43, 75, 7, 66],
    [16, 20, 4, 5, 6, 0, 5],
    [55, 2, 194, 35, 99, 41, 70],
    [55, 0, 31, 665, 40, 19, 85],
    [96, 1, 85, 57, 295, 15, 104],
    [11, 0, 38, 23, 14, 308, 21],
    [47, 3, 54, 72, 132, 15, 284],
]
RNG = np.random.default_rng(5)
LABELS = RNG.integers(0, 7, 800)
LOGITS = 1.5 * np.eye(7)[LABELS] + RNG.normal(size=(800, 7))
PROBABILITIES = softmax(LOGITS, axis=1).astype(np.float32)


def test_the_caffe_report_s_matrix_gives_its_numbers() -> None:
    cells = [(label, said) for label in range(7) for said in range(7) for _ in range(CAFFE[label][said])]
    labels, said = np.array(cells).T
    scores = summary(labels, np.eye(7)[said], CLASSES).full
    assert scores.n == 3589
    assert [one.labelled for one in scores.classes] == [467, 56, 496, 895, 653, 415, 607]
    assert 100 * scores.accuracy.value == pytest.approx(54.862, abs=5e-4)
    assert scores.macro_f1 == pytest.approx(0.526, abs=5e-4)
    assert scores.balanced_accuracy == pytest.approx(0.513, abs=5e-4)
    assert scores.confusion == tuple(map(tuple, CAFFE))


def test_scores_are_scikit_learn_s() -> None:
    scores = summary(LABELS, PROBABILITIES, CLASSES).full
    wide = PROBABILITIES.astype(float) / PROBABILITIES.sum(1, keepdims=True, dtype=float)
    said = wide.argmax(1)
    assert scores.log_loss == pytest.approx(sk.log_loss(LABELS, wide))
    assert scores.brier == pytest.approx(sk.brier_score_loss(LABELS, wide, labels=range(7), scale_by_half=False))
    assert scores.auc_macro == pytest.approx(sk.roc_auc_score(LABELS, wide, multi_class="ovr", average="macro"))
    assert scores.auc_micro == pytest.approx(sk.roc_auc_score(LABELS, wide, multi_class="ovr", average="micro"))
    precision, recall, f1, _ = sk.precision_recall_fscore_support(LABELS, said)
    assert [one.f1 for one in scores.classes] == pytest.approx(f1)
    assert [one.recall.value for one in scores.classes if one.recall] == pytest.approx(recall)
    assert [one.precision.value for one in scores.classes if one.precision] == pytest.approx(precision)


def test_roc_by_hand() -> None:
    # Of class 0, scores .9 .4 for its images and .6 .2 for others: 3 of 4 pairs are ranked rightly.
    labels = np.array([0, 0, 1, 1])
    first = np.array([0.9, 0.4, 0.6, 0.2])
    curves = roc_curves(labels, np.stack([first, 1 - first], 1), ("a", "b"))
    assert [curve.auc for curve in curves] == [0.75, 0.75]
    assert [curve.grade for curve in curves] == ["C", "C"]
    macro = macro_roc(curves)
    assert macro.auc == 0.75
    assert (macro.true_positive_rate[0], macro.true_positive_rate[-1]) == (0, 1)
    assert np.interp(0.25, macro.false_positive_rate, macro.true_positive_rate) == pytest.approx(0.5)
    assert micro_roc(labels, np.stack([first, 1 - first], 1)).auc == 0.75


@pytest.mark.parametrize(
    ("auc", "letter"),
    [(0.9, "A"), (0.899, "B"), (0.8, "B"), (0.7, "C"), (0.6, "D"), (0.599, "F"), (math.nan, "")],
)
def test_the_caffe_report_s_scale(auc: float, letter: str) -> None:
    assert grade(auc) == letter


def test_calibration_error_by_hand() -> None:
    # Two images at confidence .9, one right: gap .4, weight 2/4; two at .6, both right: gap .4 as well.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    bins = reliability(np.array([0, 1, 0, 1]), probabilities)
    assert bins.error == pytest.approx(0.4)
    assert bins.counts.sum() == 4
    assert bins.counts[13] == 2, ".9 lies in the bin from 13/15 to 14/15"


def test_the_temperature_of_overconfident_logits_is_found() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 5)) * 2
    drawn = np.array([rng.choice(5, p=row) for row in softmax(logits, axis=1)])
    sure = softmax(3 * logits, axis=1)
    found = fit_temperature(drawn, sure)
    assert found == pytest.approx(3, rel=0.03)
    assert reliability(drawn, at_temperature(sure, found)).error < 0.02 < reliability(drawn, sure).error
    assert at_temperature(sure, 3.0) == pytest.approx(softmax(logits, axis=1), abs=1e-9)


def test_leaked_faces_are_left_out() -> None:
    leaked = RNG.random(800) < 0.2
    both = summary(LABELS, PROBABILITIES, CLASSES, leaked)
    assert both.leak_free is not None
    assert both.leak_free.n == 800 - leaked.sum()
    rest = summary(LABELS[~leaked], PROBABILITIES[~leaked], CLASSES).full
    assert both.leak_free.macro_f1 == rest.macro_f1
    assert ScoreSummary.model_validate_json(both.model_dump_json()) == both
    metrics = both.metrics()
    assert metrics["best_val_macro_f1"] == both.full.macro_f1
    assert metrics["best_val_macro_f1_leak_free"] == rest.macro_f1
    assert metrics["best_val_auc/Happy"] == both.full.classes[3].auc


def test_a_class_that_no_image_has_leaves_its_numbers_open() -> None:
    scores = summary(np.array([0, 1]), np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1]]), ("a", "b", "c")).full
    absent = scores.classes[2]
    assert (absent.recall, absent.precision, absent.auc, absent.grade) == (None, None, None, "")
    assert scores.auc_macro == 1.0


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], [[0.5, 0.5]], r"expected \[n\] and \[n, classes\]"),
        ([2], [[0.5, 0.5]], r"label 2 outside 0\.\.1"),
        ([0, 0], [[0.5, 0.5], [0.9, 0.9]], "row 1"),
        ([0], [[math.nan, 1.0]], "row 0"),
        ([0], [[-0.5, 1.5]], "row 0"),
    ],
)
def test_what_is_no_probability_is_refused(labels: list[int], probabilities: list[list[float]], message: str) -> None:
    with pytest.raises(TrackingError, match=message):
        checked_probabilities(np.array(labels), np.array(probabilities))


def test_the_surest_mistakes_come_first_on_the_sheet() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.05, 0.95], [0.3, 0.7]])
    found = surest_mistakes(np.array([0, 1, 0, 0]), probabilities, count=2)
    assert found.faces.tolist() == [2, 1]
    assert found.confidence.tolist() == [0.95, 0.8]
    sheet = mistakes_figure(np.zeros((2, 8, 8), np.uint8), found, ("a", "b"), "t")
    assert [axes.get_title() for axes in sheet.axes[:2]] == ["a\npred. b 95%", "b\npred. a 80%"]
    with pytest.raises(TrackingError, match="1 faces for 2 mistakes"):
        mistakes_figure(np.zeros((1, 8, 8), np.uint8), found, ("a", "b"), "t")
