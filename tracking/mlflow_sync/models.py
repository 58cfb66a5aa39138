"""Nets in MLflow's model format, and the champion of each space and data set.

A model is a folder of safetensors and JSON with a script that MLflow runs to load it: nothing is pickled.
"""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fer_common.errors import did_you_mean
from tracking.errors import TrackingError
from tracking.metrics.scores import difference_interval
from tracking.metrics.significance import BoolArray, selected_p
from tracking.mlflow_sync.upkeep import opened

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
MODEL_ARTIFACT = "model"
"""Folder of a run's model. If another net of the run is registered from it, the next is `model-2`, and so on."""
_RIGHT_FILE = "val_right.npz"
_ANSWERS_ARTIFACT = "val_probabilities.npz"
"""For versions that were registered without that file."""
_RIGHT_TAG, _N_TAG, _EPOCH_TAG, _DIGEST_TAG = "val.right", "val.n", "epoch", "val.right_sha256"
_LEVEL = 0.05
_MOST_MODELS = 1000
_SEED = 0
"""Fixed, so that repeated calls give the same p-value."""


@dataclass(frozen=True)
class Candidate:
    """The net of a run's best epoch, with its correct predictions on the val split of data `fingerprint`.

    It was selected on this split among k nets: `among` [k, n] has the correct predictions of each of them, itself
    included. `is_right` [n] has its own. If the net was fitted to these faces, they are cross-fitted.
    """

    run_id: str
    epoch: int
    space: str
    dataset: str
    fingerprint: str
    split: str
    """The name of its val split."""
    synthetic: bool
    labels: NDArray[np.int64]
    is_right: BoolArray
    among: BoolArray


@dataclass(frozen=True)
class Promotion:
    """The registered version of a candidate, whether it is champion now, and why."""

    version: str | None
    is_champion: bool
    reason: str


def log_model_folder(
    client: "MlflowClient",
    candidate: Candidate,
    *,
    script: Path,
    code: Sequence[Path],
    files: Path,
    input_example: NDArray[np.uint8],
    classes: Sequence[str],
    requirements: Sequence[str],
) -> str:
    """Log a net to its run and return the address that `mlflow.pyfunc.load_model` takes.

    The files of another net of the run that is registered are not replaced.

    `script` is models-from-code: it calls `mlflow.models.set_model` with a PythonModel whose `load_context` finds the
    folder `files` under `context.artifacts["files"]`. It may import the packages `code`, of which the model has copies.
    The model takes arrays of images and returns a data frame of float32 with one column per class of `classes`.

    Raises:
        TrackingError: script or files are absent.
    """
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    if not script.is_file() or not files.is_dir():
        raise TrackingError(f"model of run {candidate.run_id}: no script {script}, or no folder {files}")
    # Grey and RGB have different numbers of dimensions, so the signature is an array of any shape.
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
        client.log_artifacts(candidate.run_id, str(saved), _folder_for(client, candidate))
    return _source(client, candidate)


def model_name(candidate: Candidate) -> str:
    """Name in the registry: one per space and data set, because numbers on different faces are not comparable."""
    return f"{candidate.space}-{candidate.fingerprint[:12]}"


def register(client: "MlflowClient", candidate: Candidate) -> Promotion:
    """Register a net, and make it champion if there is none or if it beats the current one by more than chance.

    Nets of synthetic faces are never registered. A repeated call reuses the version of the net. An extended trial has
    another net, which becomes another version.
    """
    if candidate.synthetic:
        return Promotion(None, False, "trained on synthetic faces: never registered")
    name = model_name(candidate)
    _keep_right(client, candidate)
    _create_name(client, name)
    version = _version_for(client, name, candidate)
    present = _champion(client, name)
    # SQLite stores give the version as a number, servers as text.
    if present is not None and str(present.version) == version:
        return Promotion(version, True, "it is already the champion")
    wins, reason = True, "the first of its space on these faces"
    if present is not None:
        wins, reason = _beats(client, candidate, present)
    if wins:
        client.set_registered_model_alias(name, CHAMPION, version)
    return Promotion(version, wins, reason)


@dataclass(frozen=True)
class Version:
    """A registered model's version."""

    name: str
    number: str
    tags: Mapping[str, str]


