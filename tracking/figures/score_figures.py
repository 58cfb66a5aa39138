"""Figures of one net's predictions on one split: ROC curves, calibration, classes, and its most confident mistakes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tracking.errors import TrackingError
from tracking.figures.parts import BLUE, COLOURS, LINES, ORANGE, as_percent, draw_cells, plain
from tracking.figures.trial_figures import row_shares
from tracking.metrics.probability_scores import (
    BINS,
    Reliability,
    RocCurve,
    at_temperature,
    checked_probabilities,
    macro_roc,
    micro_roc,
    reliability,
    roc_curves,
)
from tracking.metrics.scores import IntArray
from tracking.metrics.summary import ClassScores, ScoreSummary

_FACES_A_ROW = 8


@dataclass(frozen=True)
class Mistakes:
    """Wrong predictions, the most confident first: all [k]. `faces` are indices into the split."""

    faces: NDArray[np.int64]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    confidence: NDArray[np.float64]


def surest_mistakes(labels: IntArray, probabilities: NDArray[np.floating], count: int = 40) -> Mistakes:
    """The `count` wrong predictions with the highest probability; fewer if there are fewer."""
    predictions, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predictions != labels)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    return Mistakes(order, labels[order].astype(np.int64), predictions[order], confidence[order].astype(np.float64))


def score_figures(
    labels: IntArray, probabilities: NDArray[np.floating], scores: ScoreSummary, names: Sequence[str], title: str
) -> dict[str, Figure]:
    """The figures `roc`, `calibration` and `classes` of probabilities [n, classes]; `names` are their class names."""
    checked = checked_probabilities(labels, probabilities)
    curves = roc_curves(labels, checked, names)
    before, after = reliability(labels, checked), reliability(labels, at_temperature(checked, scores.temperature))
    named = [one.model_copy(update={"name": name}) for one, name in zip(scores.full.classes, names, strict=True)]
    return {
        "classes": class_figure(named, title),
        "roc": roc_figure(curves, [macro_roc(curves), micro_roc(labels, checked)], title),
        "calibration": calibration_figure(before, after, scores.temperature, title),
    }


def roc_figure(curves: Sequence[RocCurve], averages: Sequence[RocCurve], title: str) -> Figure:
    """One curve per class with its AUC and its grade A-F; the averages in black."""
    figure = Figure(figsize=(9.2, 5.6))
    figure.suptitle(title, fontsize=12)
    figure.subplots_adjust(left=0.085, right=0.66, top=0.89, bottom=0.11)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="black", alpha=0.35, linewidth=1, linestyle=(0, (2, 4)))
    for index, curve in enumerate(curves):
        line = LINES[(index // len(COLOURS) + index) % len(LINES)]
        _draw_roc(axes, curve, color=COLOURS[index % len(COLOURS)], linestyle=line, linewidth=1.7)
    for index, curve in enumerate(averages):
        _draw_roc(axes, curve, color="black", linestyle=LINES[index % len(LINES)], linewidth=2.4)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    plain(axes)
    axes.legend(
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.03, 0.5),
        title="class, AUC, grade",
        alignment="left",
        handlelength=3,
    )
    return figure


def calibration_figure(before: Reliability, after: Reliability, temperature: float, title: str) -> Figure:
    """Accuracy against the net's confidence, raw and at the fitted temperature; below it the number of images."""
    figure = Figure(figsize=(10.5, 5.4))
    figure.suptitle(title, fontsize=12)
    figure.subplots_adjust(left=0.07, right=0.985, top=0.84, bottom=0.11, hspace=0.12, wspace=0.18)
    grid = figure.subplots(2, 2, sharex=True, height_ratios=(3, 1))
    names = "uncalibrated", f"at temperature {temperature:.2f}"
    for column, (name, bins, colour) in enumerate(zip(names, (before, after), (ORANGE, BLUE), strict=True)):
        _draw_reliability(grid[0][column], bins, f"{name}: ECE {100 * bins.error:.1f} %", colour)
        grid[1][column].bar(_centres(), bins.counts, width=1 / BINS, color=colour, alpha=0.8, edgecolor="white")
        grid[1][column].set_xlabel("confidence")
        plain(grid[1][column])
    grid[0][0].set_ylabel("accuracy")
    grid[1][0].set_ylabel("images")
    return figure


