"""MLflow on the command line: a sweep's tracking URI, and the verbs `sync` and `ui`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

from fer_common.errors import without_password
from fer_common.flags import Flag
from sweeps.cli.arguments import OfSweeps, SweepName
from sweeps.cli.console import console, warn
from sweeps.errors import InputError
from sweeps.runs import command_for, open_sweep
from sweeps.spec import SweepSpec, recorded_spec
from tracking.errors import TrackingError
from tracking.mlflow_sync.ui import HOST, open_in_browser, page_server
from tracking.mlflow_sync.uri import ignored_environment, recordable, resolve_tracking_uri
from tracking.record.folder_lock import FolderHeldError
from tracking.record.layout import JOURNAL_NAME, SweepFolder


def records_uri(spec: SweepSpec, verb: OfSweeps) -> str:
    """The sweep's tracking URI. Warns if the environment names another one. Raises TrackingError."""
    uri = resolve_tracking_uri(verb.tracking_uri, verb.out, spec.tracking_uri)
    if verb.tracking_uri is None and (note := ignored_environment(uri)):
        warn(note)
    return uri


def asked_for(verb: OfSweeps) -> str | None:
    """--tracking-uri in the form that a new run records. None if it is not given. Raises TrackingError."""
    if verb.tracking_uri is None:
        return None
    return recordable(resolve_tracking_uri(verb.tracking_uri, verb.out), verb.out)


def send(sweep: SweepFolder, spec: SweepSpec, verb: OfSweeps, uri: str | None = None) -> None:
    """Send the records of a sweep that MLflow lacks. On failure warn, with the command that sends them later."""
    from tracking.mlflow_sync.sink import MlflowSink

    try:
        uri = uri or records_uri(spec, verb)
        MlflowSink(sweep.journal, tracking_uri=uri, out=verb.out, on_warning=warn).sync()
    except FolderHeldError as held:
        warn(f"{sweep.root.name}: {held.who} runs the sweep and sends its records to MLflow")
    except TrackingError as error:
        warn(f"{error}; nothing is lost, send the records later: {command_for(verb.out, 'sync', sweep.root.name)}")


class Ui(OfSweeps):
    """Open a sweep in the MLflow UI, served from this machine if its store is a file.

    Example: python -m sweeps ui night
    """

    name: Annotated[str | None, Flag("the sweep's name (default: the latest)", "NAME", positional=True)] = None
    port: Annotated[int, Flag("port of the MLflow UI (default 5000)", "N")] = 5000

    def __call__(self) -> int:
        """Print the address, and open it on a desktop; serve the UI if the store is a file."""
        from tracking.mlflow_sync.experiment import experiment_page

        _, history = open_sweep(self.name or _latest(self.out), self.out)
        sweep, uri = history.started, records_uri(recorded_spec(history), self)
        if uri.startswith("http"):
            _show(experiment_page(uri, sweep))
            return 0
        with page_server(uri, self.out.resolve() / "mlartifacts", self.port) as server, suppress(KeyboardInterrupt):
            _show(experiment_page(f"http://{HOST}:{self.port}", sweep))
            console.print("Ctrl-C ends the server")
            server.wait()
            return 1
        return 0


class Sync(OfSweeps):
    """Send MLflow the records of a sweep that it lacks.

    Example: python -m sweeps sync night
    """

    name: SweepName

    def __call__(self) -> int:
        from tracking.mlflow_sync.sink import MlflowSink

        folder, history = open_sweep(self.name, self.out)
        uri = records_uri(recorded_spec(history), self)
        sink = MlflowSink(folder.journal, tracking_uri=uri, out=self.out, on_warning=warn)
        try:
            deleted = sink.sync()
        except FolderHeldError as held:
            raise TrackingError(
                f"{self.name}: {held.who} runs the sweep and sends its records to MLflow; sync it afterwards"
            ) from None
        but = f" except what was deleted there ({deleted} runs)" if deleted else ""
        console.print(f"{self.name}: MLflow at {without_password(uri)} has all of it{but}")
        return 0


def _latest(out: Path) -> str:
    """The name of the sweep whose journal was written last."""
    journals = list(out.glob(f"*/{JOURNAL_NAME}"))
    if not journals:
        raise InputError(f"--out {out}: no sweep is there; run one first: python -m sweeps.run alexnet_space")
    return max(journals, key=lambda path: path.stat().st_mtime).parent.name


def _show(page: str) -> None:
    opened = open_in_browser(page)
    console.print(f"{'opened in the browser' if opened else 'open in a browser'}:\n  {page}")
