"""What is done with runs once they are there: tested once, combined, compared, reported."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_trials import refused

from fer_models import LeNetConfig, Recipe
from sweeps import Baseline, Space, TrialConfig, run_sweep
from sweeps.cli import main
from sweeps.ensemble import combine
from tracking.history import SweepHistory

Capture = pytest.CaptureFixture[str]


def _lenet(lr: float) -> TrialConfig:
    return TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=lr, batch_size=8))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_csv: Path, face_cache: Path) -> Path:
    """The folder of a real sweep of three small trials, `night`."""
    out = tmp_path_factory.mktemp("finished")
    baselines = [Baseline(f"lr {lr}", _lenet(lr)) for lr in (0.01, 0.02, 0.03)]
    space = Space(suggest=lambda trial: _lenet(0.01), baselines=baselines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FER_CACHE", str(face_cache))
        patch.setattr("os.fsync", lambda descriptor: None)
        run_sweep(space, data=tiny_csv, trials=3, epochs=2, name="night", out=out, runner="inline")
    return out


@pytest.fixture
def verb(finished: Path) -> Callable[..., int]:
    return lambda *words: main([*words, "--out", str(finished)])


def test_scores_and_pictures_lie_beside_a_trial(finished: Path) -> None:
    folder = finished / "night/trials/0000"
    names = {path.name for path in folder.iterdir()}
    pictures = {"curves.png", "confusion_matrix.png", "roc.png", "calibration.png", "classes.png"}
    assert pictures | {"scores.json", "confusion_matrix.json", "val_probabilities.npz"} <= names
    scores = json.loads((folder / "scores.json").read_text())["full"]
    end = SweepHistory.load(finished / "night/journal.jsonl").trials[0].end
    assert end is not None
    assert scores["n"] == 14
    assert scores["accuracy"]["value"] == end.best["best_val_accuracy"]
    assert end.best["best_val_macro_f1"] == scores["macro_f1"]


def test_the_test_split_is_read_once(verb: Callable[..., int], capsys: Capture) -> None:
    assert verb("test", "night/0") == 0
    assert "night/0 on tiny, test, n = 7: " in capsys.readouterr().out
    message = refused(capsys, lambda: verb("test", "night/0"))
    assert "its test split was read on 20" in message
    assert "--again" in message
    assert verb("test", "night/0", "--again") == 0
    assert "LOOK 2: no longer a fair test" in capsys.readouterr().out


def test_an_ensemble_is_a_run_of_its_own(verb: Callable[..., int], finished: Path, capsys: Capture) -> None:
    assert verb("ensemble", "--sweep", "night", "--top", "2", "--name", "both") == 0
    kept = [np.load(finished / f"night/trials/000{number}/val_probabilities.npz") for number in range(3)]
    mine = np.load(finished / "both/trials/0000/val_probabilities.npz")["probabilities"]
    members = SweepHistory.load(finished / "both/journal.jsonl").trials[0].started.config["ensemble"]["members"]
    by_hand = sum(kept[int(name.removeprefix("night/"))]["probabilities"] for name in members) / 2
    np.testing.assert_allclose(mine, by_hand, rtol=1e-5)
    capsys.readouterr()
    assert verb("test", "both") == 0
    assert "both/0 on tiny, test, n = 7" in capsys.readouterr().out
    assert verb("status", "both") == 0
    assert "night/" in capsys.readouterr().out
    assert "exists already" in refused(capsys, lambda: verb("ensemble", "night/0", "night/1", "--name", "both"))
    assert "needs two runs" in refused(capsys, lambda: verb("ensemble", "night/0"))


def test_comparing_runs(verb: Callable[..., int], tmp_path: Path, capsys: Capture) -> None:
    page = tmp_path / "page.html"
    assert verb("compare", "night/0", "night/1", "--html", str(page)) == 0
    shown = capsys.readouterr().out
    assert "recipe.lr" in shown
    assert "0.01" in shown
    assert "0.02" in shown
    assert page.read_text().lower().startswith("<!doctype html>")
    assert verb("compare", "night/0", "night/1", "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["n"] == 14
    assert "MLflow has the page too: compare/night-0-against-night-1.html of night/0, night/1" in captured.err


def test_comparing_whole_sweeps(verb: Callable[..., int], finished: Path, capsys: Capture) -> None:
    shutil.copytree(finished / "night", finished / "day")
    assert verb("compare", "night", "day") == 0
    shown = capsys.readouterr().out
    best = max(range(3), key=lambda number: (accuracy(finished, number), -number))
    assert f"night is a sweep: its best trial, night/{best}, is compared for it" in shown
    assert re.search(r"trials +│ +3 │ +3 │", shown)
    assert f"{accuracy(finished, best):.2%} │" in shown
    assert "MLflow has the page too: compare/night-against-day.html of night, day" in shown
    assert verb("compare", "night", f"day/{best}") == 0
    assert "the sweeps as a whole" not in capsys.readouterr().out


def accuracy(finished: Path, number: int) -> float:
    best = SweepHistory.load(finished / "night/journal.jsonl").trials[number].best_epoch()
    assert best is not None
    return best.metrics["val_accuracy"]


def test_the_report_is_one_page(verb: Callable[..., int], finished: Path, capsys: Capture) -> None:
    assert verb("report", "night") == 0
    page = (finished / "night/figures/report.html").read_text()
    assert "lr 0.02" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert str(finished / "night/figures/report.html") in capsys.readouterr().out


def test_runs_that_are_not_there(verb: Callable[..., int], capsys: Capture) -> None:
    assert "did you mean 'night'" in refused(capsys, lambda: verb("test", "nigth"))
    assert "it has 0 to 2" in refused(capsys, lambda: verb("test", "night/7"))


LABELS = np.array([0, 0, 1, 1])
RIGHT = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.2, 0.8]])
WRONG = RIGHT[:, ::-1]


def test_greedy_selection_leaves_a_harmful_member_out() -> None:
    choice = combine(LABELS, np.stack([WRONG, RIGHT]), "greedy")
    assert choice.weights.tolist() == [0, 1]


def test_weights_go_to_the_member_with_the_least_log_loss() -> None:
    choice = combine(LABELS, np.stack([WRONG, RIGHT]), "weighted")
    assert choice.weights.sum() == pytest.approx(1)
    assert choice.weights[1] > 0.95


def test_the_mean_by_hand() -> None:
    choice = combine(LABELS, np.stack([WRONG, RIGHT]), "mean")
    np.testing.assert_allclose(choice.probabilities, np.full((4, 2), 0.5))