def class_figure(classes: Sequence[ClassScores], title: str) -> Figure:
    """Precision and recall per class with 95 % intervals, F1, and the number of images with that label."""
    figure = Figure(figsize=(9.2, 1.6 + 0.52 * len(classes)))
    figure.suptitle(title, fontsize=12)
    figure.subplots_adjust(left=0.2, right=0.86, top=1 - 0.75 / figure.get_figheight(), bottom=0.12)
    axes = figure.subplots()
    for row, one in enumerate(classes):
        for interval, shift, colour, marker in (
            (one.recall, -0.16, ORANGE, "s"),
            (one.precision, 0.16, BLUE, "o"),
        ):
            if interval is not None:
                axes.plot([interval.low, interval.high], [row + shift] * 2, color=colour, linewidth=2)
                axes.plot([interval.value], [row + shift], marker=marker, color=colour, markersize=7, clip_on=False)
        axes.text(1.02, row, f"F1 {one.f1:.3f}", va="center", transform=axes.get_yaxis_transform())
    axes.plot([], [], marker="s", color=ORANGE, label="recall")
    axes.plot([], [], marker="o", color=BLUE, label="precision")
    axes.set_yticks(range(len(classes)), [f"{one.name}, n = {one.labelled:,}" for one in classes])
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    as_percent(axes.xaxis)
    plain(axes)
    axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    return figure


def mistakes_figure(faces: NDArray[np.uint8], mistakes: Mistakes, classes: Sequence[str], title: str) -> Figure:
    """A sheet of faces [k, height, width] or [k, height, width, 3] with label, prediction and confidence.

    Raises:
        TrackingError: the number of faces is not that of the mistakes.
    """
    count = len(mistakes.faces)
    if len(faces) != count:
        raise TrackingError(f"{len(faces)} faces for {count} mistakes: expected one each")
    rows = max(1, math.ceil(count / _FACES_A_ROW))
    figure = Figure(figsize=(12, 0.75 + 1.95 * rows))
    figure.suptitle(title, fontsize=12)
    figure.subplots_adjust(left=0.01, right=0.99, top=1 - 1.05 / figure.get_figheight(), bottom=0.01, hspace=0.42)
    cells = figure.subplots(rows, _FACES_A_ROW, squeeze=False).ravel()
    for index, axes in enumerate(cells):
        axes.set_axis_off()
        if index < count:
            axes.imshow(faces[index], cmap="gray", vmin=0, vmax=255)
            label, said = classes[mistakes.labels[index]], classes[mistakes.predictions[index]]
            axes.set_title(f"{label}\npred. {said} {mistakes.confidence[index]:.0%}", fontsize=9)
    return figure


def matrices_figure(
    first: NDArray[np.int64], second: NDArray[np.int64], names: tuple[str, str], classes: Sequence[str]
) -> Figure:
    """Two confusion matrices [classes, classes] in % of the label's images, and second minus first in points."""
    figure = Figure(figsize=(16, 5.6))
    figure.subplots_adjust(left=0.06, right=0.995, top=0.86, bottom=0.17, wspace=0.24)
    left, middle, right = figure.subplots(1, 3)
    shares = row_shares(first), row_shares(second)
    for axes, share, name in zip((left, middle), shares, names, strict=True):
        draw_cells(axes, share, [[f"{100 * cell:.0f}" for cell in row] for row in share], classes)
        axes.set_title(f"{name}, % of the label", fontsize=11)
    difference = 100 * (shares[1] - shares[0])
    reach = max(1.0, float(np.abs(difference).max()))
    texts = [[f"{cell:+.0f}" if round(cell) else "0" for cell in row] for row in difference]
    draw_cells(right, difference, texts, classes, colours="PuOr", limits=(-reach, reach))
    right.set_title("second minus first, points", fontsize=11)
    return figure


def _draw_roc(axes: Axes, curve: RocCurve, color: str, linestyle: str, linewidth: float) -> None:
    if math.isnan(curve.auc):
        axes.plot([], [], color=color, linestyle=linestyle, label=f"{curve.name}: no images of it, or of others")
        return
    label = f"{curve.name}  {curve.auc:.3f}  {curve.grade}"
    x, y = _thinned(curve)
    axes.plot(x, y, color=color, linestyle=linestyle, linewidth=linewidth, label=label)


def _thinned(curve: RocCurve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # A micro curve has as many points as images times classes: too many for a screen or a page.
    points = len(curve.false_positive_rate)
    kept = np.unique(np.linspace(0, points - 1, min(points, 400)).round().astype(int))
    return curve.false_positive_rate[kept], curve.true_positive_rate[kept]


def _draw_reliability(axes: Axes, bins: Reliability, name: str, colour: str) -> None:
    axes.plot([0, 1], [0, 1], color="black", alpha=0.4, linewidth=1, linestyle="--")
    axes.bar(_centres(), np.nan_to_num(bins.accuracy), width=1 / BINS, color=colour, alpha=0.35, edgecolor=colour)
    axes.plot(bins.confidence, bins.accuracy, marker="o", color=colour, linewidth=1.8)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_title(name, fontsize=11)
    plain(axes)


def _centres() -> NDArray[np.float64]:
    return (np.arange(BINS) + 0.5) / BINS
