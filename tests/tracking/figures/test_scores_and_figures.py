from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from sklearn import metrics as sk

from tests.tracking.small_sweep import Sweep
from tracking.errors import TrackingError
from tracking.figures.search_figures import objective_figure, pareto_figure
from tracking.figures.sweep_figures import best_curves_figure
from tracking.figures.trial_figures import curves_figure, draw_confusion_matrix, draw_curves
from tracking.metrics.scores import (
    balanced_accuracy,
    confusion_matrix,
    difference_interval,
    macro_f1,
    paired_difference_interval,
    wilson_interval,
)
from tracking.record.events import EpochDone
from tracking.record.history import SweepHistory

RNG = np.random.default_rng(3)
LABELS = RNG.integers(0, 7, 500).astype(np.uint8)
PREDICTIONS = np.where(RNG.random(500) < 0.6, LABELS, RNG.integers(0, 7, 500)).astype(np.uint8)


def test_scores_are_scikit_learn_s() -> None:
    matrix = confusion_matrix(LABELS, PREDICTIONS, 7)
    assert (matrix == sk.confusion_matrix(LABELS, PREDICTIONS, labels=range(7))).all()
    assert balanced_accuracy(matrix) == pytest.approx(sk.balanced_accuracy_score(LABELS, PREDICTIONS))
    assert macro_f1(LABELS, PREDICTIONS, 7) == pytest.approx(sk.f1_score(LABELS, PREDICTIONS, average="macro"))


def test_many_classes_do_not_wrap_round_in_small_integers() -> None:
    labels = np.array([99, 50], np.uint8)
    assert confusion_matrix(labels, labels, 100)[99, 99] == 1


def test_a_class_out_of_range_is_refused() -> None:
    with pytest.raises(TrackingError, match=r"prediction 7 outside 0\.\.6"):
        confusion_matrix(np.array([1]), np.array([7]), 7)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval(right: int, n: int, low: float, high: float) -> None:
    interval = wilson_interval(right, n)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10
    [((56, 70, 48, 80), 0.0524, 0.3339), ((9, 10, 3, 10), 0.1705, 0.8090), ((10, 10, 0, 20), 0.6791, 1.0)],
)
def test_difference_interval(counts: tuple[int, int, int, int], low: float, high: float) -> None:
    interval = difference_interval(*counts)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(
    ("both", "only_a", "only_b", "neither", "low", "high"),
    # The first is Newcombe 1998, Statistics in Medicine 17:2635, table III, method 10. The second by hand: Wilson
    # (0.4038, 0.5962) and (0.3561, 0.5476), phi = (40*45 - 10*5 - 50) / sqrt(50*50*45*55) = 0.6834.
    [(36, 12, 2, 0, 0.0569, 0.3404), (40, 10, 5, 45, -0.0271, 0.1257)],
)
def test_paired_difference_interval(both: int, only_a: int, only_b: int, neither: int, low: float, high: float) -> None:
    labels = np.zeros(both + only_a + only_b + neither, int)
    a = np.repeat([0, 0, 1, 1], [both, only_a, only_b, neither])
    b = np.repeat([0, 1, 0, 1], [both, only_a, only_b, neither])
    interval = paired_difference_interval(labels, a, b)
    assert interval.value == pytest.approx((only_a - only_b) / labels.size)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-4)


def test_the_same_predictions_differ_by_nothing() -> None:
    interval = paired_difference_interval(LABELS, PREDICTIONS, PREDICTIONS)
    assert interval.value == 0
    assert -0.02 < interval.low <= 0 <= interval.high < 0.02


def test_figures_are_pictures_and_leave_nothing_beside(tmp_path: Path) -> None:
    epochs = [
        EpochDone(trial=0, epoch=number, metrics={"train_loss": 1 / number, "val_accuracy": value})
        for number, value in ((1, 0.3), (2, float("nan")), (3, 0.5))
    ]
    draw_curves(tmp_path / "curves.png", epochs, "SYNTHETIC FACES, trial 0000", best=3)
    draw_curves(tmp_path / "none.png", [], "no epoch yet")
    draw_confusion_matrix(tmp_path / "matrix.png", np.diag([3, 0, 5]), ("a", "b", "c"), "val, n = 8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "matrix.png", "none.png"]
    picture = matplotlib.image.imread(tmp_path / "matrix.png")
    assert picture.shape[1] > picture.shape[0] > 400
    assert picture[..., :3].std() > 0.05


def test_a_figure_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"absent/curves\.png"):
        draw_curves(tmp_path / "absent" / "curves.png", [], "t")


@pytest.mark.parametrize("low", [0.15, 0.996])
def test_ticks_of_a_narrow_axis_differ_and_leave_its_title_in_the_picture(sweep: Sweep, low: float) -> None:
    sweep.start()
    for number in range(3):
        sweep.trial(number)
        for epoch in (1, 2, 3):
            metrics = {"train_loss": 1.0, "val_accuracy": low + 0.001 * (number + epoch)}
            sweep.write(EpochDone(time_ms=sweep.tick(), trial=number, epoch=epoch, metrics=metrics))
        sweep.end(number)
    history = SweepHistory.load(sweep.folder.journal)
    trials = list(history.trials.values())
    for figure in (
        objective_figure(history, "t"),
        pareto_figure(history, {0: 10, 1: 20, 2: 30}, "t"),
        best_curves_figure(trials, ["a", "b", "c"], "t"),
        curves_figure(trials[0].epochs, "t"),
    ):
        renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
        figure.draw(renderer)
        percents = 0
        for axes in figure.axes:
            ticks = [text.get_text() for text in axes.get_yticklabels()]
            percents += any("%" in text for text in ticks)
            assert len(set(ticks)) == len(ticks), ticks
            assert axes.yaxis.label.get_window_extent(renderer).x0 >= 0, "the title is cut off"
        assert percents
