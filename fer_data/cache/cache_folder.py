"""A data set as a folder of arrays, written once and memory-mapped by all processes on the machine.

$FER_CACHE or ~/.cache/fer-sweeps/<fingerprint>/
    meta.json, mean_image.npy, {train,val,test}_{images,labels}.npy
    {train,val}_soft_labels.npy, {val,test}_leaked.npy, if there are any
<fingerprint>-<hash>/   the same data with another name or other notes: links to the arrays

A folder is written under a temporary name and renamed when it is complete. Therefore a folder that is named by a
fingerprint is always complete, and several processes can make the same data set at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from fer_common.files import cache_path, sync_folder, write_synced
from fer_common.frozen import Frozen
from fer_data.faces import SPLITS, DataError, Faces, Split, mean_of

META = "meta.json"
_MEAN_IMAGE = "mean_image.npy"


class _Meta(Frozen):
    format: Literal[2] = 2
    name: str
    fingerprint: str
    classes: tuple[str, ...]
    lengths: dict[str, int]
    grey_levels: Literal["uint8", "float32"]
    soft_labels: tuple[str, ...]
    leaked: tuple[str, ...]
    synthetic: bool
    notes: tuple[str, ...]


def made_once(name: str, write: Callable[[Path], None]) -> Path:
    """The cache folder of this name. `write` creates it unless it exists and is complete.

    `write` receives an empty folder to fill, as `write_faces` does. If several processes make the same folder at once,
    the first one that is done wins, and the copies of the others are deleted.

    Raises:
        OSError: the cache cannot be written.
    """
    root = cache_path()
    folder = root / name
    if is_whole(folder):
        return folder
    beside = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=root))
    try:
        write(beside)
        sync_folder(beside)
        with (cache_path("sources") / ".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not is_whole(folder):
                _move_into_place(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def keep(faces: Faces) -> Path:
    """The cache folder of these faces; it is written unless it exists and is complete."""
    folder = made_once(faces.fingerprint, lambda beside: write_faces(faces, beside))
    return called(folder, faces.name, faces.notes, synthetic=faces.synthetic)


def called(folder: Path, name: str, notes: tuple[str, ...], *, synthetic: bool) -> Path:
    """A folder of the same data with this name and these notes: `folder` itself, or one with links to its arrays.

    Sources with different names may have equal data; each is shown under its own name.
    """
    meta = _read_meta(folder)
    wanted = meta.model_copy(update={"name": name, "notes": notes, "synthetic": synthetic})
    if wanted == meta:
        return folder
    description = hashlib.blake2b(json.dumps([name, notes, synthetic]).encode(), digest_size=4).hexdigest()

    def link(beside: Path) -> None:
        for array in folder.glob("*.npy"):
            try:
                (beside / array.name).hardlink_to(array)
            except OSError:  # the file system has no links
                shutil.copy2(array, beside)
        write_text(beside / META, wanted.model_dump_json(indent=1))

    return made_once(f"{meta.fingerprint}-{description}", link)


def fingerprint_in(name: str) -> str:
    """The fingerprint in the name of a cache folder."""
    return name.partition("-")[0]


def is_whole(folder: Path) -> bool:
    """Whether a folder named by a fingerprint is a readable, complete cache of that data set."""
    try:
        return open_cached(folder).fingerprint == fingerprint_in(folder.name)
    except DataError:
        return False


def open_cached(folder: Path) -> Faces:
    """Open a folder that `prepare` returned. Images are memory-mapped, read-only.

    Raises:
        DataError: the folder is not such a cache, or is damaged.
    """
    faces = open_with_all_soft_labels(folder)
    return replace(faces, val=replace(faces.val, soft_labels=None))


def open_with_all_soft_labels(folder: Path) -> Faces:
    """As `open_cached`, but with the soft labels of val too: folds train on them."""
    try:
        meta = _read_meta(folder)
        train, val, test = (_open_split(folder, name, meta) for name in SPLITS)
        mean_image = _load(folder / _MEAN_IMAGE, "float32", train.images.shape[1:])
    except FileNotFoundError as error:
        raise _unusable(folder, f"not a cache of faces: {Path(error.filename).name} missing") from error
    except ValidationError as error:
        raise _unusable(folder, f"not a cache of faces of this version ({META} differs)") from error
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise _unusable(folder, f"damaged cache of faces: {error}") from error
    return Faces(
        name=meta.name,
        fingerprint=meta.fingerprint,
        classes=meta.classes,
        train=train,
        val=val,
        test=test,
        synthetic=meta.synthetic,
        notes=meta.notes,
        stored_mean=mean_image,
    )


def write_faces(faces: Faces, folder: Path) -> None:
    """Write faces into an empty folder. Each file is fsynced; meta.json is the last."""
    for split in faces.splits:
        for what, array in _arrays(split).items():
            _save(folder / f"{split.name}_{what}.npy", array)
    _save(folder / _MEAN_IMAGE, faces.stored_mean if faces.stored_mean is not None else mean_of(faces.train.images))
    meta = _Meta(
        name=faces.name,
        fingerprint=faces.fingerprint,
        classes=faces.classes,
        lengths={split.name: len(split) for split in faces.splits},
        grey_levels="uint8" if faces.train.images.dtype == np.uint8 else "float32",
        soft_labels=tuple(split.name for split in faces.splits if split.soft_labels is not None),
        leaked=tuple(split.name for split in faces.splits if split.leaked is not None),
        synthetic=faces.synthetic,
        notes=faces.notes,
    )
    write_text(folder / META, meta.model_dump_json(indent=1))


def write_text(path: Path, text: str) -> None:
    """Write and fsync a text file."""
    write_synced(path, lambda file: file.write(text.encode()))


def _read_meta(folder: Path) -> _Meta:
    return _Meta.model_validate_json((folder / META).read_bytes())


def _arrays(split: Split) -> dict[str, NDArray[Any]]:
    optional = {"soft_labels": split.soft_labels, "leaked": split.leaked}
    return {
        "images": split.images,
        "labels": split.labels,
        **{what: array for what, array in optional.items() if array is not None},
    }


def _unusable(folder: Path, what: str) -> DataError:
    return DataError(f"{folder}: {what}; prepare the source again, which rebuilds it")


def _move_into_place(beside: Path, folder: Path) -> None:
    if folder.exists():
        damaged = Path(tempfile.mkdtemp(prefix=".damaged.", dir=folder.parent))
        folder.replace(damaged)
        shutil.rmtree(damaged, ignore_errors=True)
    beside.replace(folder)
    sync_folder(folder.parent)


def _save(path: Path, array: NDArray[Any]) -> None:
    write_synced(path, lambda file: np.save(file, array, allow_pickle=False))


def _open_split(folder: Path, name: str, meta: _Meta) -> Split:
    n, classes = meta.lengths[name], len(meta.classes)
    images_file = folder / f"{name}_images.npy"
    height, width = np.load(images_file, mmap_mode="r", allow_pickle=False).shape[1:]
    soft, leaked = folder / f"{name}_soft_labels.npy", folder / f"{name}_leaked.npy"
    return Split(
        name,
        images=_load(images_file, meta.grey_levels, (n, height, width), mapped=True),
        labels=_load(folder / f"{name}_labels.npy", "uint8", (n,)),
        soft_labels=_load(soft, "float32", (n, classes)) if name in meta.soft_labels else None,
        leaked=_load(leaked, "bool", (n,)) if name in meta.leaked else None,
    )


def _load(path: Path, dtype: str, shape: tuple[int, ...], *, mapped: bool = False) -> NDArray[Any]:
    """Load an array that must have this type and shape. Raises ValueError if it does not, or is truncated."""
    array: NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{path.name} holds {array.dtype} {array.shape}, expected {dtype} {shape}")
    return array