def champions(client: "MlflowClient") -> list[Version]:
    """Every registered champion, the most accurate on its own validation split first."""
    found = [version for _, version in _by_alias(client, CHAMPION)]
    return sorted(found, key=lambda one: -int(one.tags[_RIGHT_TAG]) / int(one.tags[_N_TAG]))


def registered_models(client: "MlflowClient") -> list[tuple[str, Version]]:
    """Model references with their current versions: the champion, and every alias as `models:/NAME@alias`."""
    best = [(CHAMPION, version) for version in champions(client)[:1]]
    return best + [(f"models:/{version.name}@{alias}", version) for alias, version in _by_alias(client)]


def _by_alias(client: "MlflowClient", wanted: str | None = None) -> list[tuple[str, Version]]:
    """The versions with an alias, or with the wanted one. Those of other projects on the server are left out."""
    found = [
        (alias, client.get_model_version_by_alias(model.name, alias))
        for model in client.search_registered_models(max_results=_MOST_MODELS)
        for alias in sorted(model.aliases)
        if wanted in (None, alias)
    ]
    return [(alias, Version(one.name, str(one.version), dict(one.tags))) for alias, one in found if _is_ours(one)]


def _is_ours(version: "ModelVersion") -> bool:
    """Whether `register` made a version."""
    return _RIGHT_TAG in version.tags and _N_TAG in version.tags


def fetch_files(reference: str, tracking_uri: str, folder: Path) -> Version:
    """Download the files of a registered model: `champion`, `models:/NAME@alias` or `models:/NAME/VERSION`.

    Raises:
        TrackingError: MLflow does not answer, or has no such model.
    """
    with opened(tracking_uri) as client:
        version = _registered(client, reference)
        registered = client.get_model_version(version.name, version.number)
        with tempfile.TemporaryDirectory() as scratch:
            path = f"{_folder_of(client, registered)}/artifacts/files"
            found = client.download_artifacts(str(registered.run_id), path, scratch)
            shutil.copytree(found, folder)
    return version


