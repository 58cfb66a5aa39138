"""MLflow stores and sinks for a small sweep."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow import __version__ as mlflow_version

from tests.tracking.small_sweep import Stored, Sweep
from tracking.mlflow_sync.default_store import default_path, default_uri, open_default_store
from tracking.mlflow_sync.sink import MlflowSink
from tracking.record.layout import SweepFolder


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow opens a new store in a twentieth of a second; some tests copy it hundreds of times."""
    path = default_path(tmp_path_factory.mktemp("empty"))
    open_default_store(path, lambda uri: MlflowClient(uri).search_experiments(), mlflow_version)
    return path


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
