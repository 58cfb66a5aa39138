"""Registers the best net of a sweep as an MLflow model, and as champion of its space and faces."""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import fer_common
import fer_data
import fer_models
from fer_models import JointConfig
from sweeps.after import pyfunc_model
from sweeps.after.ensemble import answers_fitted_apart
from sweeps.errors import InputError
from sweeps.runs import Run, best_runs, related_sweeps
from sweeps.use.packing import pack
from tracking.mlflow_sync.models import Candidate, Promotion, log_model_folder, model_name, register
from tracking.mlflow_sync.upkeep import find_mlflow_run, opened
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder
from tracking.record.predictions import Predictions

_CODE = [Path(package.__path__[0]) for package in (fer_common, fer_data, fer_models)]
_REQUIREMENTS = (
    "mlflow", "numpy", "opencv-python-headless", "pandas", "pillow", "pydantic", "safetensors", "scikit-image", "torch",
    "torchvision",
)  # fmt: skip
_REQUIRED_BY = {"efficientnet_lite0": "efficientnet-lite-pytorch"}
"""Further packages that a net requires."""


def register_best(folder: SweepFolder, tracking_uri: str) -> str:
    """Log and register the best finished trial of a sweep; return the result in one line. Raises as `register_run`."""
    (best,) = best_runs(folder, SweepHistory.load(folder.journal), 1)
    return register_run(best, tracking_uri)


def register_run(run: Run, tracking_uri: str) -> str:
    """Log a run as an MLflow model and register it, as champion if it beats the current one by more than chance.

    A net of synthetic faces is only logged. Repeating this changes nothing. MLflow must have the run.

    Raises:
        InputError: the run is not over, its predictions or weights are gone, or its faces are gone or have changed.
        TrackingError: MLflow does not have the run, does not answer, or refuses.
    """
    run.refuse_unfinished()
    best = run.trial.best_epoch()
    assert best is not None
    if (fold := run.trial.started.fold) is not None:
        raise InputError(
            f"{run.name}: was trained on fold {fold} of {run.spec.folds}, and validated on faces that other folds "
            "train on; to register its configuration, train it on the whole train split"
        )
    answers = answers_fitted_apart(run)
    with opened(tracking_uri) as client, tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch) / "files"
        mean_face = pack(run, files)
        candidate = Candidate(
            run_id=find_mlflow_run(client, run.history.started, run.trial.number),
            epoch=best.epoch,
            space=run.history.started.space,
            dataset=run.spec.dataset,
            fingerprint=run.spec.fingerprint,
            split=run.split,
            synthetic=run.spec.synthetic,
            labels=answers.labels,
            is_right=answers.is_right,
            among=_chosen_among(run, answers),
        )
        address = log_model_folder(
            client, candidate, script=Path(pyfunc_model.__file__), code=_CODE, files=files,
            input_example=mean_face[None], classes=run.spec.classes, requirements=_requirements(run),
        )  # fmt: skip
        verdict = register(client, candidate)
    return f"{run.name}: logged as model {address}; {_sentence(candidate, verdict)}"


def _chosen_among(run: Run, answers: Predictions) -> NDArray[np.bool_]:
    """Correct predictions [k, n] of the runs among which this one was chosen, itself first.

    These are all finished trials of its sweep, and all runs made from that sweep's nets.
    """
    rows = [answers.is_right]
    for folder, history in related_sweeps(run):
        for trial in history.trials.values():
            other = Run(folder, history, trial)
            found = other.kept_predictions() if trial.is_over and other.name != run.name else None
            if found and np.array_equal(found.labels, answers.labels):
                rows.append(found.is_right)
    return np.stack(rows)


def _requirements(run: Run) -> list[str]:
    """The model's requirements, with the versions that are installed here."""
    configs = [member.config.net for member, _ in run.nets()]
    nets = {one.name for net in configs for one in (net.members if isinstance(net, JointConfig) else (net,))}
    packages = [*_REQUIREMENTS, *(package for net, package in _REQUIRED_BY.items() if net in nets)]
    return [f"{name}=={version(name)}" for name in packages]


def _sentence(candidate: Candidate, verdict: Promotion) -> str:
    if verdict.version is None:
        return verdict.reason
    place = "champion" if verdict.is_champion else "not champion"
    return f"registered as {model_name(candidate)} version {verdict.version}, {place}: {verdict.reason}"
