"""A preprocessed data set in its own cache folder, beside that of the original."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from fer_common.files import cache_path
from fer_data.augmentation.preprocess_names import known_preprocessing
from fer_data.cache.cache_folder import called, is_whole, keep, open_with_all_soft_labels
from fer_data.faces import SPLITS, DataError, Faces, Split

# Increase it whenever a preprocessing gives other values than before; those without an entry have version 1.
_VERSIONS = {"standardise_int64": 2}

_CHUNK = 512  # images per task


def preprocessed(folder: Path, name: str) -> Path:
    """The cache folder of a preprocessed data set. Unless it exists, it is made on all cores.

    val and test are preprocessed like train; `mean_image` subtracts the mean image of train everywhere. If several
    processes need it at once, one makes it and the others wait.

    Args:
        folder: of the data set as `prepare` returned it, with uint8 images.
        name: one of PREPROCESSINGS; "none" returns `folder` itself.

    Raises:
        DataError: unknown preprocessing, `folder` is not such a cache, or the cache cannot be written.
    """
    if known_preprocessing(name) == "none":
        return folder
    faces = open_with_all_soft_labels(folder)
    content = f"{faces.fingerprint} preprocess {name} {_VERSIONS.get(name, 1)}"
    fingerprint = hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
    try:
        place = cache_path() / fingerprint
        if not is_whole(place):
            with (cache_path("sources") / ".preprocess.lock").open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not is_whole(place):
                    _make(folder, faces, name, fingerprint)
        return called(place, faces.name, _notes(faces, name), synthetic=faces.synthetic)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        size = 4 * sum(split.images.size for split in faces.splits) / 2**20
        way_out = f"set FER_CACHE to a writable folder with {2 * size + 100:,.0f} MB of space"
        raise DataError(f"cannot write the cache of faces: {error}; {way_out}") from error


def _make(folder: Path, faces: Faces, name: str, fingerprint: str) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{fingerprint}.", dir=cache_path()) as scratch:
        train, val, test = _all_splits(folder, faces, name, Path(scratch))
        keep(
            replace(
                faces,
                fingerprint=fingerprint,
                train=train,
                val=val,
                test=test,
                notes=_notes(faces, name),
                stored_mean=train.images.mean(axis=0, dtype=np.float64).astype(np.float32),
            )
        )


def _notes(faces: Faces, name: str) -> tuple[str, ...]:
    return (*faces.notes, f"preprocessed: {name}")


def _all_splits(folder: Path, faces: Faces, name: str, scratch: Path) -> list[Split]:
    """Preprocess all splits into files in `scratch`, in several processes."""
    from joblib import Parallel, cpu_count, delayed

    for split in faces.splits:
        _reserve(scratch / f"{split.name}.npy", split.images.shape)
    tasks = [
        delayed(_fill)(folder, split_index, name, scratch, start)
        for split_index, split in enumerate(faces.splits)
        for start in range(0, len(split), _CHUNK)
    ]
    # A data set of up to three tasks is done before another process has started.
    Parallel(n_jobs=min(cpu_count(), max(1, len(tasks) // 3)))(tasks)
    return [replace(split, images=np.load(scratch / f"{split.name}.npy", mmap_mode="r")) for split in faces.splits]


def _reserve(path: Path, shape: tuple[int, ...]) -> None:
    np.lib.format.open_memmap(path, "w+", np.float32, shape)
    with path.open("r+b") as file:  # on a full disk this raises; writing a mapped page would crash
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _fill(folder: Path, split_index: int, name: str, scratch: Path, start: int) -> None:
    """Preprocess `_CHUNK` images of a split from `start` on. Any process may do this."""
    from fer_data.augmentation.preprocess import preprocess

    faces = open_with_all_soft_labels(folder)
    split = faces.splits[split_index]
    result = np.load(scratch / f"{SPLITS[split_index]}.npy", mmap_mode="r+")
    end = start + _CHUNK
    result[start:end] = preprocess(split.images[start:end], name, faces.mean_image())
