"""MLflow from the command line: a sweep's tracking URI, sending missing records, and its page (the verb `ui`)."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path

from sweeps.cli.console import console, warn
from sweeps.errors import InputError
from sweeps.runs import open_sweep
from sweeps.spec import SweepSpec, recorded_spec
from tracking.errors import TrackingError
from tracking.mlflow_sync.ui import HOST, open_in_browser, page_server
from tracking.mlflow_sync.uri import ignored_environment, recordable, resolve_tracking_uri
from tracking.record.folder_lock import FolderHeldError
from tracking.record.layout import JOURNAL_NAME, SweepFolder


def records_uri(spec: SweepSpec, given: argparse.Namespace) -> str:
    """The sweep's tracking URI; warns where the environment names another one. Raises TrackingError."""
    uri = resolve_tracking_uri(given.tracking_uri, given.out, spec.tracking_uri)
    if given.tracking_uri is None and (note := ignored_environment(uri)):
        warn(note)
    return uri


def asked_for(given: argparse.Namespace) -> str | None:
    """The form of --tracking-uri that a new run records; None where it is not given. Raises TrackingError."""
    if given.tracking_uri is None:
        return None
    return recordable(resolve_tracking_uri(given.tracking_uri, given.out), given.out)


def send(sweep: SweepFolder, spec: SweepSpec, given: argparse.Namespace, uri: str | None = None) -> None:
    """Send what MLflow lacks of a sweep; if that fails, warn and name the command to do so later."""
    from tracking.mlflow_sync.sink import MlflowSink

    try:
        uri = uri or records_uri(spec, given)
        MlflowSink(sweep.journal, tracking_uri=uri, out=given.out, on_warning=warn).sync()
    except FolderHeldError as held:
        warn(f"{sweep.root.name}: {held.who} works on the sweep and sends its records to MLflow itself")
    except TrackingError as error:
        warn(f"{error}; the record is kept: python -m sweeps sync {sweep.root.name}")


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
