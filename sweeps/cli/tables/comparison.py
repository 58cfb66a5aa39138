"""Prints a comparison and a net's scores, and logs the comparison's page to its runs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from sweeps.runs import Run
from tracking.metrics.compare import Comparison
from tracking.metrics.compare_sweeps import SweepSummary
from tracking.metrics.scores import Interval, wilson_interval
from tracking.metrics.summary import METRIC_NAMES, ScoreSummary
from tracking.mlflow_sync.upkeep import find_mlflow_run, log_file, opened
from tracking.pages.page import sentence, short_setting, where
from tracking.record.files import write_bytes

_FOLDER = "compare"
_LONGEST_NAME = 120


def tables(found: Comparison) -> Iterator[Table | str]:
    """The printed parts of a comparison, in order."""
    place = where(found.dataset, found.split, found.n, found.synthetic)
    for sweep, run in found.stands_for.items():
        yield f"{sweep} is a sweep: its best trial, {run}, is compared"
    yield from found.notes
    settings = Table(title=Text(f"settings that differ; {place}"), header_style="bold")
    settings.add_column("setting")
    for name in found.names:
        settings.add_column(name, justify="right")
    for setting, values in found.settings.items():
        settings.add_row(setting, *("–" if value is None else short_setting(value) for value in values))
    yield settings
    if found.sweeps:
        yield _whole(found.sweeps, place)
    yield from (sentence(pair) for pair in found.pairs)


def accuracy_table(right: Mapping[str, NDArray[np.bool_]], place: str) -> Table:
    """Accuracies with intervals by what answered, from its right answers."""
    table = Table(title=Text(place), header_style="bold")
    table.add_column("")
    table.add_column("accuracy", justify="right")
    table.add_column("95 % interval")
    for name, answers in right.items():
        share = wilson_interval(int(answers.sum()), len(answers))
        table.add_row(name, f"{share.value:.2%}", f"{share.low:.1%} to {share.high:.1%}")
    return table


def _whole(sweeps: Sequence[SweepSummary], place: str) -> Table:
    table = Table(title=Text(f"whole sweeps; {place}"), header_style="bold")
    table.add_column("")
    for one in sweeps:
        table.add_column(one.name, justify="right")
    states = [", ".join(f"{count} {state}" for state, count in one.states.items()) for one in sweeps]
    for what, values in (
        ("best trial", [f"{one.best_trial}" for one in sweeps]),
        ("best val_accuracy", [f"{one.best:.2%}" for one in sweeps]),
        ("median val_accuracy", [f"{one.median:.2%}" for one in sweeps]),
        ("trials", [f"{one.trials}" for one in sweeps]),
        ("", states),
        ("epochs", [f"{one.epochs}" for one in sweeps]),
        ("worker minutes", [f"{one.worker_minutes:.1f}" for one in sweeps]),
        ("minutes at work", [f"{one.minutes:.1f}" for one in sweeps]),
        ("minutes to its best", [f"{one.best_minutes:.1f}" for one in sweeps]),
        *_fronts(sweeps),
    ):
        table.add_row(what, *values)
    return table


def _fronts(sweeps: Sequence[SweepSummary]) -> Iterator[tuple[str, list[str]]]:
    """The rows of the sweeps' Pareto fronts; none where each has one objective."""
    if not any(one.front for one in sweeps):
        return
    yield "objectives", [", ".join(one.objectives) for one in sweeps]
    yield "hypervolume", ["" if one.hypervolume is None else f"{one.hypervolume:.4f}" for one in sweeps]
    yield "Pareto front", ["\n".join(one.points) for one in sweeps]


def log_page(page: str, runs: Sequence[Run], whole: Sequence[bool], tracking_uris: Sequence[str]) -> str:
    """Log a page to each run, or to the sweep's own run if a sweep was named. Returns one line that says where.

    `whole` says of each run whether its sweep was named, and `tracking_uris` has its tracking URI.

    Raises:
        TrackingError: MLflow's store does not exist, does not answer, or lacks a run.
    """
    names = [run.sweep.root.name if is_whole else run.name for run, is_whole in zip(runs, whole, strict=True)]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / _file_name(names)
        write_bytes(path, page.encode())
        for uri in dict.fromkeys(tracking_uris):
            with opened(uri) as client:
                found = [
                    find_mlflow_run(client, run.history.started, None if is_whole else run.trial.number)
                    for run, is_whole, its_uri in zip(runs, whole, tracking_uris, strict=True)
                    if its_uri == uri
                ]
                for run_id in found:
                    log_file(client, run_id, path, _FOLDER)
    return f"also in MLflow: artifact {_FOLDER}/{path.name} of {', '.join(names)}"


def _file_name(names: Sequence[str]) -> str:
    name = "-against-".join(name.replace("/", "-") for name in names)
    return (name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}-and-more") + ".html"


def score_table(found: ScoreSummary, title: str) -> Table:
    """Recall, precision, F1, AUC and its grade per class; the scores over all classes are in the caption."""
    table = Table(title=Text(title), caption=Text(_caption(found)), header_style="bold")
    for heading in ("class", "faces", "recall", "precision", "F1", "AUC", "grade"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for one in found.full.classes:
        auc = "" if one.auc is None else f"{one.auc:.3f}"
        table.add_row(
            Text(one.name), f"{one.labelled:,}", _share(one.recall), _share(one.precision), f"{one.f1:.3f}", auc,
            one.grade,
        )  # fmt: skip
    return table


def _caption(found: ScoreSummary) -> str:
    shown = {name: found.full.value(metric) for metric, name in METRIC_NAMES.items() if metric != "accuracy"}
    scores = ", ".join(f"{name} {value:.3f}" for name, value in shown.items() if value is not None)
    return f"{scores}; temperature {found.temperature:.2f}, fitted on the validation split"


def _share(value: Interval | None) -> str:
    return "" if value is None else f"{value.value:.1%}"
