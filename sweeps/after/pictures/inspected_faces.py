"""The faces on which a net is inspected: some of its validation split, or one of the user's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer_data import DataError
from sweeps.errors import InputError
from sweeps.runs import Run
from sweeps.trial.messages import val_title
from tracking.metrics.summary import data_name

MAX_FACES = 40
"""Maximum number of faces in one picture."""

_NAME_LENGTH = 16  # fits above a face


@dataclass(frozen=True, eq=False)
class Shown:
    """Faces [n, h, w] on which a net is inspected: their names, labels if known, and source."""

    images: NDArray[np.uint8 | np.float32]
    names: tuple[str, ...]
    labels: tuple[int | None, ...]
    title: str


def chosen_faces(run: Run, asked: str | None = None) -> Shown:
    """Validation faces: a number of them ("8"), alternating between the classes, or those at indices ("3,17").

    Without `asked`, one face per class. Raises InputError.
    """
    faces = run.faces()
    labels, name = faces.val.labels, data_name(faces.name, faces.synthetic)
    numbers = _in_turn(labels, min(len(faces.classes), MAX_FACES)) if asked is None else _numbers(asked, labels)
    return Shown(
        images=np.asarray(faces.val.images[numbers]),
        names=tuple(str(number) for number in numbers),
        labels=tuple(int(label) for label in labels[numbers]),
        title=f"{name}, {val_title(faces.name, is_fold=faces.val_is_fold)}, {len(numbers)} of n = {len(faces.val):,}",
    )


def face_from(run: Run, path: Path) -> Shown:
    """A user's picture, resized and preprocessed like the faces that the net was trained on.

    Raises InputError if the file is not a picture, or the run's faces have changed.
    """
    from fer_data.augmentation.preprocess import preprocess
    from fer_data.images.decode import read_image
    from fer_data.images.resizing import resized

    try:
        image = read_image(path)
    except DataError as error:
        raise InputError(f"--image {path}: {error}") from None
    raw = run.raw_faces()
    image = resized(image, raw.val.images.shape[1], run.spec.data.resize_method)
    images = preprocess(image[np.newaxis], run.config.preprocess, raw.mean_image())
    title = f"{path.name} (n = 1; trained on {data_name(raw.name, raw.synthetic)})"
    return Shown(images, (_short(path.name),), (None,), title)


def _numbers(asked: str, labels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Indices in the split."""
    if re.fullmatch(r"\d+", asked) and 1 <= int(asked) <= min(MAX_FACES, len(labels)):
        return _in_turn(labels, int(asked))
    places = re.fullmatch(r"\d+(,\d+)*,?", asked) if "," in asked else None
    numbers = [int(number) for number in asked.rstrip(",").split(",")] if places else []
    if not 1 <= len(numbers) <= MAX_FACES or max(numbers) >= len(labels):
        raise InputError(
            f"--faces '{asked}': expected a number of faces, 1 to {min(MAX_FACES, len(labels))}, or at most "
            f"{MAX_FACES} indices in the validation split, 0 to {len(labels) - 1:,}, as 3,17 (for one: 3,)"
        )
    return np.array(numbers)


def _in_turn(labels: NDArray[np.uint8], count: int) -> NDArray[np.intp]:
    """The first `count` faces, alternating between the classes, in the order of the split."""
    turn = np.empty(len(labels), int)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        turn[of_class] = np.arange(len(of_class))
    return np.lexsort((labels, turn))[:count]


def _short(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"