def _registered(client: "MlflowClient", reference: str) -> Version:
    from mlflow.exceptions import MlflowException

    if reference == CHAMPION:
        best = champions(client)
        if not best:
            raise TrackingError(
                "there is no champion yet: give a run (NAME/3), or register one: python -m sweeps register NAME/3 "
                "(nets of synthetic faces are never registered)"
            )
        return best[0]
    match = re.fullmatch(r"models:/+([^/@]+)(?:@([^/@]+)|/([0-9]+))", reference)
    if not match:
        raise TrackingError(f"'{reference}': expected models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, number = match.groups()
    known = {model.name: model for model in client.search_registered_models(max_results=_MOST_MODELS)}
    if name not in known:
        raise TrackingError(f"no registered model '{name}'{did_you_mean(name, known)}")
    if alias and alias not in known[name].aliases:
        raise TrackingError(
            f"model '{name}' has no alias '{alias}' (known: {', '.join(known[name].aliases) or 'none'})"
        )
    try:
        found = client.get_model_version(name, number or str(known[name].aliases[alias]))
    except MlflowException as error:
        raise TrackingError(f"model '{name}' has no version {number}") from error
    return Version(name, str(found.version), dict(found.tags))


def _create_name(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version_for(client: "MlflowClient", name: str, candidate: Candidate) -> str:
    """The version of a candidate, which is created if there is none."""
    for version in _versions_of_run(client, candidate.run_id):
        if _is_net_of(version, candidate):
            return str(version.version)
    data = {"dataset": candidate.dataset, "dataset.fingerprint": candidate.fingerprint, "val.split": candidate.split}
    tags = data | _net_tags(candidate)
    source = _source(client, candidate)
    return str(client.create_model_version(name, source, candidate.run_id, tags=tags).version)


def _versions_of_run(client: "MlflowClient", run_id: str) -> "Sequence[ModelVersion]":
    return client.search_model_versions(f"run_id = '{run_id}'")


def _net_tags(candidate: Candidate) -> dict[str, str]:
    """The tags that tell one net of a run from another.

    The epoch is not enough: an extended trial trains the epochs of its old cooldown again. So the faces that the net
    predicts correctly count, too.
    """
    right, n = int(candidate.is_right.sum()), candidate.labels.size
    digest = hashlib.sha256(np.packbits(candidate.is_right).tobytes()).hexdigest()[:16]
    return {_EPOCH_TAG: str(candidate.epoch), _RIGHT_TAG: str(right), _N_TAG: str(n), _DIGEST_TAG: digest}


def _is_net_of(version: "ModelVersion", candidate: Candidate) -> bool:
    """Whether a version of the candidate's run is its net. Versions of earlier programs have only the two counts."""
    if version.name != model_name(candidate) or not _is_ours(version):
        return False
    wanted = _net_tags(candidate)
    return wanted.items() <= (wanted | version.tags).items()


def _source(client: "MlflowClient", candidate: Candidate) -> str:
    return f"runs:/{candidate.run_id}/{_folder_for(client, candidate)}"


def _folder_for(client: "MlflowClient", candidate: Candidate) -> str:
    """The folder of a candidate's model among its run's artifacts: that of its version, or the first without one."""
    taken = set()
    for version in _versions_of_run(client, candidate.run_id):
        if _is_net_of(version, candidate):
            return _folder_of(client, version)
        taken.add(_folder_of(client, version))
    names = (f"{MODEL_ARTIFACT}-{number}" if number > 1 else MODEL_ARTIFACT for number in count(1))
    return next(name for name in names if name not in taken)


def _folder_of(client: "MlflowClient", version: "ModelVersion") -> str:
    """The folder of a version's model among its run's artifacts, also of a version that was copied in MLflow."""
    return client.get_model_version_download_uri(version.name, str(version.version)).rstrip("/").rpartition("/")[2]


def _champion(client: "MlflowClient", name: str) -> "ModelVersion | None":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _beats(client: "MlflowClient", candidate: Candidate, present: "ModelVersion") -> tuple[bool, str]:
    """McNemar's test on the same faces if the champion's predictions are kept, else Newcombe's interval.

    Both correct for the selection of the candidate on these faces.
    """
    right = _is_right(client, present, candidate.labels)
    mine, among = candidate.is_right, candidate.among
    best = f"as the best of {len(among)}, " if len(among) > 1 else ""
    if right is not None:
        only_mine, only_theirs = int((mine & ~right).sum()), int((right & ~mine).sum())
        p = selected_p(mine, right, among, np.random.default_rng(_SEED))
        counts = f"only it is right on {only_mine} faces, only version {present.version} on {only_theirs}"
        return only_mine > only_theirs and p < _LEVEL, f"{counts}, {best}p = {p:.3f}"
    if not _is_ours(present):
        return False, f"version {present.version} has the alias {CHAMPION}, but its predictions are not known"
    counted = int(present.tags[_RIGHT_TAG]), int(present.tags[_N_TAG])
    confidence = (1 - _LEVEL) ** (1 / len(among))
    gap = difference_interval(int(mine.sum()), mine.size, *counted, confidence)
    points = f"{100 * gap.low:+.1f} to {100 * gap.high:+.1f} points against version {present.version}"
    return gap.low > 0, f"{points} ({best}{confidence:.1%}, unpaired)"


def _is_right(client: "MlflowClient", version: "ModelVersion", labels: NDArray[np.int64]) -> BoolArray | None:
    """Which of the faces with these labels a version predicts correctly. None if its predictions are not stored.

    If their number is not that of the tag, they are those of the same run after an extension.
    """
    from mlflow.exceptions import MlflowException

    for artifact in (f"{_folder_of(client, version)}/{_RIGHT_FILE}", _ANSWERS_ARTIFACT):
        with tempfile.TemporaryDirectory() as scratch, suppress(MlflowException, OSError, ValueError, KeyError):
            path = client.download_artifacts(str(version.run_id), artifact, scratch)
            with np.load(path) as kept:
                right = kept["is_right"] if "is_right" in kept else kept["probabilities"].argmax(1) == kept["labels"]
                if str(int(right.sum())) == version.tags.get(_RIGHT_TAG):
                    return np.asarray(right, np.bool_) if np.array_equal(kept["labels"], labels) else None
    return None


def _keep_right(client: "MlflowClient", candidate: Candidate) -> None:
    """Store which faces the model predicts correctly, for comparisons with later candidates."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / _RIGHT_FILE
        np.savez_compressed(path, labels=candidate.labels, is_right=candidate.is_right)
        client.log_artifact(candidate.run_id, str(path), _folder_for(client, candidate))
