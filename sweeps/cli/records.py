"""MLflow from the command line: a sweep's tracking URI, and the verbs `sync` and `ui`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

from fer_common.flags import Flag
from sweeps.cli.arguments import OfSweeps, SweepName
from sweeps.cli.console import console, warn
from sweeps.errors import InputError
from sweeps.runs import command_for, open_sweep
from sweeps.spec import SweepSpec, recorded_spec
from tracking.errors import TrackingError
from tracking.mlflow_sync.ui import HOST, open_in_browser, page_server
from tracking.mlflow_sync.uri import ignored_environment, recordable, resolve_tracking_uri, without_password
from tracking.record.folder_lock import FolderHeldError
from tracking.record.layout import JOURNAL_NAME, SweepFolder


def records_uri(spec: SweepSpec, verb: OfSweeps) -> str:
    """The sweep's tracking URI; warns where the environment names another one. Raises TrackingError."""
    uri = resolve_tracking_uri(verb.tracking_uri, verb.out, spec.tracking_uri)
    if verb.tracking_uri is None and (note := ignored_environment(uri)):
        warn(note)
    return uri


def asked_for(verb: OfSweeps) -> str | None:
    """The form of --tracking-uri that a new run records; None where it is not verb. Raises TrackingError."""
    if verb.tracking_uri is None:
        return None
    return recordable(resolve_tracking_uri(verb.tracking_uri, verb.out), verb.out)


def send(sweep: SweepFolder, spec: SweepSpec, verb: OfSweeps, uri: str | None = None) -> None:
    """Send what MLflow lacks of a sweep; if that fails, warn and name the command to do so later."""
    from tracking.mlflow_sync.sink import MlflowSink

    try:
        uri = uri or records_uri(spec, verb)
        MlflowSink(sweep.journal, tracking_uri=uri, out=verb.out, on_warning=warn).sync()
    except FolderHeldError as held:
        warn(f"{sweep.root.name}: {held.who} works on the sweep and sends its records to MLflow itself")
    except TrackingError as error:
        warn(f"{error}; the record is kept: {command_for(verb.out, 'sync', sweep.root.name)}")


class Ui(OfSweeps):
    """Open MLflow's page of a sweep's experiment, served from here if need be.

    Example: python -m sweeps ui night
    """

    name: Annotated[str | None, Flag("the sweep's name (default: the latest)", "NAME", positional=True)] = None
    port: Annotated[int, Flag("where the page is served", "N")] = 5000

    def __call__(self) -> int:
        """Print, and open where there is a desktop, the page; serve it if the store is a file."""
        from tracking.mlflow_sync.upkeep import experiment_page

        _, history = open_sweep(self.name or _latest(self.out), self.out)
        space, uri = history.started.space, records_uri(recorded_spec(history), self)
        if uri.startswith("http"):
            _show(experiment_page(uri, space))
            return 0
        with page_server(uri, self.out.resolve() / "mlartifacts", self.port) as server, suppress(KeyboardInterrupt):
            _show(experiment_page(f"http://{HOST}:{self.port}", space))
            console.print("Ctrl-C ends the server")
            server.wait()
            return 1
        return 0


class Sync(OfSweeps):
    """Send to MLflow what it has not got yet.

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
                f"{self.name}: {held.who} works on the sweep and sends its records to MLflow itself; sync it afterwards"
            ) from None
        but = f" but what was deleted there ({deleted} runs)" if deleted else ""
        console.print(f"{self.name}: MLflow at {without_password(uri)} has all of it{but}")
        return 0


def _latest(out: Path) -> str:
    """The name of the sweep whose journal was written last."""
    journals = list(out.glob(f"*/{JOURNAL_NAME}"))
    if not journals:
        raise InputError(f"--out {out}: there is no sweep; run one first: python -m sweeps.run alexnet_space")
    return max(journals, key=lambda path: path.stat().st_mtime).parent.name


def _show(page: str) -> None:
    opened = open_in_browser(page)
    console.print(f"{'opened in the browser' if opened else 'open in a browser'}:\n  {page}")
