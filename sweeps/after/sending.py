"""MLflow brought up to date by a verb: where a sweep's records go, and what of the journal is not there yet."""

from __future__ import annotations

import argparse

from sweeps.cli.console import warn
from sweeps.runs import Run
from sweeps.spec import SweepSpec
from tracking.errors import TrackingError
from tracking.mlflow_sync.uri import ignored_environment, recordable, resolve_tracking_uri
from tracking.record.folder_lock import FolderHeldError


def records_uri(spec: SweepSpec, given: argparse.Namespace) -> str:
    """Where the sweep's records go; a warning where the environment names another place. Raises TrackingError."""
    uri = resolve_tracking_uri(given.tracking_uri, given.out, spec.tracking_uri)
    if given.tracking_uri is None and (note := ignored_environment(uri)):
        warn(note)
    return uri


def asked_for(given: argparse.Namespace) -> str | None:
    """What a new run records of --tracking-uri; None where it is not given. Raises TrackingError."""
    if given.tracking_uri is None:
        return None
    return recordable(resolve_tracking_uri(given.tracking_uri, given.out), given.out)


def send(run: Run, given: argparse.Namespace, uri: str | None = None) -> None:
    """Send what MLflow lacks of a run's sweep; where that fails, a warning says how to do so later."""
    from tracking.mlflow_sync.sink import MlflowSink

    try:
        uri = uri or records_uri(run.spec, given)
        MlflowSink(run.sweep.journal, tracking_uri=uri, out=given.out, on_warning=warn).sync()
    except FolderHeldError as held:
        warn(f"{run.sweep.root.name}: {held.who} works on the sweep and sends its records to MLflow itself")
    except TrackingError as error:
        warn(f"{error}; the record is kept: python -m sweeps sync {run.sweep.root.name}")
