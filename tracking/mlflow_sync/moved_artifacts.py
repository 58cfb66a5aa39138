"""Artifacts of a store that was moved: MLflow stores absolute paths, which then name the old folder."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

ARTIFACTS = "mlartifacts"
"""Folder beside the default store: one folder per experiment."""

_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_BUSY_SECONDS = 20


def follow_artifacts(store: Path) -> str | None:
    """Change the paths in a SQLite store whose artifacts were moved with it. Returns a line about the changes, or None.

    Paths that this program did not make, and runs whose artifacts exist only in the old folder, do not change.

    Raises:
        sqlite3.Error: the store refused the change.
    """
    with closing(sqlite3.connect(store, timeout=_BUSY_SECONDS)) as connection, connection:
        moved = list(_moved(connection, store.resolve().parent))
        for old, new in moved:
            for table, column in _PLACES:
                _replace(connection, table, column, old, new)
    if not moved:
        return None
    root = _path(moved[0][0].rpartition(f"/{ARTIFACTS}/")[0])
    return f"the sweeps were moved from {root}: MLflow now looks for their artifacts in {store.parent / ARTIFACTS}"


def _moved(connection: sqlite3.Connection, folder: Path) -> Iterator[tuple[str, str]]:
    """Old and new path of each experiment whose artifacts were moved."""
    if not (folder / ARTIFACTS).is_dir():
        return
    places = "SELECT artifact_location FROM experiments WHERE artifact_location LIKE 'file:///%'"
    for (old,) in connection.execute(places):
        # The experiment may have another name than the folder: a person can rename it.
        _, within, name = old.rpartition(f"/{ARTIFACTS}/")
        new = f"{(folder / ARTIFACTS).as_uri()}/{name}"
        if old == new or not within:
            continue
        here, there = _path(new), _path(old)
        if not there.exists() or (here.is_dir() and not here.samefile(there)):
            yield old, new


def _replace(connection: sqlite3.Connection, table: str, column: str, old: str, new: str) -> None:
    rows = connection.execute(
        f"SELECT rowid, {column} FROM {table} WHERE {column} = ? OR substr({column}, 1, ?) = ?",
        (old, len(old) + 1, f"{old}/"),
    ).fetchall()
    for row, place in rows:
        its_new = new + place[len(old) :]
        if place == old or _path(its_new).exists() or not _path(place).exists():
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (its_new, row))


def _path(uri: str) -> Path:
    return Path(unquote(uri.removeprefix("file://")))
