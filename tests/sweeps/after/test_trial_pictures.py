"""The pictures of trials: drawn beside the sweep, recorded once they are on disk, never lost and sent once."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from fer_models import Recipe
from sweeps.after.finish import NothingAtEnd
from sweeps.after.pictures.trial_pictures import TrialPictures
from sweeps.cli.main import main
from sweeps.config import TrialConfig
from sweeps.space import Space
from sweeps.spec import recorded_spec
from sweeps.sweep import SweepResult, run_sweep
from tests.stand_ins import SMALL_NET
from tracking.mlflow_sync.default_store import default_path, default_uri
from tracking.mlflow_sync.sink import MlflowSink
from tracking.record.events import SweepEnded, TrialDrawn, TrialEnded
from tracking.record.history import SweepHistory
from tracking.record.journal import read
from tracking.record.layout import SweepFolder

PICTURES = {"curves.png", "confusion_matrix.png", "roc.png", "calibration.png", "classes.png"}
SPACE = Space(
    suggest=lambda trial: TrialConfig(
        net=SMALL_NET, recipe=Recipe(lr=trial.suggest_float("lr", 0.01, 0.02), batch_size=8)
    ),
    name="pictures",
)

Run = Callable[..., SweepResult]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, tiny_csv: Path) -> Path:
    """A sweep of two real trials that ran to its end, in MLflow too."""
    out = tmp_path_factory.mktemp("drawn")
    run(tiny_csv, out)
    return out


def run(data: Path, out: Path, **more: Any) -> SweepResult:
    return run_sweep(SPACE, data=data, trials=2, epochs=1, name="night", out=out, runner="inline",
                     at_end=NothingAtEnd(), **more)  # fmt: skip


@pytest.fixture
def killed(drawn: Path, tmp_path: Path) -> SweepFolder:
    """The same as a kill leaves it after the last trial's end: nothing drawn of it, and nothing of that in MLflow."""
    out = tmp_path / "runs"
    shutil.copytree(drawn, out, ignore=shutil.ignore_patterns("mlflow*", "mlartifacts"))
    folder = SweepFolder(out / "night")
    lines = folder.journal.read_text().splitlines(keepends=True)
    lost = ('"event":"drawn","trial":1', '"event":"finished"')
    folder.journal.write_text("".join(line for line in lines if not any(part in line for part in lost)))
    for picture in folder.trial(1).root.glob("*.png"):
        picture.unlink()
    sync(folder)
    assert not PICTURES & artifacts(folder, 1)
    return folder


def sync(folder: SweepFolder) -> None:
    out = folder.root.parent
    MlflowSink(folder.journal, tracking_uri=default_uri(out), out=out, on_warning=pytest.fail).sync()


def artifacts(folder: SweepFolder, trial: int) -> set[str]:
    """The names of what MLflow has of a trial."""
    out = folder.root.parent
    client = MlflowClient(default_uri(out))
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()], f"tags.trial = '{trial}'")
    assert len(runs) == 1
    return {file.path for file in client.list_artifacts(runs[0].info.run_id)}


def test_a_trials_end_is_recorded_before_its_pictures_are_drawn_beside_the_sweep(drawn: Path) -> None:
    folder = SweepFolder(drawn / "night")
    events = list(read(folder.journal))
    assert isinstance(events[-1], SweepEnded)
    for number in range(2):
        own = [one for one in events if isinstance(one, TrialEnded | TrialDrawn) and one.trial == number]
        assert [one.event for one in own] == ["end", "drawn"]
        assert isinstance(own[0], TrialEnded)
        assert own[0].undrawn
        assert {path.name for path in folder.trial(number).root.glob("*.png")} >= PICTURES
        assert artifacts(folder, number) >= PICTURES
    assert default_path(drawn).exists()


def test_a_resume_draws_what_a_kill_left_and_mlflow_gets_it_once(killed: SweepFolder, tiny_csv: Path) -> None:
    before = killed.trial(0).curves.stat().st_mtime_ns
    run(tiny_csv, killed.root.parent, resume=True)
    assert {path.name for path in killed.trial(1).root.glob("*.png")} >= PICTURES
    assert artifacts(killed, 1) >= PICTURES
    assert killed.trial(0).curves.stat().st_mtime_ns == before, "what is drawn is not drawn again"
    (stored,) = [
        path for path in killed.root.parent.rglob("mlartifacts/**/curves.png")
        if path.read_bytes() == killed.trial(1).curves.read_bytes()
    ]  # fmt: skip
    stored.write_bytes(b"sent")
    sync(killed)
    assert stored.read_bytes() == b"sent", "what MLflow has is not sent again"


@pytest.mark.long
def test_report_draws_what_a_kill_left_and_sends_it(killed: SweepFolder) -> None:
    assert main(["report", "night", "--out", str(killed.root.parent)]) == 0
    assert {path.name for path in killed.trial(1).root.glob("*.png")} >= PICTURES
    assert artifacts(killed, 1) >= PICTURES


@pytest.mark.parametrize(
    ("command", "fault"),
    [(["sh", "-c", "read line; kill -9 $$"], r"exit code -9"), (["/no/such/python"], r"No such file .*")],
)
def test_a_process_that_dies_or_does_not_start_is_a_warning(
    killed: SweepFolder, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], fault: str
) -> None:
    monkeypatch.setattr("sweeps.after.pictures.trial_pictures.command", lambda module: command)
    with pytest.warns(
        UserWarning, match=rf"trial 1: its pictures were not drawn .*{fault}\); .* sweeps report night --out "
    ):
        result = run(tiny_csv, killed.root.parent, resume=True)
    assert result.history.finished
    assert [trial.number for trial in result.history.undrawn] == [1]


def test_a_signal_while_the_last_pictures_are_drawn_ends_the_wait(
    killed: SweepFolder, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sends_ctrl_c = ["sh", "-c", "read line; sleep 1; kill -INT $PPID; exec sleep 60"]
    monkeypatch.setattr("sweeps.after.pictures.trial_pictures.command", lambda module: sends_ctrl_c)
    began = time.monotonic()
    with pytest.warns(UserWarning, match="the pictures of 1 trials are not drawn yet; .* sweeps report night --out "):
        result = run(tiny_csv, killed.root.parent, resume=True)
    assert result.exit_code == 130
    assert time.monotonic() - began < 30
    assert [trial.number for trial in result.history.undrawn] == [1]


def test_a_process_that_ended_while_idle_is_replaced(killed: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    answers_once = ["sh", "-c", "read line; echo '\"\"'"]
    monkeypatch.setattr("sweeps.after.pictures.trial_pictures.command", lambda module: answers_once)
    history = SweepHistory.load(killed.journal)
    with TrialPictures(killed, recorded_spec(history), pytest.fail) as pictures:
        for number in range(2):
            pictures.add(history.trials[number])
            assert [one.trial for one in pictures.rest(lambda: False)] == [number]
            time.sleep(0.3)
