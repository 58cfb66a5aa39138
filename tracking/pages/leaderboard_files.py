"""A sweep's trials, best first, as files for other programs: CSV, and JSON with metadata."""

import csv
import io
import json
from collections.abc import Mapping, Sequence

from tracking.flatten import flatten
from tracking.metrics.winner import winner_of
from tracking.pages.report import SweepReport
from tracking.pages.report_rows import Row, ranked_rows


def leaderboard_records(report: SweepReport) -> list[dict[str, object]]:
    """One record per trial, best first. Shares are 0..1, `minutes` are worker minutes, settings have dotted names."""
    return [_record(row, report.parameters) for row in ranked_rows(report.history, report.data.n)]


def leaderboard_csv(records: Sequence[Mapping[str, object]]) -> bytes:
    """The records as CSV, with a column for each name that any of them has. Missing values are empty."""
    names = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().encode()


def leaderboard_json(records: Sequence[Mapping[str, object]], report: SweepReport) -> bytes:
    """The records as JSON, with the data on which they were measured."""
    data, winner = report.data, winner_of(report.folder, report.history)
    content = {
        "sweep": report.history.started.name,
        "space": report.history.started.space,
        "dataset": data.dataset,
        "fingerprint": data.fingerprint,
        "split": data.split,
        "n": data.n,
        "synthetic": data.synthetic,
        "winner": winner.trial if winner else None,
        "prefer": winner.prefer if winner else None,
        "within_noise_of_best": winner.ties if winner else (),
        "trials": records,
    }
    return json.dumps(content, indent=1).encode() + b"\n"


def _record(row: Row, parameters: Mapping[int, int]) -> dict[str, object]:
    trial = row.trial
    record: dict[str, object] = {
        "rank": row.rank or None,
        "trial": trial.number,
        "baseline": trial.started.baseline,
        "state": row.state,
        "reason": row.reason or None,
        "val_accuracy": row.accuracy,
        "val_accuracy_low": row.low,
        "val_accuracy_high": row.high,
        "best_epoch": row.best_epoch,
        "epochs": row.epochs,
        "minutes": round(row.minutes, 3),
        "parameters": parameters.get(trial.number),
    }
    if trial.end:
        # One score per class would make hundreds of columns.
        record |= {name: value for name, value in trial.end.best.items() if "/" not in name and name not in record}
    return record | flatten(trial.started.settings)
