"""The store beside the sweeps, moved with them, copied, and in folders of any name, on real SQLite."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.tracking._tracking_service import utils

from tests.tracking.small_sweep import SWEEP_ID, Stored, Sweep
from tracking.mlflow_sync.default_store import default_path, default_uri
from tracking.mlflow_sync.sink import MlflowSink
from tracking.mlflow_sync.upkeep import find_mlflow_run, log_file, opened
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder

pytestmark = pytest.mark.timeout(120)


def sweep_in(out: Path, empty_store: Path) -> Sweep:
    """A whole sweep, in MLflow too."""
    out.mkdir()
    shutil.copy(empty_store, default_path(out))
    with closing(sqlite3.connect(default_path(out))) as connection:
        connection.executescript("DELETE FROM experiment_tags; DELETE FROM experiments WHERE name != 'Default'")
    sweep = Sweep(SweepFolder(out / "night"))
    (sweep.folder.trial(1).create().curves).write_bytes(b"curves")
    sweep.whole()
    send(out, pytest.fail)
    return sweep


@pytest.fixture
def here(tmp_path: Path, empty_store: Path) -> Path:
    sweep_in(tmp_path / "here", empty_store)
    return tmp_path / "here"


def send(out: Path, on_warning: Callable[[str], object]) -> None:
    journal = out / "night/journal.jsonl"
    MlflowSink(journal, tracking_uri=default_uri(out), out=out, on_warning=on_warning).sync()  # type: ignore[arg-type]


def moved(here: Path) -> Path:
    """`mv here there`, looked at by a new process: MLflow's client remembers the places of a process's runs."""
    utils._artifact_repos_cache.clear()
    return here.rename(here.with_name("there"))


def places(out: Path) -> set[object]:
    """Every place of an artifact that a store has, without what is the same in all."""
    stored = Stored(default_path(out))
    rows = stored.query("SELECT artifact_location FROM experiments UNION SELECT artifact_uri FROM runs")
    return {str(place).partition("/mlartifacts")[0] for (place,) in rows if "mlartifacts" in str(place)}


def files(out: Path) -> list[str]:
    """Artifacts of trial 1's run, as MLflow's page finds them."""
    with opened(default_uri(out)) as client:
        run_id = find_mlflow_run(client, SweepHistory.load(out / "night/journal.jsonl").started, 1)
        return [file.path for file in client.list_artifacts(run_id)]


def test_sweeps_moved_elsewhere_keep_their_artifacts_and_get_no_new_ones_at_the_old_place(here: Path) -> None:
    there = moved(here)
    warnings: list[str] = []
    send(there, warnings.append)
    assert warnings == [
        f"the sweeps were moved from {here}: MLflow now looks for their artifacts in {there / 'mlartifacts'}"
    ]
    assert places(there) == {there.as_uri()}
    assert files(there) == ["curves.png"]
    send(there, pytest.fail)
    assert not here.exists()


def test_artifacts_of_an_experiment_that_a_person_renamed_are_followed(here: Path) -> None:
    client = MlflowClient(default_uri(here))
    (experiment,) = [one for one in client.search_experiments() if one.name == "lenet_space"]
    client.rename_experiment(experiment.experiment_id, "mine")
    there = moved(here)
    send(there, lambda _: None)
    assert places(there) == {there.as_uri()}
    assert files(there) == ["curves.png"]


def test_a_verb_that_logs_a_file_follows_them_too(here: Path, tmp_path: Path) -> None:
    there = moved(here)
    page = tmp_path / "page.html"
    page.write_text("page")
    with opened(default_uri(there)) as client:
        log_file(client, find_mlflow_run(client, SweepHistory.load(there / "night/journal.jsonl").started, 1), page)
    assert files(there) == ["curves.png", "page.html"]
    assert not here.exists()


def test_a_copy_has_its_own_artifacts_and_leaves_the_original_alone(here: Path) -> None:
    copy = here.with_name("copy")
    shutil.copytree(here, copy)
    send(copy, lambda _: None)
    assert (places(here), places(copy)) == ({here.as_uri()}, {copy.as_uri()})


def test_what_grew_at_the_old_place_is_still_found_there(here: Path) -> None:
    there = here.with_name("there")
    shutil.copytree(here, there)
    for grown in there.glob("mlartifacts/lenet_space/*"):
        if (grown / "artifacts/curves.png").exists():
            shutil.rmtree(grown)
    send(there, lambda _: None)
    assert places(there) == {here.as_uri(), there.as_uri()}
    assert files(there) == ["curves.png"]


def test_a_link_to_the_folder_is_no_move(here: Path) -> None:
    here.with_name("link").symlink_to(here)
    send(here.with_name("link"), pytest.fail)
    assert places(here) == {here.as_uri()}


@pytest.mark.parametrize("name", ["a?b", "100%", "a%20b", "a#b c", "übung 中", "a&b=c;d"])
def test_a_folder_of_any_name_has_its_store_and_artifacts_within(name: str, tmp_path: Path, empty_store: Path) -> None:
    out = tmp_path / name
    sweep = sweep_in(out, empty_store)
    assert Stored(default_path(out)).points() == sweep.points
    assert files(out) == ["curves.png"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_new_store_is_made_in_a_folder_of_an_odd_name(tmp_path: Path) -> None:
    out = tmp_path / "a?b%20c"
    sweep = Sweep(SweepFolder(out / "night"))
    sweep.whole()
    send(out, pytest.fail)
    assert f"{SWEEP_ID}/1" in Stored(default_path(out)).runs()
    assert MlflowClient(default_uri(out)).get_experiment_by_name("lenet_space") is not None
    assert [path.name for path in tmp_path.iterdir()] == ["a?b%20c"]
