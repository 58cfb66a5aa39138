"""All scores of a net on one split, class by class, for the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from tracking.metrics.scores import Interval
from tracking.metrics.summary import METRIC_NAMES, Summary


def score_table(found: Summary, title: str) -> Table:
    """Recall, precision, F1 and AUC with its grade per class; the scores of all classes below."""
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


def _caption(found: Summary) -> str:
    shown = {name: found.full.value(metric) for metric, name in METRIC_NAMES.items() if metric != "accuracy"}
    scores = ", ".join(f"{name} {value:.3f}" for name, value in shown.items() if value is not None)
    return f"{scores}; the temperature, {found.temperature:.2f}, is that of the validation split"


def _share(value: Interval | None) -> str:
    return "" if value is None else f"{value.value:.1%}"
