"""Maintains MLflow runs: closes those of dead drivers, and logs files to a run after its end."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fer_common.errors import without_password
from tracking.errors import TrackingError
from tracking.mlflow_sync.access import describe, ping, set_client_environment
from tracking.mlflow_sync.default_store import sqlite_path
from tracking.mlflow_sync.moved_artifacts import follow_artifacts
from tracking.mlflow_sync.progress import PARENT, group_run
from tracking.mlflow_sync.run_records import (
    KEY_TAG,
    REASON_TAG,
    STATE_TAG,
    death_of,
    number_of,
    run_key,
    run_title,
)
from tracking.record.events import SweepStarted
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.spans import last_work_ms

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

_TIMEOUT_SECONDS = 30
_PING_SECONDS = 5
_RUNS_A_PAGE = 200


@dataclass(frozen=True)
class DeadRun:
    """A run that is still RUNNING without a driver, the reason to record, and the time of its last event."""

    run_id: str
    name: str
    reason: str
    last_sign_ms: int


def open_client(tracking_uri: str) -> "MlflowClient":
    """A client with a timeout of 30 s and without retries."""
    from mlflow import MlflowClient

    set_client_environment(_TIMEOUT_SECONDS)
    return MlflowClient(tracking_uri)


@contextmanager
def opened(tracking_uri: str) -> "Iterator[MlflowClient]":
    """The client of `open_client`, while the block runs.

    Raises:
        TrackingError: MLflow does not answer, has no store yet, or refuses a request of the block.
    """
    path, shown = sqlite_path(tracking_uri), without_password(tracking_uri)
    if path and not path.exists():
        raise TrackingError(f"MLflow's store {path} does not exist yet; python -m sweeps sync NAME creates it")
    try:
        ping(tracking_uri, _PING_SECONDS)
    except OSError as error:
        raise TrackingError(f"MLflow at {shown} does not answer: {error}") from error
    try:
        client = open_client(tracking_uri)
        client.search_experiments(max_results=1)
        if path:
            follow_artifacts(path)
    # MLflow is imported here and opens a database, which may raise anything.
    except Exception as error:
        raise TrackingError(f"MLflow at {shown}: {describe(error, tracking_uri)}") from error
    from mlflow.exceptions import MlflowException

    try:
        yield client
    except MlflowException as error:
        raise TrackingError(f"MLflow at {shown}: {describe(error, tracking_uri)}") from error


def dead_runs(client: "MlflowClient", history: SweepHistory) -> list[DeadRun]:
    """The RUNNING runs of a sweep without a driver."""
    reason = death_of(history.drivers[-1] if history.drivers else None)
    sweep_id = history.started.sweep_id
    return [
        DeadRun(str(run.info.run_id), str(run.info.run_name), reason, _last_sign(history, run))
        for run in search_everywhere(client, f"attributes.status = 'RUNNING' AND tags.`{KEY_TAG}` LIKE '{sweep_id}%'")
    ]


def close_runs(client: "MlflowClient", runs: Sequence[DeadRun]) -> None:
    """End runs, each at the time of its last event. A resumed sweep reopens its own."""
    for run in runs:
        client.set_tag(run.run_id, STATE_TAG, "stopped")
        client.set_tag(run.run_id, REASON_TAG, run.reason)
        client.set_terminated(run.run_id, "KILLED", run.last_sign_ms)


def find_experiment(client: "MlflowClient", sweep: SweepStarted) -> "Experiment | None":
    """The experiment with the sweep's own run, which a person may have renamed; without a run, the one named as its
    space. It may be deleted.
    """
    from mlflow.entities import ViewType

    experiments = [str(one.experiment_id) for one in client.search_experiments(ViewType.ALL)]
    query = f"tags.`{KEY_TAG}` = '{run_key(sweep, PARENT)}'"
    runs = search_runs(client, experiments, query, with_deleted=True)
    if not runs:
        return client.get_experiment_by_name(sweep.space)
    # Earlier versions copied the sweep to a new experiment after a renaming. The order of its runs never changes.
    first = min(runs, key=lambda run: (run.info.lifecycle_stage == "deleted", str(run.info.run_id)))
    return client.get_experiment(first.info.experiment_id)


def find_mlflow_run(client: "MlflowClient", sweep: SweepStarted, trial: int | None = None) -> str:
    """The id of a trial's run, or of the sweep's own.

    Raises:
        TrackingError: MLflow has no such run yet, or it was deleted there.
    """
    number = PARENT if trial is None else trial
    what = f"{sweep.name}, {run_title(number)}"
    found = search_everywhere(client, f"tags.`{KEY_TAG}` = '{run_key(sweep, number)}'", with_deleted=True)
    for run in sorted(found, key=lambda run: str(run.info.lifecycle_stage)):
        if run.info.lifecycle_stage == "active":
            return str(run.info.run_id)
        raise TrackingError(
            f"{what}: was deleted in MLflow; restore it: {how_to_restore(client.tracking_uri, run.info.run_id)}"
        )
    raise TrackingError(f"{what}: MLflow has no run of it; send the records first: python -m sweeps sync NAME")


def how_to_restore(tracking_uri: str, run_id: str) -> str:
    """The command that restores a deleted run; the MLflow UI can restore it, too."""
    place = shlex.quote(without_password(tracking_uri))
    return f"MLFLOW_TRACKING_URI={place} mlflow runs restore --run-id {run_id}"


def find_trial(run_id: str, tracking_uri: str) -> tuple[str, str, int | None]:
    """The sweep's name and id, and the trial's number, of an MLflow run.

    The number is None for the sweep's own run; for a group's run it is that of the group's first trial.

    Raises:
        TrackingError: MLflow lacks the run or does not answer, or the run does not belong to a sweep.
    """
    with opened(tracking_uri) as client:
        tags = client.get_run(run_id).data.tags
    if "sweep" not in tags or KEY_TAG not in tags:
        raise TrackingError(f"MLflow's run {run_id} does not belong to a sweep")
    sweep_id, _, _ = tags[KEY_TAG].partition("/")
    number = tags.get("trial", tags.get("group"))
    return tags["sweep"], sweep_id, int(number) if number is not None else None


def log_file(client: "MlflowClient", run_id: str, path: Path, folder: str | None = None) -> None:
    """Log a file (a report, a picture) to the run's artifacts, in `folder`; one with the same name is replaced.

    Raises:
        TrackingError: there is no such file.
    """
    if not path.is_file():
        raise TrackingError(f"{path}: no such file to log")
    client.log_artifact(run_id, str(path), folder)


def _last_sign(history: SweepHistory, run: "Run") -> int:
    """The time of the run's last event, in ms: the last one of its trial, of its group's trials or of the driver."""
    number = number_of(run.data.tags[KEY_TAG])
    if number == PARENT:
        return last_work_ms(history)
    trials = [one for one in history.trials.values() if number in (one.number, _group_run_of(one))]
    ends = [end.time_ms for trial in trials if (end := trial.end or trial.paused)]
    return max([trial.last_signs[-1] for trial in trials] + ends, default=int(run.info.start_time))


def _group_run_of(trial: TrialHistory) -> int | None:
    return group_run(trial.started.group.first) if trial.started.group else None


def search_everywhere(client: "MlflowClient", query: str, *, with_deleted: bool = False) -> list["Run"]:
    """Every run of every experiment that the query matches."""
    experiments = [str(experiment.experiment_id) for experiment in client.search_experiments()]
    return search_runs(client, experiments, query, with_deleted=with_deleted)


def search_runs(
    client: "MlflowClient", experiments: Sequence[str], query: str, *, with_deleted: bool = False
) -> list["Run"]:
    """Every run of the experiments that the query matches."""
    from mlflow.entities import ViewType

    found: list[Run] = []
    token: str | None = None
    view = ViewType.ALL if with_deleted else ViewType.ACTIVE_ONLY
    while experiments:
        page = client.search_runs(list(experiments), query, view, _RUNS_A_PAGE, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            break
    return found
