"""Nets in MLflow's model format, and the champion of each space and data set.

A model is a folder of safetensors and JSON with a script that MLflow runs to load it: nothing is pickled.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tracking.answers import Answers
from tracking.errors import TrackingError
from tracking.scores import difference_interval
from tracking.significance import mcnemar_mid_p

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
MODEL_ARTIFACT = "model"
_ANSWERS_ARTIFACT = "val_probabilities.npz"
_RIGHT_TAG, _N_TAG = "val.right", "val.n"


@dataclass(frozen=True)
class Candidate:
    """A net that was logged to run `run_id`; `answers` on the val split of the faces `fingerprint` names."""

    run_id: str
    space: str
    dataset: str
    fingerprint: str
    synthetic: bool
    answers: Answers

    @property
    def right(self) -> int:
        """How many faces it has right."""
        return int((self.answers.probabilities.argmax(axis=1) == self.answers.labels).sum())


@dataclass(frozen=True)
class Verdict:
    """What became of a candidate: its registered version, whether it is champion now, and why."""

    version: str | None
    is_champion: bool
    reason: str


def log_model_folder(
    client: "MlflowClient",
    run_id: str,
    *,
    script: Path,
    code: Sequence[Path],
    files: Path,
    input_example: NDArray[np.uint8],
    classes: Sequence[str],
    requirements: Sequence[str],
) -> str:
    """Log a net to a run and return the address that `mlflow.pyfunc.load_model` takes.

    `script` is models-from-code: it calls `mlflow.models.set_model` with a PythonModel whose `load_context` finds the
    folder `files` under `context.artifacts["files"]`; it may import the packages `code`, of which the model has copies.
    It takes arrays of images and answers with a data frame of float32, a column for each of `classes`.

    Raises:
        TrackingError: script or files are absent.
    """
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    if not script.is_file() or not files.is_dir():
        raise TrackingError(f"model of run {run_id}: no script {script}, or no folder {files}")
    # Grey and RGB have different numbers of dimensions: an array of any shape is all that MLflow can say of both.
    images = Schema([TensorSpec(np.dtype(object), (-1,))])
    signature = ModelSignature(images, Schema([ColSpec(DataType.float, name) for name in classes]))
    with tempfile.TemporaryDirectory() as scratch:
        saved = Path(scratch) / MODEL_ARTIFACT
        mlflow.pyfunc.save_model(
            saved,
            python_model=str(script),
            code_paths=[str(package) for package in code],
            artifacts={"files": str(files)},
            signature=signature,
            input_example=input_example,
            pip_requirements=list(requirements),
        )
        client.log_artifacts(run_id, str(saved), MODEL_ARTIFACT)
    return f"runs:/{run_id}/{MODEL_ARTIFACT}"


def model_name(candidate: Candidate) -> str:
    """Name in the registry: one a space and data set, since numbers on different faces do not compare."""
    return f"{candidate.space}-{candidate.fingerprint[:12]}"


def register(client: "MlflowClient", candidate: Candidate) -> Verdict:
    """Register a net and make it champion if there is none, or if it beats the present one by more than chance.

    Nets of synthetic faces are never registered. Told again, it finds the run's version and judges that.
    """
    if candidate.synthetic:
        return Verdict(None, False, "trained on synthetic faces: never registered")
    name = model_name(candidate)
    _create_name(client, name)
    version = _version_of(client, name, candidate)
    present = _champion(client, name)
    # SQLite stores give the version as a number, servers as text.
    if present is not None and str(present.version) == version:
        return Verdict(version, True, "it is the champion already")
    wins, reason = True, "the first of its space on these faces"
    if present is not None:
        wins, reason = _beats(client, candidate, present)
    if wins:
        client.set_registered_model_alias(name, CHAMPION, version)
    return Verdict(version, wins, reason)


def _create_name(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version_of(client: "MlflowClient", name: str, candidate: Candidate) -> str:
    for version in client.search_model_versions(f"name = '{name}' AND run_id = '{candidate.run_id}'"):
        return str(version.version)
    tags = {
        "dataset": candidate.dataset,
        "dataset.fingerprint": candidate.fingerprint,
        _RIGHT_TAG: str(candidate.right),
        _N_TAG: str(candidate.answers.labels.size),
    }
    source = f"runs:/{candidate.run_id}/{MODEL_ARTIFACT}"
    return str(client.create_model_version(name, source, candidate.run_id, tags=tags).version)


def _champion(client: "MlflowClient", name: str) -> "ModelVersion | None":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _beats(client: "MlflowClient", candidate: Candidate, present: "ModelVersion") -> tuple[bool, str]:
    """By McNemar's test on the same faces where the champion's answers are kept, else by Newcombe's interval."""
    theirs = _answers_of(client, present)
    mine = candidate.answers
    if theirs is not None and np.array_equal(theirs.labels, mine.labels):
        right = [one.probabilities.argmax(axis=1) == one.labels for one in (mine, theirs)]
        only_mine, only_theirs = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
        p = mcnemar_mid_p(only_mine, only_theirs)
        counts = f"alone right on {only_mine} faces against {only_theirs} of version {present.version}, p = {p:.3f}"
        return only_mine > only_theirs and p < 0.05, counts
    counted = int(present.tags[_RIGHT_TAG]), int(present.tags[_N_TAG])
    gap = difference_interval(candidate.right, mine.labels.size, *counted)
    points = f"{100 * gap.low:+.1f} to {100 * gap.high:+.1f} points against version {present.version} (95 %, unpaired)"
    return gap.low > 0, points


def _answers_of(client: "MlflowClient", version: "ModelVersion") -> Answers | None:
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as scratch:
        try:
            path = client.download_artifacts(str(version.run_id), _ANSWERS_ARTIFACT, scratch)
            with np.load(path) as kept:
                return Answers(kept["labels"].astype(np.int64), kept["probabilities"], int(kept["epoch"]))
        except (MlflowException, OSError, ValueError, KeyError):
            return None
