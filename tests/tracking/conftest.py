"""MLflow stores and sinks for a small sweep."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.tracking.small_sweep import Stored, Sweep
from tracking.mlflow_sync.default_store import default_path, default_uri
from tracking.mlflow_sync.sink import MlflowSink
from tracking.record.layout import SweepFolder


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated store without sweeps: migrating takes seconds, copying milliseconds."""
    out = tmp_path_factory.mktemp("empty")
    sweep = Sweep(SweepFolder(out / "none"))
    sweep.start("unused")
    MlflowSink(sweep.folder.journal, tracking_uri=default_uri(out), out=out, on_warning=pytest.fail).sync()
    with closing(sqlite3.connect(default_path(out))) as connection:
        for table in ("tags", "runs"):
            connection.execute(f"DELETE FROM {table}")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what is copied below is the one file
    return default_path(out)


@pytest.fixture
def out(tmp_path: Path, empty_store: Path) -> Path:
    shutil.copy(empty_store, default_path(tmp_path))
    return tmp_path


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(SweepFolder(tmp_path / "night"))


@pytest.fixture
def stored(out: Path) -> Stored:
    return Stored(default_path(out))


@pytest.fixture
def new_sink(out: Path, sweep: Sweep) -> Callable[[], MlflowSink]:
    def make() -> MlflowSink:
        return MlflowSink(sweep.folder.journal, tracking_uri=default_uri(out), out=out, on_warning=pytest.fail)

    return make
