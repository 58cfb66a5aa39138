"""One memory-mapped copy of each data set a machine.

    $FER_CACHE or ~/.cache/fer-sweeps/
        <fingerprint>/        meta.json, mean_image.npy, {train,val,test}_{images,labels}.npy
        sources/<hash>.json   which fingerprint a source (path, size, time of change) was converted to

A copy is written beside and moved into place only when it is complete, so whatever stands under a fingerprint
is whole, and processes that convert the same source at once do not disturb each other.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from fer_data import fer2013, synthetic
from fer_data.faces import EXPRESSIONS, SPLITS, DataError, Faces, MeanImage, Split, fingerprint_of, mean_of

Number = TypeVar("Number", np.uint8, np.float32)

_META = "meta.json"
_MEAN_IMAGE = "mean_image.npy"


class _Meta(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    name: str
    fingerprint: str
    classes: tuple[str, ...]
    lengths: dict[str, int]
    synthetic: bool
    notes: tuple[str, ...]


class _Source(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    bytes: int
    mtime_ns: int
    fingerprint: str = ""

    def record(self, root: Path) -> Path:
        return root / "sources" / f"{hashlib.blake2b(self.path.encode(), digest_size=8).hexdigest()}.json"


def prepare(source: str | Path | None) -> Path:
    """Return the cache folder of a source, converting it if that was not done before.

    Args:
        source: a FER2013 csv; None or "synthetic" for the built-in synthetic faces.

    Raises:
        DataError: the source is wrong, or the cache cannot be written.
    """
    path = None if source in (None, "synthetic") else Path(str(source))
    try:
        root = _cache_root()
        seen = _look(path or Path(synthetic.__file__))
        folder = _already_converted(root, seen) if seen else None
        if folder is None:
            faces = _csv_faces(path) if path else _synthetic_faces()
            folder = _store(faces, root)
            if seen:
                _write_record(seen.model_copy(update={"fingerprint": faces.fingerprint}), root)
        return folder
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        way_out = "set FER_CACHE to a writable folder with 200 MB of space"
        raise DataError(f"cannot write the cache of faces: {error}; {way_out}") from error


def open_cached(folder: Path) -> Faces:
    """Open a folder that `prepare` returned, images and labels memory-mapped read-only.

    Raises:
        DataError: the folder is not such a cache, or is damaged.
    """
    try:
        meta = _Meta.model_validate_json((folder / _META).read_bytes())
        train, val, test = (_open_split(folder, name, meta.lengths[name]) for name in SPLITS)
        mean_image: MeanImage = _load(folder / _MEAN_IMAGE, np.float32, train.images.shape[1:])
    except FileNotFoundError as error:
        raise _unusable(folder, f"not a cache of faces: {Path(error.filename).name} missing") from error
    except ValidationError as error:
        raise _unusable(folder, f"not a cache of faces of this version ({_META} differs)") from error
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


def _unusable(folder: Path, what: str) -> DataError:
    return DataError(f"{folder}: {what}; prepare the source again, which makes it anew")


def _cache_root() -> Path:
    given = os.environ.get("FER_CACHE")
    root = Path(given).expanduser() if given else Path.home() / ".cache" / "fer-sweeps"
    (root / "sources").mkdir(parents=True, exist_ok=True)
    return root.resolve()


def _look(path: Path) -> _Source | None:
    """Return how a source looks now; None where it cannot be looked at, which its reader will explain."""
    try:
        resolved = path.resolve(strict=True)
        status = resolved.stat()
    except (OSError, RuntimeError):
        return None
    return _Source(path=_printable(str(resolved)), bytes=status.st_size, mtime_ns=status.st_mtime_ns)


def _printable(name: str) -> str:
    """Return a file's name as text that JSON can hold, even where its bytes are no UTF-8."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _already_converted(root: Path, seen: _Source) -> Path | None:
    try:
        recorded = _Source.model_validate_json(seen.record(root).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    folder = root / recorded.fingerprint
    same_source = recorded == seen.model_copy(update={"fingerprint": recorded.fingerprint})
    return folder if same_source and _is_whole(folder, recorded.fingerprint) else None


def _is_whole(folder: Path, fingerprint: str) -> bool:
    try:
        return open_cached(folder).fingerprint == fingerprint
    except DataError:
        return False


def _csv_faces(path: Path) -> Faces:
    splits = fer2013.read_csv(path)
    fingerprint = fingerprint_of(splits)
    notes = fer2013.differences_from_official(splits, fingerprint)
    train, val, test = splits
    name = _printable(path.stem) if notes else "FER2013"
    return Faces(name, fingerprint, EXPRESSIONS, train, val, test, synthetic=False, notes=notes)


def _synthetic_faces() -> Faces:
    train, val, test = splits = synthetic.draw_splits()
    return Faces("synthetic faces", fingerprint_of(splits), EXPRESSIONS, train, val, test, synthetic=True)


def _store(faces: Faces, root: Path) -> Path:
    """Write the faces beside their place and move them there; a whole copy that is there already is kept."""
    folder = root / faces.fingerprint
    if _is_whole(folder, faces.fingerprint):
        return folder
    beside = Path(tempfile.mkdtemp(prefix=f".{faces.fingerprint}.", dir=root))
    try:
        _write(faces, beside)
        with (root / "sources" / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_whole(folder, faces.fingerprint):
                _move_into_place(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _move_into_place(beside: Path, folder: Path) -> None:
    if folder.exists():
        damaged = Path(tempfile.mkdtemp(prefix=".damaged.", dir=folder.parent))
        folder.replace(damaged)
        shutil.rmtree(damaged, ignore_errors=True)
    beside.replace(folder)
    _sync(folder.parent)


def _write(faces: Faces, folder: Path) -> None:
    splits = (faces.train, faces.val, faces.test)
    for split in splits:
        _save(folder / f"{split.name}_images.npy", split.images)
        _save(folder / f"{split.name}_labels.npy", split.labels)
    _save(folder / _MEAN_IMAGE, mean_of(faces.train.images))
    meta = _Meta(
        name=faces.name,
        fingerprint=faces.fingerprint,
        classes=faces.classes,
        lengths={split.name: len(split) for split in splits},
        synthetic=faces.synthetic,
        notes=faces.notes,
    )
    _write_text(folder / _META, meta.model_dump_json(indent=1))
    _sync(folder)


def _write_record(source: _Source, root: Path) -> None:
    handle, beside = tempfile.mkstemp(prefix=".", dir=root / "sources")
    os.close(handle)
    _write_text(Path(beside), source.model_dump_json(indent=1))
    Path(beside).replace(source.record(root))


def _save(path: Path, array: NDArray[np.uint8] | NDArray[np.float32]) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _open_split(folder: Path, name: str, length: int) -> Split:
    images_file = folder / f"{name}_images.npy"
    height, width = np.load(images_file, mmap_mode="r", allow_pickle=False).shape[1:]
    images = _load(images_file, np.uint8, (length, height, width), mapped=True)
    return Split(name, images, _load(folder / f"{name}_labels.npy", np.uint8, (length,)))


def _load(path: Path, dtype: type[Number], shape: tuple[int, ...], *, mapped: bool = False) -> NDArray[Number]:
    """Load an array that must be of this type and shape; ValueError if it is not, or is cut short."""
    array: NDArray[Number] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{path.name} holds {array.dtype} {array.shape}, expected {dtype.__name__} {shape}")
    return array
