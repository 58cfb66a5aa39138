"""One memory-mapped copy of each data set per machine. A copy is found again without reading its source.

$FER_CACHE or ~/.cache/fer-sweeps/
    <fingerprint>/        a data set, or a subset of one (fer_data.cache.cache_folder)
    sources/<hash>.json   for a source and the options with which it was read: the folder of the result, and the
                          source's size and modification time then (for a folder, those of all files in it)
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from fer_common.files import cache_path
from fer_common.frozen import Frozen
from fer_data.cache.cache_folder import is_whole, keep, open_cached, open_with_all_soft_labels, write_text
from fer_data.cache.subsets import take_subsets
from fer_data.faces import DataError, Faces
from fer_data.options import DataOptions
from fer_data.sources import synthetic
from fer_data.sources.gather import given_name, printable
from fer_data.sources.read_source import read_source

__all__ = ["open_cached", "prepare"]

_READING = {"resize", "resize_method", "labels", "skip_bad"}
_VIEWS = {"classes", "fold", "folds", "fold_seed", "dedupe", "limit_train", "limit_seed"}
_UNSTABLE = {"lock.mdb"}  # LMDB's lock changes with every reader


class _Record(Frozen):
    """A request (`wanted`), the size and time of its source (`origin`), and the name of the resulting folder.

    Increase `format` whenever a source is read differently than before; other notes count too.
    """

    format: Literal[3] = 3
    wanted: str
    origin: str
    folder: str

    def place(self) -> Path:
        return cache_path("sources") / f"{_hash(self.wanted)}.json"


def prepare(source: DataOptions | str | Path | None) -> Path:
    """The cache folder of a source, or of the requested subset of it. It is made if it does not exist.

    Args:
        source: the options, or only a file or a folder; None or "synthetic" for the synthetic faces.

    Raises:
        DataError: the source is faulty, the subset does not fit it, or the cache cannot be written.
    """
    options = source if isinstance(source, DataOptions) else DataOptions(source=None if source is None else str(source))
    try:
        folder = _converted(options)
        if not options.has_subset:
            return folder
        wanted = json.dumps([folder.name, options.model_dump(mode="json", include=_VIEWS)])
        return _made(wanted, folder.name, lambda: take_subsets(open_with_all_soft_labels(folder), options))
    except OSError as error:
        way_out = "set FER_CACHE to a writable folder with 200 MB of space"
        raise DataError(f"cannot write the cache of faces: {error}; {way_out}") from error


def _converted(options: DataOptions) -> Path:
    origins = [Path(name) for name in (options.source or synthetic.__file__, options.ferplus) if name is not None]
    looks = [_look(path) for path in origins]
    names = [given_name(path) for path in origins]
    wanted = json.dumps([*map(_resolved, origins), *names, options.model_dump(mode="json", include=_READING)])
    origin = None if None in looks else json.dumps(looks)
    return _made(wanted, origin, lambda: read_source(options))


def _made(wanted: str, origin: str | None, make: Callable[[], Faces]) -> Path:
    """The folder for a request: the recorded one if the origin has not changed since, otherwise a new one.

    An origin of None means that the source cannot be examined. `make` is then called, which explains why, and nothing
    is recorded.
    """
    sought = _Record(wanted=wanted, origin=origin or "", folder="")
    recorded = _recorded(sought.place())
    if origin and recorded and recorded.model_copy(update={"folder": ""}) == sought:
        folder = cache_path() / recorded.folder
        if is_whole(folder):
            return folder
    folder = keep(make())
    if origin:
        _write_record(sought.model_copy(update={"folder": folder.name}))
    return folder


def _recorded(place: Path) -> _Record | None:
    try:
        return _Record.model_validate_json(place.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _write_record(record: _Record) -> None:
    handle, beside = tempfile.mkstemp(prefix=".", dir=cache_path("sources"))
    os.close(handle)
    write_text(Path(beside), record.model_dump_json(indent=1))
    Path(beside).replace(record.place())


def _look(path: Path) -> str | None:
    """The size and time of a file, or a hash over a folder. None if it cannot be examined: its reader explains why."""
    try:
        status = path.stat()
        if path.is_dir():
            return _hash("\n".join(sorted(_listing(path.resolve(), set()))))
    except (OSError, RuntimeError):
        return None
    return f"{status.st_size} {status.st_mtime_ns}"


def _listing(folder: Path, seen: set[Path]) -> Iterator[str]:
    """The name, size and modification time of each file below a folder. Follows links, but lists no folder twice."""
    seen.add(folder)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                below = Path(entry.path).resolve()
                yield f"{printable(entry.path)}/"
                yield from _listing(below, seen) if below not in seen else ()
            elif entry.name not in _UNSTABLE:
                status = entry.stat(follow_symlinks=Path(entry.path).exists())
                yield f"{printable(entry.path)} {status.st_size} {status.st_mtime_ns}"


def _resolved(path: Path) -> str:
    try:
        return printable(str(path.resolve()))
    except (OSError, RuntimeError):  # circular links
        return printable(str(path))


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
