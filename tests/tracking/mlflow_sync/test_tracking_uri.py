"""Where records go: what is asked for, recorded and found again, shown without passwords, refused where it cannot be."""

from pathlib import Path

import pytest

from tracking.errors import TrackingError
from tracking.mlflow_sync.default_store import default_uri, sqlite_path, sqlite_uri
from tracking.mlflow_sync.uri import ignored_environment, recordable, resolve_tracking_uri


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("URI", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)


def test_what_is_asked_for_comes_first_then_the_record_then_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_tracking_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://team:5000")
    assert resolve_tracking_uri(None, tmp_path) == "http://team:5000"
    assert resolve_tracking_uri(None, tmp_path, "http://old:5000") == "http://old:5000"
    assert resolve_tracking_uri(None, tmp_path, "default") == f"sqlite:///{tmp_path}/mlflow.db"
    assert resolve_tracking_uri("http://mine", tmp_path, "http://old:5000") == "http://mine"


def test_the_store_beside_the_sweeps_is_recorded_by_that_and_others_as_they_are(tmp_path: Path) -> None:
    assert recordable(default_uri(tmp_path), tmp_path) == "default"
    assert recordable("http://team:5000", tmp_path) == "http://team:5000"
    asked = resolve_tracking_uri("sqlite:///mine.db", tmp_path / "runs")
    assert asked == f"sqlite:///{tmp_path}/mine.db", "it is found from any working directory"
    assert recordable(resolve_tracking_uri("sqlite:///mlflow.db", tmp_path), tmp_path) == "default"


def test_a_password_is_taken_again_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = recordable("http://ann:se%40cret@team:5000", tmp_path)
    with pytest.raises(TrackingError, match=r"http://ann:…@team:5000, .* set MLFLOW_TRACKING_PASSWORD"):
        resolve_tracking_uri(None, tmp_path, recorded)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "n@w")
    assert resolve_tracking_uri(None, tmp_path, recorded) == "http://ann:n%40w@team:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "bob")
    assert resolve_tracking_uri(None, tmp_path, recorded) == "http://bob:n%40w@team:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://eve:own@team:5000/")
    assert resolve_tracking_uri(None, tmp_path, recorded) == "http://eve:own@team:5000/"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://eve:own@other:5000")
    assert resolve_tracking_uri(None, tmp_path, recorded) == "http://bob:n%40w@team:5000", "never told to another"


def test_an_environment_that_names_another_place_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ignored_environment("http://team:5000") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@team:5000/")
    assert ignored_environment("http://team:5000") is None
    note = ignored_environment(default_uri(tmp_path))
    assert note is not None
    assert "not in http://ann:…@team:5000/ (MLFLOW_TRACKING_URI)" in note


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("", "is empty"),
        ("127.0.0.1:5791", "did you mean http://127.0.0.1:5791?"),
        ("localhost:5000", "did you mean http://localhost:5000?"),
        ("ann:secret@team:5000", "'ann:…@team:5000': has no scheme; did you mean http://ann:…@team:5000?"),
        ("./mlruns", "no longer keeps its records in a folder of files"),
        ("file:///tmp/mlruns", "no longer keeps its records in a folder of files"),
        ("nonsense://ann:secret@x", "'nonsense://ann:…@x': MLflow knows no nonsense://"),
        ("postgres://h/db", "MLflow knows no postgres://"),
        ("http://", "not a server's address"),
        ("http://h:99999", "not a server's address"),
        ("http://ann:se#cret@h", "percent-encoded"),
        ("http://[h", "not a server's address"),
        ("http://h:5000/#/experiments/1", "of a page, not of the server; did you mean http://h:5000/?"),
        ("sqlite://mlflow.db", "names no file; write sqlite:///FILE.db"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///.", "is a folder; did you mean"),
        ("mysql+nonsense://h/db", "not a database's address"),
        ("mysql+oursql://h/db", "not a database's address"),
    ],
)
def test_what_can_never_work_is_refused_with_a_way_out(uri: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(TrackingError) as refusal:
        resolve_tracking_uri(uri, tmp_path)
    assert said in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_a_database_without_its_driver_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(TrackingError, match=r"psycopg.*pip install '\.\[serve\]'"):
        resolve_tracking_uri("postgresql+psycopg://ann:secret@h/db", tmp_path)


def test_a_folder_of_files_is_taken_where_mlflow_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert resolve_tracking_uri("./mlruns", tmp_path) == (tmp_path / "mlruns").as_uri()


@pytest.mark.parametrize("name", ["plain", "a b", "a?b", "a%b", "a%20b", "a#b", "ü中", "a&b=c"])
def test_a_file_of_any_name_has_a_uri(name: str, tmp_path: Path) -> None:
    path = tmp_path / name / "mlflow.db"
    assert sqlite_path(sqlite_uri(path)) == path
