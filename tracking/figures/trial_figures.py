"""Figures of one trial: learning curves and confusion matrix, readable at the size at which MLflow shows them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tracking.figures.parts import BLUE, GREEN, GREY, ORANGE, SKY, as_percent, draw_cells, plain, save_png
from tracking.record.best_epoch import EpochScores


class EpochRow(EpochScores, Protocol):
    """The values of an epoch for a trial's curves."""

    @property
    def iterations(self) -> Sequence[tuple[int, float, float]]:
        """(iteration, train_loss, learning_rate) within the epoch."""
        ...


def draw_curves(path: Path, epochs: Sequence[EpochRow], title: str, best: int | None = None) -> None:
    """Write `curves_figure`; atomically.

    Raises:
        TrackingError: a disk error.
    """
    save_png(curves_figure(epochs, title, best), path)


def draw_confusion_matrix(path: Path, matrix: NDArray[np.int64], classes: Sequence[str], title: str) -> None:
    """Write `confusion_figure`; atomically.

    Raises:
        TrackingError: a disk error.
    """
    save_png(confusion_figure(matrix, classes, title), path)


def curves_figure(epochs: Sequence[EpochRow], title: str, best: int | None = None) -> Figure:
    """Loss, accuracy and learning rate over the epochs, with a mark at the epoch `best`."""
    figure = Figure(figsize=(13, 4.2))
    figure.subplots_adjust(left=0.05, right=0.985, top=0.85, bottom=0.12, wspace=0.24)
    figure.suptitle(title, fontsize=12)
    loss, accuracy, rate = figure.subplots(1, 3)
    _draw_metric(loss, epochs, "loss")
    _draw_metric(accuracy, epochs, "accuracy")
    _draw_learning_rate(rate, epochs)
    for marked in (epoch for epoch in epochs if epoch.epoch == best):
        for axes in (loss, accuracy):
            axes.axvline(best, zorder=1, color="black", alpha=0.7, linewidth=1.0, linestyle=":")
        accuracy.set_title(f"best val {marked.metrics['val_accuracy']:.1%} at epoch {best}", fontsize=11)
    return figure


def iterations_figure(epochs: Sequence[EpochRow], title: str) -> Figure:
    """Loss, accuracy and learning rate against iterations in one figure, as Caffe's tools plot a training.

    Epochs without iterations, such as those of an ensemble, are left out.
    """
    trained = [epoch for epoch in epochs if epoch.iterations]
    figure = Figure(figsize=(11, 5.2))
    figure.subplots_adjust(left=0.07, right=0.83, top=0.9, bottom=0.2)
    figure.suptitle(title, fontsize=12)
    losses = figure.subplots()
    accuracies, rates = losses.twinx(), losses.twinx()
    rates.spines["right"].set_position(("axes", 1.11))
    ends = [epoch.iterations[-1][0] for epoch in trained]
    points = [point for epoch in trained for point in epoch.iterations]
    at = [iteration for iteration, _, _ in points]
    every = max(1, len(ends) // 12)
    lines = [
        *losses.plot(at, [loss for _, loss, _ in points], color=BLUE, linewidth=0.9, label="train loss"),
        *losses.plot(ends, _values(trained, "val_loss"), color=ORANGE, marker="s", markevery=every, markersize=4,
                     label="val loss"),
        *accuracies.plot(ends, _values(trained, "train_accuracy"), color=SKY, linestyle="--", marker="o",
                         markevery=every, markersize=4, label="train accuracy"),
        *accuracies.plot(ends, _values(trained, "val_accuracy"), color=GREEN, linewidth=2, marker="^",
                         markevery=every, markersize=5, label="val accuracy"),
        *rates.plot(at, [rate for _, _, rate in points], color=GREY, linestyle=":", label="learning rate"),
    ]  # fmt: skip
    for axes, name in ((losses, "loss"), (accuracies, "accuracy"), (rates, "learning rate")):
        axes.set_ylabel(name)
        axes.set_ylim(bottom=0)
        axes.spines["top"].set_visible(False)
    losses.set_xlabel("iteration")
    losses.grid(alpha=0.25)
    as_percent(accuracies.yaxis)
    losses.legend(handles=lines, frameon=False, ncols=5, loc="upper center", bbox_to_anchor=(0.53, -0.13))
    return figure


def _values(epochs: Sequence[EpochRow], metric: str) -> list[float]:
    return [epoch.metrics.get(metric, np.nan) for epoch in epochs]


def confusion_figure(matrix: NDArray[np.int64], classes: Sequence[str], title: str) -> Figure:
    """Counts and row shares side by side; `matrix` is [classes, classes], row = label, column = prediction."""
    figure = Figure(figsize=(12, 5.8))
    figure.subplots_adjust(left=0.075, right=0.99, top=0.87, bottom=0.15, wspace=0.2)
    figure.suptitle(title, fontsize=13)
    left, right = figure.subplots(1, 2)
    shares = row_shares(matrix)
    draw_cells(left, shares, [[f"{cell:d}" for cell in row] for row in matrix], classes)
    left.set_title("images", fontsize=11)
    draw_cells(right, shares, [[f"{100 * cell:.0f}" for cell in row] for row in shares], classes)
    right.set_title("% of the label's images (diagonal = recall)", fontsize=11)
    return figure


def row_shares(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each row of a confusion matrix divided by its sum; zeros if a label has no images."""
    labelled = matrix.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = np.divide(matrix, labelled, out=np.zeros(matrix.shape), where=labelled > 0)
    return shares


def _draw_metric(axes: Axes, epochs: Sequence[EpochRow], name: str) -> None:
    numbers = [epoch.epoch for epoch in epochs]
    every = max(1, len(numbers) // 15)
    for split, colour, marker, line in (("train", BLUE, "o", "--"), ("val", ORANGE, "s", "-")):
        values = [epoch.metrics.get(f"{split}_{name}", np.nan) for epoch in epochs]
        axes.plot(
            numbers,
            values,
            color=colour,
            marker=marker,
            linestyle=line,
            label=split,
            markersize=4,
            markevery=every,
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel(name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if name == "accuracy":
        as_percent(axes.yaxis)
    plain(axes)
    axes.legend(frameon=False)


def _draw_learning_rate(axes: Axes, epochs: Sequence[EpochRow]) -> None:
    points = [(iteration, rate) for epoch in epochs for iteration, _, rate in epoch.iterations]
    axes.plot([iteration for iteration, _ in points], [rate for _, rate in points], color=BLUE)
    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))  # more labels of five digits would overlap
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)
    plain(axes)
