"""The verbs for runs that are there: test, ensemble, compare, report."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import UTC, datetime

from rich.table import Table
from rich.text import Text

from sweeps.console import console, warn
from sweeps.errors import InputError
from sweeps.messages import val_title
from sweeps.runs import Run, best_runs, find_run, open_sweep
from tracking.default_store import resolve_tracking_uri
from tracking.errors import TrackingError
from tracking.files import write_bytes
from tracking.layout import SweepFolder


def test(given: argparse.Namespace) -> int:
    """Read the test split for a finalist."""
    from sweeps.finalist import test_run

    run = find_run(given.run, given.out, given.tracking_uri)
    outcome = test_run(run, again=given.again)
    look = "" if outcome.looks == 1 else f" (LOOK {outcome.looks}: no longer a fair test)"
    for what, n, share in (
        ("", outcome.n, outcome.accuracy),
        (", faces of no other split", outcome.leak_free_n, outcome.leak_free),
    ):
        interval = f"95 % interval {share.low:.2%} to {share.high:.2%}"
        console.print(f"{run.name} on {outcome.title}{what}, n = {n:,}: {share.value:.2%}, {interval}{look}")
    _send(run.sweep, given)
    return 0


def ensemble(given: argparse.Namespace) -> int:
    """Let several runs answer as one."""
    from sweeps.ensemble import make_ensemble

    if bool(given.runs) == bool(given.sweep):
        raise InputError("name the runs, or --sweep NAME for its best trials")
    runs = best_runs(*open_sweep(given.sweep, given.out), given.top) if given.sweep else _runs(given)
    name = given.name or f"ensemble-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    made = make_ensemble(runs, given.method, name, given.out)
    for member in runs:
        weight = made.members.get(member.name, 0.0)
        console.print(f"{member.name:24} {member.objective:.2%}   weight {weight:.3f}")
    split, dataset = val_title(made.spec.dataset), made.spec.dataset
    console.print(f"{made.name}: {made.objective:.2%} on {dataset}, {split}, where it was chosen")
    _send(made.sweep, given)
    return 0


def compare(given: argparse.Namespace) -> int:
    """Compare runs face by face, on the terminal and as a page."""
    from sweeps.judging import compare_runs, val_faces
    from tracking.compare_page import comparison_page
    from tracking.pages import sentence

    runs = _runs(given)
    found = compare_runs(runs, numbers_only=given.numbers_only)
    if given.html:
        write_bytes(given.html, comparison_page(found, val_faces(runs[0].spec)).encode())
    if given.json:
        console.print(found.to_json())
        return 0
    table = Table(title=Text(f"{found.dataset}, {found.split}, n = {found.n}"), header_style="bold")
    table.add_column("setting")
    for run in runs:
        table.add_column(run.name, justify="right")
    for name, values in found.settings.items():
        table.add_row(name, *("" if value is None else value for value in values))
    console.print(table)
    for pair in found.pairs:
        console.print(sentence(pair))
    if given.html:
        console.print(f"the whole comparison: {given.html}")
    return 0


def report(given: argparse.Namespace) -> int:
    """Write a sweep's report as one page."""
    from sweeps.judging import sweep_page

    folder, history = open_sweep(given.name, given.out)
    path = given.html or folder.root / "report.html"
    write_bytes(path, sweep_page(folder, history).encode())
    console.print(f"{given.name}: {path} ({path.stat().st_size / 2**20:.1f} MiB)")
    return 0


def _runs(given: argparse.Namespace) -> list[Run]:
    return [find_run(reference, given.out, given.tracking_uri) for reference in given.runs]


def _send(folder: SweepFolder, given: argparse.Namespace) -> None:
    """Bring MLflow up to date; where it does not answer, say how to do so later."""
    from tracking.mlflow_sink import MlflowSink

    uri = resolve_tracking_uri(given.tracking_uri, given.out)
    try:
        MlflowSink(folder.journal, tracking_uri=uri, out=given.out, on_warning=warn).sync()
    except TrackingError as error:
        warn(f"{error}; the record is kept: python -m sweeps sync {folder.root.name}")


VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "test": test,
    "ensemble": ensemble,
    "compare": compare,
    "report": report,
}
