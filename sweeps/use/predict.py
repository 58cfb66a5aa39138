"""Predicts photographs: detects, crops and classifies faces in batches. A bad file is reported and skipped."""

from __future__ import annotations

import base64
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_data import DataError
from fer_data.photos.crop import cut_out, whole
from fer_data.photos.detector import Box, find_faces
from fer_data.photos.photo import OTHER_SUFFIXES, SUFFIXES, Photo, decode_photo, read_photo
from sweeps.errors import InputError
from sweeps.use.classifier import Classifier, OnnxClassifier
from sweeps.use.looked import looked_png

STDIN = Path("-")
_PHOTOS_AT_ONCE = 16
"""Photographs whose faces the net sees at once; two times as many are in memory."""


@dataclass(frozen=True)
class Answer:
    """The prediction for one face: `box` in the upright photograph, None if the photograph is taken as one face."""

    box: Box | None
    probabilities: dict[str, float]
    looked: bytes | None = field(default=None, repr=False)
    """A PNG of the Grad-CAM."""

    @property
    def expression(self) -> str:
        """The most probable class."""
        return max(self.probabilities, key=lambda name: self.probabilities[name])

    @property
    def sentence(self) -> str:
        """The prediction as a sentence."""
        return f"the image expression is more {self.expression.lower()}, {self.probabilities[self.expression]:.0%}"

    def content(self) -> dict[str, Any]:
        """The content for JSON."""
        box = None if self.box is None else {
            name: round(value, 3 if name == "score" else 1) for name, value in vars(self.box).items()
        }  # fmt: skip
        probabilities = {name: round(share, 6) for name, share in self.probabilities.items()}
        content = {"box": box, "expression": self.expression, "probabilities": probabilities, "sentence": self.sentence}
        if self.looked is not None:
            content["looked"] = f"data:image/png;base64,{base64.b64encode(self.looked).decode()}"
        return content


@dataclass(frozen=True, eq=False)
class Answered:
    """A photograph with the predictions of its faces, largest face first; or the fault why it has none."""

    name: str
    answers: tuple[Answer, ...] = ()
    fault: str | None = None
    notes: tuple[str, ...] = ()
    photo: Photo | None = field(default=None, repr=False)

    def content(self) -> dict[str, Any]:
        """The content for JSON."""
        return {
            "file": self.name,
            "faces": [answer.content() for answer in self.answers],
            "notes": list(self.notes),
            "error": self.fault,
        }


def photos_in(inputs: Sequence[Path]) -> list[Path]:
    """The photographs that the inputs name; those of a folder sorted by name, including subfolders.

    Pictures of other formats are among them: reading one gives its fault.
    """
    found: list[Path] = []
    for given in inputs:
        if given != STDIN and _is_folder(given):
            kinds = (*SUFFIXES, *OTHER_SUFFIXES)
            inside = sorted(path for path in given.rglob("*") if path.suffix.lower() in kinds and path.is_file())
            if not inside:
                raise InputError(f"{given}: no photograph in this folder (looked for {', '.join(SUFFIXES)})")
            found += inside
        else:
            found.append(given)
    return found


def refuse_to_draw_among(inputs: Sequence[Path], folder: Path) -> None:
    """Raise InputError if drawn pictures would be among the photographs.

    They could replace photographs of the same names, and would be predicted the next time.
    """
    for given in inputs:
        whole_folder = _is_folder(given)
        place = (given if whole_folder else given.parent).resolve()
        if given != STDIN and (folder.resolve() == place or (whole_folder and place in folder.resolve().parents)):
            raise InputError(f"--draw {folder}: is a folder of the photographs ({given}); give another one")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # for example a name that is too long: reading it gives the reason
        return False


def predict_photos(paths: Iterable[Path], classifier: Classifier, *, as_whole: bool = False) -> Iterator[Answered]:
    """Predictions for photographs, in order. A bad photograph has a fault instead.

    One thread per core decodes photographs and detects faces: Pillow, OpenCV and ONNX Runtime release Python's lock.
    """
    from joblib import cpu_count

    with _opencv_on_one_core(), ThreadPoolExecutor(cpu_count()) as pool:
        waiting, rest = deque[list[Future[_Searched]]](), iter(paths)

        def submit() -> None:
            some = list(islice(rest, _PHOTOS_AT_ONCE))
            if some:
                waiting.append(
                    [pool.submit(_searched, str(path), partial(_read, path), classifier, as_whole) for path in some]
                )

        submit()
        while waiting:
            submit()  # the threads have work while the net predicts
            yield from _answered([future.result() for future in waiting.popleft()], classifier)


@contextmanager
def _opencv_on_one_core() -> Iterator[None]:
    """Let OpenCV use one core per call, as the caller's threads use the others."""
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def predict_photo(
    name: str, data: bytes, classifier: OnnxClassifier, max_bytes: int, *, as_whole: bool = False, looked: bool = False
) -> Answered:
    """The same for one photograph in memory; on request each prediction has a picture of its Grad-CAM."""
    searched = _searched(name, partial(decode_photo, data, max_bytes), classifier, as_whole)
    (answered,) = _answered([searched], classifier)
    if not looked or not searched.faces:
        return answered
    _, maps = classifier.explained(np.stack(searched.faces))
    if maps is None:
        return answered
    pictures = [looked_png(face, one) for face, one in zip(searched.faces, maps, strict=True)]
    answers = [replace(answer, looked=picture) for answer, picture in zip(answered.answers, pictures, strict=True)]
    return replace(answered, answers=tuple(answers))


@dataclass(frozen=True, eq=False)
class _Searched:
    answered: Answered
    boxes: Sequence[Box | None] = ()
    faces: Sequence[NDArray[np.uint8]] = ()


def _read(path: Path) -> Photo:
    return decode_photo(sys.stdin.buffer.read()) if path == STDIN else read_photo(path)


def _searched(name: str, read: Callable[[], Photo], classifier: Classifier, as_whole: bool) -> _Searched:
    try:
        photo = read()
    except DataError as error:
        return _Searched(Answered(name, fault=str(error)))
    boxes: list[Box | None] = [None] if as_whole else list(find_faces(photo))
    if not boxes:
        fault = "no face was found; if the whole picture is a face, add --whole"
        return _Searched(Answered(name, fault=fault, notes=photo.notes, photo=photo))
    side, method = classifier.side, classifier.resize_method
    faces = [whole(photo, side, method) if box is None else cut_out(photo, box, side) for box in boxes]
    return _Searched(Answered(name, notes=photo.notes, photo=photo), boxes, faces)


def _answered(searched: Sequence[_Searched], classifier: Classifier) -> Iterator[Answered]:
    faces = [face for one in searched for face in one.faces]
    # One core: the detector's threads use all, and threads of PyTorch that wait for each other would take theirs.
    rows = iter(classifier.probabilities(np.stack(faces), one_core=True) if faces else ())
    for one in searched:
        answers = tuple(
            Answer(box, dict(zip(classifier.classes, map(float, next(rows)), strict=True))) for box in one.boxes
        )
        was = one.answered
        yield Answered(was.name, answers, was.fault, was.notes, was.photo)
