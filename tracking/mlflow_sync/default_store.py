"""MLflow's SQLite file in the folder of the sweeps: created atomically, and set aside only if it is damaged.

MLflow migrates a new file to its schema in many steps. If it is killed in between, it can never open the file again.
The steps take two seconds of processor time, so the cache keeps a migrated file without content, which is copied.
"""

import errno
import fcntl
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import psutil

from fer_common.files import cache_path

_LOCAL_FILE_SYSTEMS = {"apfs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"}
_OF_THE_FILE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_FILLED_BY_MLFLOW = ("alembic_version", "workspaces")
"""Tables to which MLflow's migrations add rows."""


@dataclass(frozen=True)
class OpenedStore:
    """The store's URI; the new name of a damaged one, and its fault."""

    uri: str
    set_aside: Path | None = None
    fault: str | None = None


def default_uri(out: Path) -> str:
    """Tracking URI of the store beside the sweeps in `out`."""
    return sqlite_uri(default_path(out))


def default_path(out: Path) -> Path:
    """File of the store beside the sweeps in `out`."""
    return out.resolve() / "mlflow.db"


def sqlite_uri(path: Path) -> str:
    """Tracking URI of a SQLite file.

    A path that must be quoted gets the driver's name: with a bare `sqlite:///` MLflow creates a folder with the quoted
    name.
    """
    if not any(character in str(path) for character in "%?"):
        return f"sqlite:///{path}"
    from sqlalchemy import URL

    return URL.create("sqlite+pysqlite", database=str(path)).render_as_string()


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite tracking URI. None if the URI is of another kind, or names no file."""
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///(?!:memory:|file:)([^?]+)(?:\?.*)?", uri)
    return Path(unquote(found[1])) if found else None


def open_default_store(path: Path, try_open: Callable[[str], object], mlflow_version: str) -> OpenedStore:
    """Make sure that `path` is a store that `try_open` can open by URI. It is that of this version of MLflow.

    A file that is not a database is renamed, and so is an empty store whose creation by MLflow was interrupted. Any
    other store stays where it is, whatever error `try_open` raises.

    Raises:
        Exception: any error of `try_open` or of the disk.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _one_process(path.with_name(path.name + ".lock")):
        if not path.exists() or path.stat().st_size == 0:
            _put_in_place(_made_beside(path, try_open, mlflow_version), path)
            return OpenedStore(sqlite_uri(path))
        fault = _fault(path, try_open)
        if fault is None:
            return OpenedStore(sqlite_uri(path))
        beside = _made_beside(path, try_open, mlflow_version)
        set_aside = path.with_name(f"{path.name}.unreadable-{datetime.now(UTC):%Y%m%dT%H%M%S}")
        for suffix in ("", "-wal", "-shm"):
            if (part := path.with_name(path.name + suffix)).exists():
                part.rename(set_aside.with_name(set_aside.name + suffix))
        _put_in_place(beside, path)
        # MLflow keeps connections by URI: with the old one it would continue in the file that is set aside.
        uri = sqlite_uri(path).removesuffix(path.name) + f"./{path.name}"
        return OpenedStore(uri, set_aside, fault)


def _fault(path: Path, try_open: Callable[[str], object]) -> str | None:
    """The fault of the file itself, or None."""
    try:
        # Checked first, since MLflow retries for minutes on a file that is not a database.
        is_empty = _is_empty(path)
    except sqlite3.Error as error:
        if error.sqlite_errorcode & 0xFF in _OF_THE_FILE:
            return f"is damaged ({error})"
        raise
    if is_empty and _is_open_elsewhere(path):
        raise BlockingIOError(errno.EBUSY, "another program is creating it", str(path))
    try:
        try_open(sqlite_uri(path))
    except Exception as error:
        if not is_empty or _is_busy(error):
            raise
        return "is incomplete"
    return None


def _is_empty(path: Path) -> bool:
    """Whether nothing was ever stored: MLflow creates its first experiment after all tables."""
    with closing(sqlite3.connect(path)) as connection:
        return not any(
            connection.execute(f'SELECT EXISTS (SELECT 1 FROM "{table}")').fetchone()[0]
            for table in _tables(connection)
            if table not in _FILLED_BY_MLFLOW
        )


def _tables(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]


def _is_open_elsewhere(path: Path) -> bool:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and any(file.path == str(path) for file in process.open_files()):
                return True
    return False


def _is_busy(error: BaseException | None) -> bool:
    """Whether the disk or another program is the cause."""
    while error is not None:
        if isinstance(error, OSError):
            return True
        if isinstance(error, sqlite3.Error) and hasattr(error, "sqlite_errorcode"):
            return error.sqlite_errorcode & 0xFF not in {sqlite3.SQLITE_ERROR, *_OF_THE_FILE}
        error = error.__cause__ or error.__context__
    return False


def _made_beside(path: Path, try_open: Callable[[str], object], mlflow_version: str) -> Path:
    # Each has its own name, because MLflow keeps connections by URI.
    copied, migrated = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("copied", "new"))
    for beside in (copied, migrated):
        beside.unlink(missing_ok=True)
    try:
        shutil.copyfile(_cached(mlflow_version), copied)
        if _is_empty(copied):  # raises for a damaged file, on which MLflow retries for minutes
            try_open(sqlite_uri(copied))
            return copied
    except Exception:  # there is none yet, or it is damaged or of another schema: what MLflow migrates replaces it
        pass
    copied.unlink(missing_ok=True)
    try_open(sqlite_uri(migrated))
    with suppress(OSError, sqlite3.Error):
        _keep_migrated(migrated, _cached(mlflow_version))
    return migrated


def _cached(mlflow_version: str) -> Path:
    return cache_path("mlflow") / f"migrated-{mlflow_version}.db"


def _keep_migrated(store: Path, kept: Path) -> None:
    """Copy a new store without the experiment that MLflow has made in it, whose folder is for this store alone."""
    with tempfile.TemporaryDirectory(prefix=".", dir=kept.parent) as scratch:
        emptied = Path(scratch) / kept.name
        with closing(sqlite3.connect(store)) as source, closing(sqlite3.connect(emptied)) as target:
            source.backup(target)
            for table in _tables(target):
                if table not in _FILLED_BY_MLFLOW:
                    target.execute(f'DELETE FROM "{table}"')
            target.commit()
        emptied.replace(kept)


def _put_in_place(beside: Path, path: Path) -> None:
    beside.replace(path)
    _let_readers_and_writer_be(path)


def _let_readers_and_writer_be(path: Path) -> None:
    """Turn on write-ahead logging: readers do not block the writer, and a commit is one fsync instead of four.

    This is done only on a local disk. The log uses shared memory, so a reader on another machine would see an
    inconsistent store.
    """
    if _file_system(path) not in _LOCAL_FILE_SYSTEMS:
        return
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


def _file_system(path: Path) -> str:
    """Type of the file system that `path` is on, as mount(8) names it."""
    around = [mount for mount in psutil.disk_partitions(all=True) if path.resolve().is_relative_to(mount.mountpoint)]
    nearest = max(reversed(around), key=lambda mount: len(mount.mountpoint), default=None)  # the last one counts
    return nearest.fstype if nearest else "unknown"


@contextmanager
def _one_process(lock: Path) -> Iterator[None]:
    with lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
