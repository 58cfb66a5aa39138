"""Dead drivers' runs, files of a whole sweep, models and champions, on a real SQLite store."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from safetensors.numpy import load_file, save_file

from tests.tracking.small_sweep import SWEEP_ID, Stored, Sweep
from tracking.errors import TrackingError
from tracking.metrics.significance import BoolArray
from tracking.mlflow_sync.default_store import default_uri
from tracking.mlflow_sync.models import (
    CHAMPION,
    Candidate,
    champions,
    fetch_files,
    log_model_folder,
    model_name,
    register,
    registered_models,
)
from tracking.mlflow_sync.sink import MlflowSink
from tracking.mlflow_sync.upkeep import close_runs, dead_runs, find_mlflow_run, log_file, open_client, opened
from tracking.record.events import AttemptStarted
from tracking.record.history import SweepHistory

pytestmark = pytest.mark.timeout(120)

NewSink = Callable[[], MlflowSink]
N = 200


@pytest.fixture
def client(out: Path) -> MlflowClient:
    return open_client(default_uri(out))


def test_runs_of_a_dead_driver_are_closed_with_a_reason(
    sweep: Sweep, new_sink: NewSink, stored: Stored, client: MlflowClient
) -> None:
    sweep.start()
    sweep.trial(0)
    sweep.epoch(0, 1)
    last_sign = sweep.time_ms
    new_sink().sync()
    dead = dead_runs(client, SweepHistory.load(sweep.folder.journal))
    assert sorted(run.name for run in dead) == ["0000 lenet", "night"]
    assert {run.reason for run in dead} == {"its driver died (host h, pid 1)"}
    assert {run[0] for run in stored.runs().values()} == {"RUNNING"}
    close_runs(client, dead)
    assert {run[0] for run in stored.runs().values()} == {"KILLED"}
    assert stored.runs()[f"{SWEEP_ID}/0"][2] == last_sign
    assert stored.tags(f"{SWEEP_ID}/0")["reason"] == "its driver died (host h, pid 1)"
    new_sink().sync()
    assert {run[0] for run in stored.runs().values()} == {"KILLED"}, "the same records do not reopen them"
    assert stored.tags(f"{SWEEP_ID}/0")["state"] == "stopped"
    assert dead_runs(client, SweepHistory.load(sweep.folder.journal)) == []
    for attempt in (1, 2):
        sweep.write(sweep.driver(resumed=True))
        sweep.write(AttemptStarted(time_ms=sweep.tick(), trial=0, attempt=attempt, reason="resumed"))
        new_sink().sync()
        assert {run[0] for run in stored.runs().values()} == {"RUNNING"}
        if attempt == 1:  # killed at once
            close_runs(client, dead_runs(client, SweepHistory.load(sweep.folder.journal)))
            new_sink().sync()
            assert {run[0] for run in stored.runs().values()} == {"KILLED"}
    sweep.epoch(0, 2)
    sweep.end(0)
    sweep.finish()
    new_sink().sync()
    assert {run[0] for run in stored.runs().values()} == {"FINISHED"}
    assert stored.points() == sweep.points


def test_a_resumed_sweep_leaves_no_trial_running_that_waits(sweep: Sweep, new_sink: NewSink, stored: Stored) -> None:
    sweep.start()
    for number in range(3):
        sweep.trial(number)
    sweep.epoch(0, 1)
    last_sign = sweep.time_ms
    sweep.end(2)
    new_sink().sync()
    sweep.write(sweep.driver(resumed=True))
    sweep.write(AttemptStarted(time_ms=sweep.tick(), trial=1, attempt=1, reason="resumed"))
    new_sink().sync()
    runs = {key: run[0] for key, run in stored.runs().items()}
    assert runs == {
        SWEEP_ID: "RUNNING", f"{SWEEP_ID}/0": "KILLED", f"{SWEEP_ID}/1": "RUNNING", f"{SWEEP_ID}/2": "FINISHED"
    }  # fmt: skip
    assert stored.runs()[f"{SWEEP_ID}/0"][2] == last_sign
    tags = stored.tags(f"{SWEEP_ID}/0")
    assert (tags["state"], tags["reason"]) == ("stopped", "its driver died (host h, pid 1)")
    assert stored.tags(f"{SWEEP_ID}/1")["state"] == "running"
    sweep.write(AttemptStarted(time_ms=sweep.tick(), trial=0, attempt=1, reason="resumed"))
    sweep.epoch(0, 2)
    new_sink().sync()
    assert stored.runs()[f"{SWEEP_ID}/0"][0] == "RUNNING"
    assert stored.tags(f"{SWEEP_ID}/0")["reason"] == ""
    for number in (0, 1):
        sweep.end(number)
    sweep.finish()
    new_sink().sync()
    assert {run[0] for run in stored.runs().values()} == {"FINISHED"}
    assert stored.points() == sweep.points


def test_an_mlflow_that_is_not_there_is_said(out: Path) -> None:
    with (
        pytest.raises(TrackingError, match=r"MLflow's store .*/none/mlflow\.db does not exist yet"),
        opened(default_uri(out / "none")),
    ):
        pass
    with pytest.raises(TrackingError, match=r"http://127\.0\.0\.1:9 does not answer"), opened("http://127.0.0.1:9"):
        pass
    with pytest.raises(TrackingError, match=r"Run with id=0+ not found"), opened(default_uri(out)) as client:
        client.get_run("0" * 32)


def test_files_of_the_whole_sweep_are_kept(sweep: Sweep, new_sink: NewSink, out: Path, client: MlflowClient) -> None:
    sweep.folder.figures.mkdir(parents=True)
    (sweep.folder.figures / "report.html").write_text("page")
    sweep.whole()
    started = SweepHistory.load(sweep.folder.journal).started
    with pytest.raises(TrackingError, match="MLflow has no run of it"):
        find_mlflow_run(client, started)
    new_sink().sync()
    parent, child = find_mlflow_run(client, started), find_mlflow_run(client, started, 1)
    assert client.get_run(child).info.run_name == "0001 lenet"
    later = out / "compare.html"
    later.write_text("page")
    log_file(client, parent, later)
    assert sorted(file.path for file in client.list_artifacts(parent)) == ["compare.html", "report.html", "spec.json"]
    with pytest.raises(TrackingError, match="no such file"):
        log_file(client, parent, out / "none.html")


LABELS = np.arange(N) % 2


def right(wrong: int, seed: int = 0) -> BoolArray:
    """Exactly `wrong` of `N` images wrong, drawn by `seed`."""
    return np.isin(np.arange(N), np.random.default_rng(seed).permutation(N)[:wrong], invert=True)


@pytest.fixture
def candidate(sweep: Sweep, new_sink: NewSink, client: MlflowClient) -> Candidate:
    sweep.whole()
    new_sink().sync()
    run_id = find_mlflow_run(client, SweepHistory.load(sweep.folder.journal).started, 2)
    return Candidate(run_id, 3, "lenet_space", "FER2013", "f8428a1edbd21e88", "PublicTest (val)", synthetic=False,
                     labels=LABELS, is_right=right(60), among=right(60)[None])  # fmt: skip


def kept_by_an_older_version(client: MlflowClient, candidate: Candidate, folder: Path) -> None:
    said = np.where(candidate.is_right, LABELS, 1 - LABELS)
    path = folder / "val_probabilities.npz"
    np.savez(path, labels=LABELS, probabilities=(0.1 + 0.8 * np.eye(2)[said]).astype(np.float32), epoch=3)
    client.log_artifact(candidate.run_id, str(path))


@pytest.mark.parametrize("kept", ["now", "by an older version", "nowhere"])
def test_a_champion_falls_to_more_than_chance_only(
    candidate: Candidate, client: MlflowClient, sweep: Sweep, tmp_path: Path, out: Path, kept: str
) -> None:
    name = model_name(candidate)
    assert name == "lenet_space-f8428a1edbd2"
    first = register(client, candidate)
    assert (first.version, first.is_champion) == ("1", True)
    again = register(client, candidate)
    assert (again.version, again.is_champion, again.reason) == ("1", True, "it is already the champion")
    if kept != "now":
        (path,) = out.rglob("val_right.npz")
        path.unlink()
    if kept == "by an older version":
        kept_by_an_older_version(client, candidate, tmp_path)
    started = SweepHistory.load(sweep.folder.journal).started
    rivals = np.stack([right(58, 1), *(right(60, seed) for seed in range(3, 14))])
    close = replace(candidate, run_id=find_mlflow_run(client, started, 1), is_right=rivals[0], among=rivals)
    verdict = register(client, close)
    assert (verdict.version, verdict.is_champion) == ("2", False)
    assert "as the best of 12" in verdict.reason
    assert ("only it is right on" in verdict.reason) is (kept != "nowhere")
    assert str(client.get_model_version_by_alias(name, CHAMPION).version) == "1"
    far = replace(candidate, run_id=find_mlflow_run(client, started, 0), is_right=right(20, 2))
    better = register(client, far)
    assert (better.version, better.is_champion) == ("3", True)
    assert str(client.get_model_version_by_alias(name, CHAMPION).version) == "3"


def test_the_luckiest_of_many_is_no_champion(candidate: Candidate, client: MlflowClient, sweep: Sweep) -> None:
    """Alone it would have won: 41 against 60 wrong of 200 is what the best of fifty may come to by chance."""
    register(client, candidate)
    started = SweepHistory.load(sweep.folder.journal).started
    lucky = replace(candidate, run_id=find_mlflow_run(client, started, 0), is_right=right(42, 1))
    among = np.stack([lucky.is_right, *(right(60, seed) for seed in range(3, 52))])
    verdict = register(client, replace(lucky, among=among))
    assert (verdict.is_champion, verdict.version) == (False, "2")
    assert register(client, lucky).is_champion


def test_synthetic_faces_make_no_champion(candidate: Candidate, client: MlflowClient) -> None:
    verdict = register(client, replace(candidate, synthetic=True))
    assert (verdict.version, verdict.is_champion) == (None, False)
    assert "synthetic" in verdict.reason
    assert client.search_registered_models() == []


def test_models_of_other_projects_on_the_server_are_left_out(
    candidate: Candidate, client: MlflowClient, out: Path, tmp_path: Path
) -> None:
    run_id = client.get_run(candidate.run_id).data.tags["mlflow.parentRunId"]
    for name in ("prices", model_name(candidate)):
        client.create_registered_model(name)
        theirs = client.create_model_version(name, f"runs:/{run_id}/theirs", run_id)
        client.set_registered_model_alias(name, CHAMPION, str(theirs.version))
    assert registered_models(client) == []
    with pytest.raises(TrackingError, match="there is no champion yet"):
        fetch_files(CHAMPION, default_uri(out), tmp_path / "files")
    verdict = register(client, candidate)
    assert (verdict.version, verdict.is_champion) == ("2", False)
    assert verdict.reason == "version 1 has the alias champion, but its predictions are not known"
    client.set_registered_model_alias(model_name(candidate), CHAMPION, "2")
    assert [(one.name, one.number) for one in champions(client)] == [(model_name(candidate), "2")]
    assert [name for name, _ in registered_models(client)] == [CHAMPION, f"models:/{model_name(candidate)}@{CHAMPION}"]


_SCRIPT = """
from pathlib import Path

