"""The verb `ui`: MLflow's page at the experiment of a sweep."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path

from sweeps.after.sending import records_uri
from sweeps.cli.console import console
from sweeps.errors import InputError
from sweeps.runs import open_sweep
from sweeps.spec import recorded_spec
from tracking.mlflow_sync.ui import HOST, open_in_browser, page_server
from tracking.record.layout import JOURNAL_NAME


def ui(given: argparse.Namespace) -> int:
    """Print, and open where there is a desktop, the page of a sweep's experiment; serve it if its store is a file."""
    from tracking.mlflow_sync.upkeep import experiment_page

    _, history = open_sweep(given.name or _latest(given), given.out)
    space, uri = history.started.space, records_uri(recorded_spec(history), given)
    if uri.startswith("http"):
        _show(experiment_page(uri, space))
        return 0
    with page_server(uri, given.out.resolve() / "mlartifacts", given.port) as server, suppress(KeyboardInterrupt):
        _show(experiment_page(f"http://{HOST}:{given.port}", space))
        console.print("Ctrl-C ends the server")
        server.wait()
        return 1
    return 0


def _latest(given: argparse.Namespace) -> str:
    """The name of the sweep whose journal was written last."""
    out: Path = given.out
    journals = list(out.glob(f"*/{JOURNAL_NAME}"))
    if not journals:
        raise InputError(f"--out {out}: there is no sweep; run one first: python -m sweeps.run alexnet_space")
    return max(journals, key=lambda path: path.stat().st_mtime).parent.name


def _show(page: str) -> None:
    opened = open_in_browser(page)
    console.print(f"{'opened in the browser' if opened else 'open in a browser'}:\n  {page}")
