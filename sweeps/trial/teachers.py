"""Predictions of a trial's teachers on its train faces. Heavy imports are inside the functions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fer_data import DataError, open_cached
from fer_data.cache.preprocess_cache import preprocessed
from fer_models import Recipe
from sweeps.config import TrialConfig
from sweeps.trial.messages import Task
from tracking.record.layout import SweepFolder, TrialFolder

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from fer_data import Faces
    from fer_models.training.computed import Computing

_FOLDER = "teachers"
"""Folder in that of the cached faces."""


class Teacher(NamedTuple):
    """One net, its weight in the mean of the teachers, and the hash of its weights file."""

    run: str
    """The run, as NAME/NUMBER."""
    share: float
    sha256: str

    def files(self, out: Path) -> TrialFolder:
        """The run's folder among the sweeps in `out`."""
        sweep, _, number = self.run.partition("/")
        return SweepFolder(out / sweep).trial(int(number))


def with_teachers(recipe: Recipe, teachers: Iterable[Teacher]) -> Recipe:
    """`recipe` with its recorded teachers, in the form `night/3,night/7`, or `night/3*0.25,night/7*0.75`."""
    runs, shares, hashes = zip(*teachers, strict=True)
    alike = len(set(shares)) == 1
    text = ",".join(run if alike else f"{run}*{share!r}" for run, share in zip(runs, shares, strict=True))
    return recipe.model_copy(update={"distill": text, "distill_sha256": hashes})


def teachers_of(recipe: Recipe) -> list[Teacher]:
    """The teachers of a recorded recipe. Empty if it has none, or if a plan has not yet resolved their names."""
    hashes = recipe.distill_sha256 or ()
    split = [part.partition("*") for part in recipe.distill.split(",")] if hashes else []
    return [
        Teacher(run, float(share) if share else 1 / len(hashes), sha256)
        for (run, _, share), sha256 in zip(split, hashes, strict=True)
    ]


def weights_sha256(path: Path) -> str:
    """The SHA-256 of a weights file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def taught_labels(task: Task, cache: Path) -> Generator[Computing, None, NDArray[np.float32] | None]:
    """The teachers' probabilities [n, classes] for the train faces at the recipe's temperature; None without teachers.

    A teacher predicts each face and its mirror image; the mean is used for every augmented version of the face. It is
    computed once per teacher and data set, in fp32, and cached with the faces.

    Raises:
        DataError: a teacher's weights are gone or have changed, and its predictions are not cached.
        ModelError: the predictions cannot be written.
    """
    recipe = task.config.recipe
    if not recipe.is_distilled:
        return None
    out, fingerprint = Path(task.folder).parents[2], open_cached(cache).fingerprint
    mean: NDArray[np.float64] | float = 0.0
    for teacher in teachers_of(recipe):
        path = cache.parent / _FOLDER / f"{teacher.sha256[:24]}-{fingerprint}.npy"
        answers = yield from _answers(path, teacher, teacher.files(out), task, cache)
        mean = mean + teacher.share * np.exp(answers.astype(np.float64))
    at_temperature = mean ** (1 / recipe.distill_temperature)
    return np.asarray(at_temperature / at_temperature.sum(1, keepdims=True), np.float32)


def _answers(
    path: Path, teacher: Teacher, files: TrialFolder, task: Task, cache: Path
) -> Generator[Computing, None, NDArray[np.float32]]:
    """One teacher's log-probabilities [n, classes]."""
    from fer_models.training.computed import compute, kept
    from fer_models.training.evaluate import EVALUATION_BATCH, FaceAndMirror

    if (found := kept(path, len(open_cached(cache).train))) is not None:
        return found
    config = _config(files, teacher.sha256)
    faces = open_cached(preprocessed(cache, config.preprocess))
    front = FaceAndMirror(_net(config, faces, files)).to(task.device)
    what = f"predictions of teacher {teacher.run}"
    return (yield from compute(path, front, faces.train.images, task.device, "fp32", EVALUATION_BATCH, what))


def _config(files: TrialFolder, sha256: str) -> TrialConfig:
    try:
        if weights_sha256(files.best) == sha256:
            return TrialConfig.parse(json.loads(files.config.read_text(encoding="utf-8")), str(files.config))
    except OSError as error:
        raise DataError(f"{error.filename}: a teacher's file cannot be read: {error.strerror}; put it back") from error
    raise DataError(f"{files.best}: a teacher's weights changed since the trial was planned; restore the old file")


def _net(config: TrialConfig, faces: Faces, files: TrialFolder) -> nn.Module:
    from fer_models.training.weights import load_weights
    from sweeps.trial.build_net import new_net

    net = new_net(config, faces)
    load_weights(net, files.best)
    return net
