"""A comparison as a page: numbers, matrices, and the faces on which the nets disagree."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tracking.figures.parts import BLUE, COLOURS, LINES, ORANGE, as_percent, plain, svg
from tracking.figures.score_figures import matrices_figure
from tracking.metrics.compare import Comparison, Pair
from tracking.metrics.compare_sweeps import SweepSummary
from tracking.metrics.summary import data_name
from tracking.pages.page import face_uris, render, sentence, where
from tracking.record.objectives import AXES

_SHOWN = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}


def comparison_page(comparison: Comparison, faces: NDArray[np.uint8] | None = None) -> str:
    """One self-contained HTML page.

    `faces` are all faces of the split, [n, height, width] or [n, height, width, 3], and may be memory-mapped: only
    those for which predictions differ are read. A comparison without predictions needs none.
    """
    place = where(comparison.dataset, comparison.split, comparison.n, comparison.synthetic)
    shown = [one.face for one in comparison.disagreements]
    return render(
        "comparison.html",
        c=comparison,
        data=data_name(comparison.dataset, comparison.synthetic),
        where=place,
        sentences=[sentence(pair) for pair in comparison.pairs],
        figures=_figures(comparison),
        faces=face_uris(np.asarray(faces[shown])) if faces is not None else [""] * len(shown),
    )


def differences_figure(pairs: tuple[Pair, ...]) -> Figure:
    """Differences in points with their 95 % intervals, one row per pair and metric."""
    rows = [(pair, metric) for pair in pairs for metric in _SHOWN]
    figure = Figure(figsize=(10.5, 1.2 + 0.36 * len(rows)))
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.42, right=0.97, top=1 - 0.3 / height, bottom=0.6 / height)
    axes = figure.subplots()
    axes.axvline(0, color="black", alpha=0.6, linewidth=1)
    for row, (pair, metric) in enumerate(rows):
        gap = pair.differences[metric]
        beyond = gap.low > 0 or gap.high < 0
        colour = BLUE if beyond else ORANGE
        axes.plot([100 * gap.low, 100 * gap.high], [row, row], color=colour, linewidth=2.5)
        axes.plot(
            [100 * gap.value], [row], marker="o", color=colour, markersize=7, fillstyle="full" if beyond else "none"
        )
    names = [f"{pair.second} − {pair.first}: {_SHOWN[metric]}" for pair, metric in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("points (hollow: the interval holds 0)")
    plain(axes)
    return figure


def comparison_figures(comparison: Comparison) -> list[Figure]:
    """Confusion matrices of each pair of nets, in the pairs' order, side by side with their difference."""
    matrices = [np.array(one.full.confusion, dtype=np.int64) for one in comparison.summaries]
    return [
        matrices_figure(matrices[a], matrices[b], (comparison.names[a], comparison.names[b]), comparison.classes)
        for a, b in combinations(range(len(matrices)), 2)
    ]


def progress_figure(sweeps: Sequence[SweepSummary]) -> Figure:
    """The best `val_accuracy` so far of each sweep, over the trials started and over minutes of running trials."""
    figure = Figure(figsize=(10.5, 4.0))
    figure.subplots_adjust(left=0.07, right=0.985, top=0.86, bottom=0.14, wspace=0.1)
    left, right = figure.subplots(1, 2, sharey=True)
    for index, one in enumerate(sweeps):
        best = [gain.accuracy for gain in one.gains]
        style = {"color": COLOURS[index % len(COLOURS)], "linestyle": LINES[index % len(LINES)]}
        for axes, at, end in (
            (left, [float(gain.trials) for gain in one.gains], float(one.trials)),
            (right, [gain.minutes for gain in one.gains], one.minutes),
        ):
            axes.step([*at, end], [*best, one.best], where="post", linewidth=2, label=one.name, **style)
    left.set_xlabel("trials started")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_xlabel("minutes at work")
    left.set_ylabel("best val accuracy so far")
    as_percent(left.yaxis)
    for axes in (left, right):
        plain(axes)
    left.legend(frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(-0.02, 1.0))
    return figure


def fronts_figures(sweeps: Sequence[SweepSummary]) -> Iterator[Figure]:
    """The fronts of the sweeps that have a cost in common: accuracy against that cost."""
    for name in dict.fromkeys(name for one in sweeps for name in one.objectives[1:]):
        figure = Figure(figsize=(10.5, 4.0))
        figure.subplots_adjust(left=0.07, right=0.985, top=0.86, bottom=0.14)
        axes = figure.subplots()
        for index, one in enumerate(sweeps):
            if not one.front or name not in one.objectives:
                continue
            place = one.objectives.index(name)
            points = sorted((values[place], values[0]) for values in one.front)
            x, y = zip(*points, strict=True)
            colour, line = COLOURS[index % len(COLOURS)], LINES[index % len(LINES)]
            if len(one.objectives) == 2:
                axes.step(x, y, where="post", marker="o", linewidth=2, color=colour, linestyle=line, label=one.name)
            else:  # with more objectives the front is not a line in two of them
                axes.plot(x, y, "o", color=colour, label=one.name)
        axes.set_xlabel(AXES[name])
        axes.set_ylabel("val accuracy")
        as_percent(axes.yaxis)
        plain(axes)
        axes.legend(frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(-0.02, 1.0))
        yield figure


def _figures(comparison: Comparison) -> dict[str, object]:
    of_sweeps: dict[str, object] = {}
    if comparison.sweeps:
        of_sweeps["progress"] = Markup(svg(progress_figure(comparison.sweeps)))
        of_sweeps["fronts"] = [Markup(svg(figure)) for figure in fronts_figures(comparison.sweeps)]
    if not comparison.pairs:
        return of_sweeps
    return {
        **of_sweeps,
        "differences": Markup(svg(differences_figure(comparison.pairs))),
        "matrices": [Markup(svg(figure)) for figure in comparison_figures(comparison)],
    }
