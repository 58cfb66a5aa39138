"""Pictures of one trial: learning curves and confusion matrix, readable at the size MLflow shows them.

Blue and orange differ for colour-blind readers too (Okabe & Ito 2008), and lines differ by more than colour.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tracking.events import EpochDone
from tracking.files import write_bytes

_BLUE, _ORANGE = "#0072B2", "#D55E00"
_DPI = 100


def draw_curves(path: Path, epochs: Sequence[EpochDone], title: str) -> None:
    """Loss, accuracy and learning rate over the epochs, the best by `val_accuracy` marked; written whole or not.

    Raises:
        TrackingError: the disk refused.
    """
    figure = Figure(figsize=(13, 4.2))
    figure.subplots_adjust(left=0.05, right=0.985, top=0.85, bottom=0.12, wspace=0.22)
    figure.suptitle(title, fontsize=12)
    loss, accuracy, rate = figure.subplots(1, 3)
    _draw_metric(loss, epochs, "loss")
    _draw_metric(accuracy, epochs, "accuracy")
    _draw_learning_rate(rate, epochs)
    scored = [epoch for epoch in epochs if np.isfinite(epoch.metrics.get("val_accuracy", np.nan))]
    if scored:
        best = max(scored, key=lambda epoch: epoch.metrics["val_accuracy"])
        for axes in (loss, accuracy):
            axes.axvline(best.epoch, zorder=1, color="#444444", linewidth=1.0, linestyle=":")
        accuracy.set_title(f"best val {best.metrics['val_accuracy']:.1%} at epoch {best.epoch}", fontsize=11)
    _save(figure, path)


def draw_confusion_matrix(path: Path, matrix: NDArray[np.int64], classes: Sequence[str], title: str) -> None:
    """Counts and row shares side by side; `matrix` is [classes, classes], row = label.

    Raises:
        TrackingError: the disk refused.
    """
    figure = Figure(figsize=(12, 5.8))
    figure.subplots_adjust(left=0.075, right=0.99, top=0.87, bottom=0.15, wspace=0.2)
    figure.suptitle(title, fontsize=13)
    left, right = figure.subplots(1, 2)
    labelled = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, labelled, out=np.zeros(matrix.shape), where=labelled > 0)
    _draw_matrix(left, shares, [[f"{cell:d}" for cell in row] for row in matrix], classes)
    left.set_title("images", fontsize=11)
    _draw_matrix(right, shares, [[f"{100 * cell:.0f}" for cell in row] for row in shares], classes)
    right.set_title("% of the label's images (diagonal = recall)", fontsize=11)
    _save(figure, path)


def _draw_metric(axes: Axes, epochs: Sequence[EpochDone], name: str) -> None:
    numbers = [epoch.epoch for epoch in epochs]
    every = max(1, len(numbers) // 15)
    for split, colour, marker, line in (("train", _BLUE, "o", "--"), ("val", _ORANGE, "s", "-")):
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
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _draw_learning_rate(axes: Axes, epochs: Sequence[EpochDone]) -> None:
    points = [(iteration, rate) for epoch in epochs for iteration, _, rate in epoch.iterations]
    axes.plot([iteration for iteration, _ in points], [rate for _, rate in points], color=_BLUE)
    axes.set_xlabel("iteration")
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_matrix(
    axes: Axes, shares: NDArray[np.float64], texts: Sequence[Sequence[str]], classes: Sequence[str]
) -> None:
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(classes))
    axes.set_xticks(ticks, classes, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    axes.tick_params(length=0)
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            colour = "white" if shares[row, column] > 0.55 else "#222222"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=10)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=_DPI, pil_kwargs={"compress_level": 3})
    write_bytes(path, picture.getvalue())
