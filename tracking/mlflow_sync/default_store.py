"""MLflow's SQLite file beside the sweeps: made whole or not at all, set aside when it cannot be read.

MLflow brings a new file to its schema in many steps; a kill among them leaves one that it never opens again.
"""

import fcntl
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import psutil

_LOCAL_FILE_SYSTEMS = {"apfs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"}
_OF_THE_MACHINE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
}
"""Faults that pass or that a person mends; the file itself may be sound."""


@dataclass(frozen=True)
class OpenedStore:
    """Where the store is to be opened, and what an unreadable one was renamed to."""

    uri: str
    set_aside: Path | None


def default_uri(out: Path) -> str:
    """Tracking URI of the store beside the sweeps in `out`."""
    return sqlite_uri(default_path(out))


def default_path(out: Path) -> Path:
    """File of the store beside the sweeps in `out`."""
    return out.resolve() / "mlflow.db"


def sqlite_uri(path: Path) -> str:
    """Tracking URI of a SQLite file.

    One that must be quoted is named with its driver: after a bare `sqlite:///` MLflow makes a folder of the quoted
    name.
    """
    if not any(character in str(path) for character in "%?"):
        return f"sqlite:///{path}"
    from sqlalchemy import URL

    return URL.create("sqlite+pysqlite", database=str(path)).render_as_string()


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite tracking URI; None where the URI is another's, or names no file."""
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///(?!:memory:|file:)([^?]+)(?:\?.*)?", uri)
    return Path(unquote(found[1])) if found else None


def open_default_store(path: Path, try_open: Callable[[str], object]) -> OpenedStore:
    """Make sure that a store stands at `path` that `try_open` can open by URI.

    Raises:
        Exception: whatever `try_open` or the disk says, when the file itself is not at fault.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _one_process(path.with_name(path.name + ".lock")):
        if path.exists() and path.stat().st_size > 0:
            uri = f"sqlite:///{path}"
            if _opens(path, uri, try_open):
                return OpenedStore(uri, None)
            set_aside = path.with_name(f"{path.name}.unreadable-{datetime.now(UTC):%Y%m%dT%H%M%S}")
            for suffix in ("", "-wal", "-shm"):
                if (part := path.with_name(path.name + suffix)).exists():
                    part.rename(set_aside.with_name(set_aside.name + suffix))
            _make(path, try_open)
            # MLflow keeps connections by URI: under the old one it would go on in the file set aside.
            return OpenedStore(f"sqlite:///{path.parent}/./{path.name}", set_aside)
        _make(path, try_open)
        return OpenedStore(f"sqlite:///{path}", None)


def _opens(path: Path, uri: str, try_open: Callable[[str], object]) -> bool:
    try:
        # Asked first because MLflow retries for minutes on a file that is no database.
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")
        try_open(uri)
    except Exception as error:
        if isinstance(error, OSError) or _is_of_the_machine(error):
            raise
        return False
    return True


def _is_of_the_machine(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, sqlite3.Error) and hasattr(error, "sqlite_errorcode"):
            return error.sqlite_errorcode & 0xFF in _OF_THE_MACHINE
        error = error.__cause__ or error.__context__
    return False


def _make(path: Path, try_open: Callable[[str], object]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    beside.unlink(missing_ok=True)
    try_open(f"sqlite:///{beside}")
    beside.replace(path)
    _let_readers_and_writer_be(path)


def _let_readers_and_writer_be(path: Path) -> None:
    """Write-ahead logging: who looks never waits for who writes, and a commit is one sync of the disk, not four.

    Only on a disk of this machine: it shares memory, so a reader on another machine would see a torn store.
    """
    if _file_system(path) not in _LOCAL_FILE_SYSTEMS:
        return
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


def _file_system(path: Path) -> str:
    """Type of the file system that holds `path`, as mount(8) names it."""
    around = [mount for mount in psutil.disk_partitions(all=True) if path.resolve().is_relative_to(mount.mountpoint)]
    nearest = max(reversed(around), key=lambda mount: len(mount.mountpoint), default=None)  # the last one hides others
    return nearest.fstype if nearest else "unknown"


@contextmanager
def _one_process(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