import mlflow
import numpy as np
from safetensors.numpy import load_file


class Mean(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.weight = load_file(Path(context.artifacts["files"]) / "net.safetensors")["weight"]

    def predict(self, context, model_input, params=None):
        from doubling import FACTOR

        return FACTOR * np.asarray(model_input, np.float32).mean(axis=(1, 2))[..., None] * self.weight


mlflow.models.set_model(Mean())
"""


@pytest.fixture
def log(client: MlflowClient, tmp_path: Path) -> Callable[..., str]:
    """Log a net to a candidate's run, with `weight` as its only file."""

    def log_net(candidate: Candidate, weight: float) -> str:
        files = tmp_path / f"net {weight}" / "files"
        files.mkdir(parents=True, exist_ok=True)
        save_file({"weight": np.array([weight], np.float32)}, files / "net.safetensors")
        (tmp_path / "served_net.py").write_text(
            _SCRIPT.replace("FACTOR * ", "").replace("from doubling import FACTOR", "")
        )
        return log_model_folder(
            client, candidate, script=tmp_path / "served_net.py", code=[], files=files,
            input_example=np.full((2, 48, 48), 3, np.uint8), classes=["Sad"], requirements=["numpy"],
        )  # fmt: skip

    return log_net


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [9, 3])  # an extension may train the best epoch again
def test_an_extended_trial_s_net_is_another_version_that_must_win(
    candidate: Candidate, client: MlflowClient, log: Callable[..., str], tmp_path: Path, out: Path, epoch: int
) -> None:
    def fetched(number: int) -> float:
        folder = tmp_path / f"fetched {len(list(tmp_path.iterdir()))}"
        fetch_files(f"models:/{name}/{number}", default_uri(out), folder)
        return float(load_file(folder / "net.safetensors")["weight"][0])

    name = model_name(candidate)
    assert log(candidate, 1.0) == f"runs:/{candidate.run_id}/model"
    assert register(client, candidate).is_champion
    tags = client.get_model_version(name, "1").tags
    worse = replace(candidate, epoch=epoch, is_right=right(62, 1), among=right(62, 1)[None])
    for _ in range(2):
        assert log(worse, 2.0) == f"runs:/{candidate.run_id}/model-2"
        verdict = register(client, worse)
        assert (verdict.version, verdict.is_champion) == ("2", False)
    better = replace(candidate, epoch=12, is_right=right(20, 2), among=right(20, 2)[None])
    for reason in ("only it is right on", "it is already the champion"):
        assert log(better, 3.0) == f"runs:/{candidate.run_id}/model-3"
        verdict = register(client, better)
        assert (verdict.version, verdict.is_champion) == ("3", True)
        assert reason in verdict.reason
    other_faces = replace(candidate, is_right=right(60, 3), among=right(60, 3)[None])
    assert log(other_faces, 4.0) == f"runs:/{candidate.run_id}/model-4", "as many are right at the same epoch"
    assert [fetched(number) for number in (1, 2, 3)] == [1.0, 2.0, 3.0]
    assert client.get_model_version(name, "1").tags == tags
    verdict = register(client, candidate)
    assert (verdict.version, verdict.is_champion) == ("1", False)
    assert "only version 3 on" in verdict.reason


