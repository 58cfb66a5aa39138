"""All figures of a whole sweep, for its page and as separate files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from tracking.figures.search_figures import (
    importances_figure,
    objective_figure,
    parallel_figure,
    pareto_figure,
    searched_settings,
    slices_figure,
)
from tracking.figures.sweep_figures import best_curves_figure, cost_figure, timeline_figure
from tracking.metrics.scores import Interval
from tracking.pages.report_rows import Row, reached
from tracking.record.history import SweepHistory

_CURVES = 5


@dataclass(frozen=True)
class Picture:
    """A figure of a sweep; `name` is its file name."""

    name: str
    title: str
    caption: str
    figure: Figure


def sweep_pictures(
    history: SweepHistory, rows: Sequence[Row], parameters: Mapping[int, int], importances: Mapping[str, Interval],
    place: str = "",
) -> list[Picture]:  # fmt: skip
    """The figures of a sweep that has a trial with a finished epoch, without those that would be empty.

    `rows` are its trials, best first; `parameters` maps a trial to its net's number of parameters; `importances` maps a
    setting to the share of the objective's variance that it explains. `place` names sweep, data set, split and n above
    each figure, for figures outside their page.
    """

    def head(title: str) -> str:
        return f"{title}: {place}" if place else ""

    ranked = [row for row in rows if row.rank]
    shown = [row for index, row in enumerate(ranked) if index < _CURVES or row.trial.started.baseline]
    curves = best_curves_figure(
        [row.trial for row in shown], [f"{row.name}, {reached(row)}" for row in shown], head("Best trials")
    )
    pictures = [
        Picture("best_curves", "Best trials", "The best trials, and the baselines dashed.", curves),
        Picture("timeline", "Timeline", "When each trial held a worker; a tick an epoch, the last mark says how it "
                "ended.", timeline_figure(history, head("Timeline"))),
        Picture("cost", "Cost", "Worker minutes per trial.", cost_figure(history, head("Cost"))),
        Picture("optimisation_history", "Optimisation history", "Each trial's best epoch, and the best so far.",
                objective_figure(history, head("Optimisation history"))),
        Picture("pareto_front", "Accuracy and its price", "No trial off the line is better for less; numbers name "
                "trials. A pruned trial's minutes end where it was given up.",
                pareto_figure(history, parameters, head("Accuracy and its price"))),
    ]  # fmt: skip
    if importances:
        caption = (
            "How much of the spread of the finished trials that the sampler drew each setting explains (fANOVA); lines "
            "are 90 % of bootstraps of these trials. Pruned trials do not count."
        )
        drawn = importances_figure(importances, head("Importances"))
        pictures.append(Picture("importances", "Importances", caption, drawn))
    if searched_settings(history) and any(row.trial.started.params for row in ranked):
        pictures += [
            Picture("parallel_coordinates", "Parallel coordinates", "One line per trial, baselines aside; orange where "
                    "it was good.", parallel_figure(history, head("Parallel coordinates"))),
            Picture("slices", "Slices", "Accuracy over each setting that was searched, baselines aside.",
                    slices_figure(history, head("Slices"))),
        ]  # fmt: skip
    return pictures
