"""What MLflow needs beside a sweep: runs of dead drivers closed, and files logged to a run after its end."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tracking.errors import TrackingError
from tracking.events import SweepStarted
from tracking.folder_lock import folder_holder
from tracking.history import SweepHistory
from tracking.journal import read
from tracking.layout import JOURNAL_NAME
from tracking.mlflow_access import set_client_environment, without_password
from tracking.run_records import KEY_TAG, PARENT, REASON_TAG, STATE_TAG, run_key

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_TIMEOUT_SECONDS = 30
_RUNS_A_PAGE = 200


@dataclass(frozen=True)
class ClosedRun:
    """A run that was left RUNNING, and the reason it was closed with."""

    run_id: str
    name: str
    reason: str


def open_client(tracking_uri: str) -> "MlflowClient":
    """A client that waits 30 s for an answer at most and does not ask again."""
    from mlflow import MlflowClient

    set_client_environment(_TIMEOUT_SECONDS)
    return MlflowClient(tracking_uri)


def close_dead_runs(client: "MlflowClient", out: Path) -> list[ClosedRun]:
    """End every RUNNING run of the sweeps in `out` whose folder no driver holds; those of other folders stay.

    A resumed sweep opens its runs again.
    """
    dead = {
        journal: first.sweep_id
        for journal in sorted(out.glob(f"*/{JOURNAL_NAME}"))
        if folder_holder(journal.parent) is None and (first := _first(journal)) is not None
    }
    return [
        _close(client, run, journal)
        for journal, sweep_id in dead.items()
        for run in _search(client, f"attributes.status = 'RUNNING' AND tags.`{KEY_TAG}` LIKE '{sweep_id}%'")
    ]


def find_run(client: "MlflowClient", sweep: SweepStarted, trial: int | None = None) -> str:
    """The id of a trial's run, or of the sweep's own.

    Raises:
        TrackingError: MLflow has none yet.
    """
    key = run_key(sweep, PARENT if trial is None else trial)
    for run in _search(client, f"tags.`{KEY_TAG}` = '{key}'"):
        return str(run.info.run_id)
    what = f"sweep {sweep.name}" + ("" if trial is None else f", trial {trial}")
    raise TrackingError(f"{what}: MLflow has no run of it; send the journal first (sweeps sync)")


def find_trial(run_id: str, tracking_uri: str) -> tuple[str, int | None]:
    """The sweep's name and the trial's number (None for the sweep's own run) of an MLflow run.

    Raises:
        TrackingError: MLflow does not know the run, does not answer, or the run is not of a sweep.
    """
    from mlflow.exceptions import MlflowException

    try:
        tags = open_client(tracking_uri).get_run(run_id).data.tags
    except MlflowException as error:
        raise TrackingError(f"MLflow at {without_password(tracking_uri)}: {error}") from error
    if "sweep" not in tags:
        raise TrackingError(f"MLflow's run {run_id} is not one of a sweep")
    return tags["sweep"], int(tags["trial"]) if "trial" in tags else None


def log_file(client: "MlflowClient", run_id: str, path: Path) -> None:
    """Put a file (a report, a comparison) among the run's artifacts; one of that name is replaced.

    Raises:
        TrackingError: there is no such file.
    """
    if not path.is_file():
        raise TrackingError(f"{path}: no such file to log")
    client.log_artifact(run_id, str(path))


def _first(journal: Path) -> SweepStarted | None:
    try:
        first = next(read(journal), None)
    except TrackingError:
        return None
    return first if isinstance(first, SweepStarted) else None


def _close(client: "MlflowClient", run: "Run", journal: Path) -> ClosedRun:
    history = SweepHistory.load(journal)
    driver = history.drivers[-1] if history.drivers else None
    reason = f"its driver died (host {driver.host}, pid {driver.pid})" if driver else "its driver died"
    run_id = str(run.info.run_id)
    client.set_tag(run_id, STATE_TAG, "stopped")
    client.set_tag(run_id, REASON_TAG, reason)
    client.set_terminated(run_id, "KILLED", _last_sign(history, run))
    return ClosedRun(run_id, str(run.info.run_name), reason)


def _last_sign(history: SweepHistory, run: "Run") -> int:
    """When the run was last heard of, in ms: its last epoch, or the sweep's for the sweep's own run."""
    _, _, number = run.data.tags[KEY_TAG].partition("/")
    trials = [history.trials[int(number)]] if number else list(history.trials.values())
    return max((epoch.time_ms for trial in trials for epoch in trial.epochs), default=int(run.info.start_time))


def _search(client: "MlflowClient", query: str) -> list["Run"]:
    found: list[Run] = []
    token: str | None = None
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    while experiments:
        page = client.search_runs(experiments, query, max_results=_RUNS_A_PAGE, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            break
    return found
