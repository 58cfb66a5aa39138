"""A support vector machine in place of a trained net's last layer, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.svm import LinearSVC

from fer_models import Recipe
from fer_models.training.evaluate import predict_features
from sweeps import Baseline, Space, TrialConfig, run_sweep
from sweeps.cli.main import main
from sweeps.runs import find_run
from tests.stand_ins import SMALL_NET
from tests.sweeps.fake_trials import refused
from tracking.record.history import SweepHistory

pytestmark = pytest.mark.timeout(120)

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, tiny_csv: Path) -> Path:
    """A small net on 56 faces, `night/0`, that answers for face and mirror image, and its machine `machine`."""
    out = tmp_path_factory.mktemp("svm")
    config = TrialConfig(net=SMALL_NET, recipe=Recipe(lr=0.01, batch_size=8, views="mirror"))
    space = Space(suggest=lambda trial: config, baselines=[Baseline("only", config)])
    run_sweep(space, data=tiny_csv, trials=1, epochs=1, name="night", out=out, runner="inline", figures=False)
    assert main(["svm", "night", "--c", "0.01,0.001", "--name", "machine", "--out", str(out)]) == 0
    return out


@pytest.fixture
def verb(out: Path) -> Callable[..., int]:
    return lambda *words: main([*words, "--out", str(out)])


def test_it_is_a_run_with_scores_pictures_and_where_it_came_from(out: Path) -> None:
    history = SweepHistory.load(out / "machine/journal.jsonl")
    trial, member = history.trials[0], find_run("night/0", out)
    settings = trial.started.config["svm"]
    assert (settings["member"], settings["kernel"], settings["tried"]) == ("night/0", "linear", [0.001, 0.01])
    assert settings["c"] in settings["tried"]
    assert trial.started.config["net"] == member.trial.started.config["net"]
    folder = out / "machine/trials/0000"
    pictures = {"roc.png", "confusion_matrix.png", "calibration.png", "classes.png"}
    assert pictures | {"svm.safetensors", "best.safetensors"} <= {path.name for path in folder.iterdir()}
    assert history.finished
    assert main(["logs", "machine", "--out", str(out)]) == 0
    best = trial.best_epoch()
    assert best is not None
    scores = json.loads((folder / "scores.json").read_text())["full"]
    assert best.metrics["val_accuracy"] == scores["accuracy"]["value"]


def test_val_is_answered_as_scikit_learn_answers_it(out: Path) -> None:
    member, machine = find_run("night/0", out), find_run("machine", out)
    faces = member.faces()
    train, val, mirrored = (
        predict_features(member.net(faces), np.asarray(images)).astype(np.float64)
        for images in (faces.train.images, faces.val.images, np.asarray(faces.val.images)[:, :, ::-1].copy())
    )
    mean, deviation = train.mean(0), np.where(train.std(0) == 0, 1, train.std(0))
    theirs = CalibratedClassifierCV(LinearSVC(C=machine.kind.c, dual=False), cv=3, ensemble=False)
    theirs.fit((train - mean) / deviation, faces.train.labels)
    expected = np.mean([theirs.predict_proba((part - mean) / deviation) for part in (val, mirrored)], axis=0)
    kept = np.load(out / "machine/trials/0000/val_probabilities.npz")["probabilities"]
    np.testing.assert_allclose(kept, expected, atol=1e-3)


def test_what_takes_runs_takes_it(verb: Callable[..., int], out: Path, capsys: Capture) -> None:
    kept = np.load(out / "machine/trials/0000/val_probabilities.npz")["probabilities"]
    weights = out / "night/trials/0000/best.safetensors"
    weights.rename(out / "away")  # it stands on its own
    np.testing.assert_allclose(find_run("machine", out).predict("val"), kept, atol=1e-6)
    assert verb("test", "machine") == 0
    assert "machine/0 on tiny, test, n = 7: " in capsys.readouterr().out
    (out / "away").rename(weights)
    assert verb("compare", "night", "machine", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["svm.member"] == [None, "night/0"]
    assert found["sweeps"] == []  # nothing was searched for a machine
    assert verb("ensemble", "night/0", "machine", "--name", "both") == 0
    both = find_run("both", out)
    singles = [find_run(name, out).predict("test") for name in ("night/0", "machine/0")]
    np.testing.assert_allclose(both.predict("test"), np.mean(singles, axis=0), atol=1e-6)
    capsys.readouterr()
    assert verb("status", "machine") == 0
    assert "night/0" in capsys.readouterr().out


def test_rbf_from_the_command_line(verb: Callable[..., int], out: Path, capsys: Capture) -> None:
    assert verb("svm", "night/0", "--kernel", "rbf", "--name", "round") == 0
    shown = capsys.readouterr().out
    assert "was the best of 0.1, 1, 10, 100: " in shown
    assert "round/0: " in shown
    assert find_run("round", out).kind.kernel == "rbf"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["svm", "machine"], "replaces the last layer of one net; name a trial"),
        (["svm", "night/0", "--name", "machine"], "exists already: choose another --name"),
        (["svm", "night/0", "--c", "0.1,-1"], "'0.1,-1': expected numbers above 0, as 0.001,0.01"),
        (["inspect", "machine"], "inspect its net: night/0"),
    ],
)
def test_what_is_refused(words: list[str], message: str, verb: Callable[..., int], capsys: Capture) -> None:
    assert message in " ".join(refused(capsys, lambda: verb(*words)).split())
