"""A sweep's experiment in MLflow, one per space, with a saved view of its table: the results of trials, the best first.

MLflow stores a view as a tag of the experiment: a name, times, and the table's state as text.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fer_common.errors import without_password
from tracking.errors import TrackingError
from tracking.mlflow_sync.run_records import REASON_TAG, STATE_TAG
from tracking.mlflow_sync.upkeep import find_experiment, opened
from tracking.record.events import SweepStarted

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

VIEW_KEY = "fer-sweeps"
"""Name of the view in a link: `#/experiments/ID/runs?viewStateShareKey=fer-sweeps`."""

_VIEW_TAG = f"mlflow.sharedViewState.{VIEW_KEY}"
_METRICS = ("best_val_accuracy", "best_val_macro_f1", "best_epoch")
_PARAMS = ("net.name", "recipe.lr")
_TAGS = (STATE_TAG, REASON_TAG)


def experiment_id(client: "MlflowClient", sweep: SweepStarted, artifacts: Path | None) -> str:
    """The sweep's experiment. It is created if there is none, and restored if it was deleted.

    A new experiment has its artifacts in a folder in `artifacts`.
    """
    found = find_experiment(client, sweep)
    if found is None:
        place = (artifacts / sweep.space).as_uri() if artifacts else None
        return str(client.create_experiment(sweep.space, place, {_VIEW_TAG: _view(sweep.time_ms)}))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def experiment_page(server: str, sweep: SweepStarted) -> str:
    """Address of the page of a sweep's experiment on an MLflow server, without login data.

    Raises:
        TrackingError: MLflow does not answer, or has no such experiment.
    """
    with opened(server) as client:
        found = find_experiment(client, sweep)
    if found is None:
        shown = without_password(server)
        raise TrackingError(
            f"MLflow at {shown} has no experiment {sweep.space} yet; python -m sweeps sync NAME creates it"
        )
    parts = urlsplit(server)
    return _page(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), found)


def _page(server: str, experiment: "Experiment") -> str:
    """URL of an experiment's runs on a server, in MLflow's model-training mode and with our view of the table."""
    view = f"&viewStateShareKey={VIEW_KEY}" if _VIEW_TAG in experiment.tags else ""
    return f"{server.rstrip('/')}/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning{view}"


def _view(time_ms: int) -> str:
    columns = [
        f"{kind}.`{name}`"
        for kind, names in (("metrics", _METRICS), ("params", _PARAMS), ("tags", _TAGS))
        for name in names
    ]
    state = {"orderByKey": f"metrics.`{_METRICS[0]}`", "orderByAsc": False, "selectedColumns": columns}
    view = {"name": "Best values", "createdAt": time_ms, "updatedAt": time_ms, "state": json.dumps(state)}
    return json.dumps(view)