@pytest.mark.slow
def test_a_logged_net_is_loaded_by_mlflow_without_pickle(
    candidate: Candidate, client: MlflowClient, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    files = tmp_path / "net"
    files.mkdir()
    save_file({"weight": np.array([1.0, 2.0], np.float32)}, files / "net.safetensors")
    script = tmp_path / "served_net.py"
    script.write_text(_SCRIPT)
    faces = np.full((2, 48, 48), 3, np.uint8)
    code = tmp_path / "doubling"
    code.mkdir()
    (code / "__init__.py").write_text("FACTOR = 2\n")
    uri = log_model_folder(
        client, candidate, script=script, code=[code], files=files, input_example=faces,
        classes=["Sad", "Happy"], requirements=["numpy"],
    )  # fmt: skip
    assert register(client, candidate).is_champion
    mlflow.set_tracking_uri(default_uri(out))
    for address in (uri, f"models:/{model_name(candidate)}@{CHAMPION}"):
        net = mlflow.pyfunc.load_model(address)
        assert net.predict(np.full((5, 48, 48), 7, np.uint8)).tolist() == [[14.0, 28.0]] * 5
        assert net.predict(np.full((1, 2, 2, 3), 1, np.uint8)).shape == (1, 3, 2)
        assert net.metadata.signature.outputs.input_names() == ["Sad", "Happy"]
        assert net.metadata.saved_input_example_info is not None
    with pytest.raises(TrackingError, match="no script"):
        log_model_folder(
            client, candidate, script=tmp_path / "none.py", code=[], files=files, input_example=faces,
            classes=[], requirements=[],
        )  # fmt: skip
