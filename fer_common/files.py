"""Writes files atomically; the cache is the folder for those that can be made again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Replace a file by what `write` writes: temporary file, fsync, rename, fsync of the folder.

    Raises:
        OSError: a disk error; an earlier file of that name stays.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        write_synced(beside, write)
        beside.replace(path)
        sync_folder(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_synced(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write and fsync a file. Raises OSError."""
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Fsync a folder, so that the names in it are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_path(part: str = "") -> Path:
    """The folder `part` of the cache, or the whole cache, which is $FER_CACHE or ~/.cache/fer-sweeps.

    The folder is created if necessary.

    Raises:
        OSError: it cannot be created, or there is no home folder.
    """
    given = os.environ.get("FER_CACHE")
    try:
        root = Path(given).expanduser() if given else Path.home() / ".cache" / "fer-sweeps"
    except RuntimeError as error:
        raise OSError(str(error)) from error
    (root / part).mkdir(parents=True, exist_ok=True)
    return (root / part).resolve()
