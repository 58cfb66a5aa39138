"""What is done with runs once they are there: tested once, combined, compared, reported."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from fer_models import LeNetConfig, Recipe
from sweeps import Baseline, Space, TrialConfig, run_sweep
from sweeps.after.ensemble import answers_fitted_apart, combine, fitted_apart, make_ensemble
from sweeps.after.report_input import _commands, compare_runs
from sweeps.cli.main import main, run_main
from sweeps.config import parse_settings, setting_text
from sweeps.run_kinds import TrainedNet
from sweeps.runs import find_run
from tests import ROOT
from tests.fer_common.test_console import ASCII
from tests.fer_data.image_trees import write_tree
from tests.stand_ins import QUIET
from tests.sweeps import fake_trials
from tests.sweeps.fake_trials import refused
from tracking.record.history import SweepHistory

pytestmark = pytest.mark.timeout(120)

Capture = pytest.CaptureFixture[str]


def _lenet(lr: float) -> TrialConfig:
    return TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=lr, batch_size=8))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_csv: Path) -> Path:
    """The folder of a real sweep of three small trials, `night`."""
    out = tmp_path_factory.mktemp("finished")
    baselines = [Baseline(f"lr {lr}", _lenet(lr)) for lr in (0.01, 0.02, 0.03)]
    space = Space(suggest=lambda trial: _lenet(0.01), baselines=baselines)
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
    assert "test evaluation 2: no longer an unbiased test" in capsys.readouterr().out


def test_a_number_of_the_test_split_is_that_of_the_net(verb: Callable[..., int], finished: Path) -> None:
    """A trial that goes on after the test finds a better epoch: the number was of another net."""
    rewritten(finished, "early", copied(finished, "early"))
    assert find_run("early/0", finished).tested == ""
    assert verb("test", "early/0") == 0
    tests = SweepHistory.load(finished / "early/journal.jsonl").trials[0].tests
    number = f"{tests[0].metrics['test_accuracy']:.2%}"
    assert find_run("early/0", finished).tested == f"evaluated once: {number}"
    journal = finished / "early/journal.jsonl"
    better = {"event": "epoch", "trial": 0, "epoch": 3, "metrics": {"val_accuracy": 1.0, "val_loss": 0.1}}
    with journal.open("a") as file:
        file.write(json.dumps(better | {"time_ms": tests[0].time_ms + 1}) + "\n")
    assert find_run("early/0", finished).tested == ""
    with journal.open("a") as file:
        second = {"event": "tested", "trial": 0, "look": 2, "metrics": {"test_accuracy": 0.25}}
        file.write(json.dumps(second | {"time_ms": tests[0].time_ms + 2}, separators=(",", ":")) + "\n")
    assert find_run("early/0", finished).tested == "evaluation 2 of 2 of this trial: 25.00%"


def test_a_look_keeps_answers_scores_and_pictures_of_the_test_split(
    verb: Callable[..., int], finished: Path, capsys: Capture
) -> None:
    rewritten(finished, "dusk", copied(finished, "dusk"))
    assert verb("test", "dusk/1") == 0
    shown = capsys.readouterr().out
    assert "AUC" in shown
    assert "fitted on the validation split" in shown
    folder = finished / "dusk/trials/0001"
    assert str(folder / "test") in shown.replace("\n", "")
    pictures = {"confusion_matrix.png", "roc.png", "calibration.png", "classes.png"}
    assert pictures | {"probabilities.npz", "scores.json", "confusion_matrix.json"} <= {
        path.name for path in (folder / "test").iterdir()
    }
    with np.load(folder / "test/probabilities.npz") as kept:
        right = float((kept["probabilities"].argmax(1) == kept["labels"]).mean())
    matrix = json.loads((folder / "test/confusion_matrix.json").read_text())
    (tested,) = SweepHistory.load(finished / "dusk/journal.jsonl").trials[1].tests
    assert tested.metrics["test_accuracy"] == right
    assert (matrix["split"], matrix["n"]) == ("test", 7)
    assert sum(map(sum, matrix["counts"])) == 7
    of_val = json.loads((folder / "scores.json").read_text())["temperature"]
    assert tested.metrics["test_temperature"] == pytest.approx(of_val, rel=1e-3), "not fitted on the test split"
    assert tested.metrics["test_macro_f1"] == json.loads((folder / "test/scores.json").read_text())["full"]["macro_f1"]


def test_curves_against_iterations_are_one_picture(
    verb: Callable[..., int], finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert verb("curves", "night/1") == 0
    drawn = finished / "night/trials/0001/iterations.png"
    assert capsys.readouterr().out.replace("\n", "") == f"night/1: {drawn}"
    assert drawn.read_bytes().startswith(b"\x89PNG")
    assert verb("curves", "night/1", "--picture", str(tmp_path / "mine.png")) == 0
    assert (tmp_path / "mine.png").read_bytes() == drawn.read_bytes()
    assert verb("ensemble", "night/0", "night/1", "--name", "no-training") == 0
    assert "has no iterations to draw" in refused(capsys, lambda: verb("curves", "no-training"))


def test_the_curves_are_tensorboard_s_event_files_on_request(
    verb: Callable[..., int], finished: Path, capsys: Capture
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # the second time in place of the first
        assert verb("tensorboard", "night") == 0
    root = finished / "night/tensorboard"
    assert f"tensorboard --logdir {root}" in capsys.readouterr().out.replace("\n", "").replace("  ", " ")
    assert sorted(path.name for path in root.iterdir()) == ["0000", "0001", "0002"]
    assert len(list((root / "0001").iterdir())) == 1
    events = EventAccumulator(str(root / "0001")).Reload()
    trial = SweepHistory.load(finished / "night/journal.jsonl").trials[1]
    found = [(event.step, event.value) for event in events.Scalars("val_accuracy")]
    assert found == [(epoch.epoch, pytest.approx(epoch.metrics["val_accuracy"])) for epoch in trial.epochs]
    assert events.Scalars("iteration/learning_rate")[0].step == trial.epochs[0].iterations[0][0]


def test_without_tensorboard_its_package_is_named(
    verb: Callable[..., int], finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    message = refused(capsys, lambda: verb("tensorboard", "night"))
    assert "event files need an optional package: pip install tensorboard" in message


def copied(finished: Path, name: str) -> list[dict[str, Any]]:
    """A copy of `night` under another name, and its journal's events."""
    shutil.copytree(finished / "night", finished / name)
    lines = (finished / name / "journal.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] != "tested"]


def rewritten(finished: Path, name: str, events: Sequence[dict[str, Any]]) -> None:
    (finished / name / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


@pytest.mark.long
def test_looks_are_counted_over_the_sweep_and_the_data(
    verb: Callable[..., int], finished: Path, capsys: Capture
) -> None:
    for name in ("eve", "noon"):
        rewritten(finished, name, copied(finished, name))
    before = sum(path.read_text().count('"event":"tested"') for path in finished.glob("*/journal.jsonl"))
    assert verb("ensemble", "eve/0", "eve/1", "--name", "pair") == 0
    for number, (run, look) in enumerate((("eve/0", 1), ("eve/1", 2), ("noon/0", 1), ("pair/0", 3)), start=1):
        capsys.readouterr()
        assert verb("test", run) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert (
            f"evaluations on tiny, test: {look} in this sweep, {before + number} in all sweeps of {finished}" in shown
        )
        assert ("do not choose among its runs by these numbers" in shown) == (look > 1)
    (tested,) = SweepHistory.load(finished / "pair/journal.jsonl").trials[0].tests
    assert (tested.look, tested.metrics["test_looks_in_sweep"]) == (1, 3)


@pytest.mark.long
def test_looks_are_counted_by_the_test_images_and_not_by_the_name_of_their_folder(
    tmp_path: Path, out: Path, capsys: Capture
) -> None:
    """Two folders of one name have other images; a renamed copy of the first has the same."""
    for place, level in (("a", 0), ("b", 100)):
        files = [f"{split}/{name}/{n}.png" for split in ("train", "val", "test") for name in "xy" for n in range(4)]
        write_tree(tmp_path / place / "faces", {file: level + n for n, file in enumerate(files)})
    shutil.copytree(tmp_path / "a/faces", tmp_path / "copy")
    space = Space(suggest=lambda trial: _lenet(0.01))
    for source, looks in (("a/faces", 1), ("b/faces", 1), ("copy", 2)):
        name = source.replace("/", "-")
        asked: dict[str, Any] = {"trials": 1, "epochs": 1, "runner": "inline", "figures": False, **QUIET}
        run_sweep(space, data=tmp_path / source, name=name, out=out, **asked)
        capsys.readouterr()
        assert main(["test", name, "--out", str(out)]) == 0
        assert f"1 in this sweep, {looks} in all sweeps of" in " ".join(capsys.readouterr().out.split())


@pytest.mark.long
def test_no_leak_free_accuracy_without_a_leak_free_face(tmp_path: Path, out: Path, capsys: Capture) -> None:
    rows = [f"{label},{' '.join([str(30 * label)] * 2304)},{usage}"
            for usage in ("Training", "Training", "PublicTest", "PrivateTest") for label in range(7)]  # fmt: skip
    (tmp_path / "same.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]) + "\n")
    space = Space(suggest=lambda trial: _lenet(0.01), name="one_space")
    run_sweep(space, data=tmp_path / "same.csv", trials=1, epochs=1, name="same", out=out, runner="inline", **QUIET)
    assert main(["test", "same/0", "--out", str(out)]) == 0
    assert "no leak-free accuracy: no face of same, test" in capsys.readouterr().out
    (tested,) = SweepHistory.load(out / "same/journal.jsonl").trials[0].tests
    assert "test_accuracy" in tested.metrics
    assert "test_accuracy_leak_free" not in tested.metrics


def test_a_trial_that_has_not_finished_is_no_result_yet(
    verb: Callable[..., int], finished: Path, tiny_csv: Path, capsys: Capture
) -> None:
    """The best of three is cut short: nothing takes it, and the sweep's name means the best that has finished."""
    best = max(range(3), key=lambda number: (accuracy(finished, number), -number))
    cut = [event for event in copied(finished, "half")
           if event["event"] != "finished" and (event["event"], event.get("trial")) != ("end", best)]  # fmt: skip
    rewritten(finished, "half", cut)
    run, other = f"half/{best}", f"half/{(best + 1) % 3}"
    for words in (
        ("test", run),
        ("ensemble", other, run),
        ("svm", run),
        ("inspect", run),
        ("register", run),
    ):
        said = refused(capsys, lambda words=words: verb(*words))  # type: ignore[misc]
        assert f"{run}: this trial has not finished (state running, epoch 2 of 2)" in said
        assert f"python -m sweeps resume half --out {finished}" in said
        assert other in said
    asked = ["lenet_space", "--data", str(tiny_csv), "--runner", "inline", "--set", f"weights=run:{run}",
             "--set", "batch_size=8", "--out", str(finished)]  # fmt: skip
    assert "has not finished" in refused(capsys, lambda: run_main(asked))
    assert verb("test", "half") == 0
    assert f"{run} on" not in capsys.readouterr().out


@pytest.mark.parametrize("end", ["paused", "stopped"])
def test_the_best_trial_so_far_is_used_while_it_waits(
    verb: Callable[..., int], finished: Path, tmp_path: Path, capsys: Capture, end: str
) -> None:
    """The best of three waits at a rung, or its driver stopped: its net is taken, and said not to be over."""
    best = max(range(3), key=lambda number: (accuracy(finished, number), -number))
    left = {
        "paused": {"event": "paused", "trial": best, "epoch": 2, "reason": "rung", "time_ms": 1},
        "stopped": {"event": "end", "trial": best, "state": "stopped", "epochs": 2, "final": False, "time_ms": 1},
    }[end]
    events = [left if (event["event"], event.get("trial")) == ("end", best) else event
              for event in copied(finished, end) if event["event"] != "finished"]  # fmt: skip
    rewritten(finished, end, [one | {"epochs": 4} if (one["event"], one.get("trial")) == ("trial", best) else one
                              for one in events])  # fmt: skip
    run, state = f"{end}/{best}", {"paused": "waiting", "stopped": "stopped"}[end]
    note = f"since the trial is not over ({state} after epoch 2 of 4)"
    for words in (("test", end), ("export", end, "--format", "safetensors", "--file", str(tmp_path / "a.safetensors"))):
        capsys.readouterr()
        assert verb(*words) == 0
        said = capsys.readouterr()
        assert f"{run}: the net of its best epoch so far" in " ".join(said.err.split())
        assert note in " ".join(said.err.split())
    assert note in (tmp_path / "a.safetensors.md").read_text()
    capsys.readouterr()
    face = str(finished.parent / "face.png")
    Image.fromarray(np.full((48, 48), 90, np.uint8)).save(face)
    assert verb("predict", face, "--whole", "--model", end) == 0
    assert note in " ".join(capsys.readouterr().out.split())
    assert "has not finished" in refused(capsys, lambda: verb("register", run))


@pytest.mark.long
@pytest.mark.parametrize("method", ["mean", "weighted", "greedy"])
def test_an_ensemble_s_record_agrees_with_itself(
    method: str, verb: Callable[..., int], finished: Path, capsys: Capture
) -> None:
    assert verb("ensemble", "night/0", "night/1", "night/2", "--method", method, "--name", f"three-{method}") == 0
    folder = finished / f"three-{method}"
    (trial,) = SweepHistory.load(folder / "journal.jsonl").trials.values()
    assert sum(trial.started.config["ensemble"]["members"].values()) == pytest.approx(1, abs=1e-12)
    kept = np.load(folder / "trials/0000/val_probabilities.npz")
    assert trial.epochs[0].metrics["val_accuracy"] == (kept["probabilities"].argmax(1) == kept["labels"]).mean()
    capsys.readouterr()
    assert verb("compare", "night/0", f"three-{method}") == 0
    assert ("were fitted to these faces" in capsys.readouterr().out) == (method != "mean")


@pytest.mark.long
@pytest.mark.parametrize("method", ["mean", "greedy"])
def test_the_report_of_an_ensemble_names_its_members_and_the_command_that_makes_it(
    method: str, verb: Callable[..., int], finished: Path
) -> None:
    made = f"reported-{method}"
    assert verb("ensemble", "night/0", "night/1", "--method", method, "--name", made) == 0
    assert verb("report", made, "--html", str(finished / "page.html")) == 0
    page = html.unescape((finished / "page.html").read_text())
    command = f"python -m sweeps ensemble night/0 night/1 --method {method}"
    assert f"<pre>{command}</pre>" in page
    assert main([*command.split()[3:], "--name", f"{made}-again", "--out", str(finished)]) == 0
    assert "sweeps.run ensembles" not in page
    assert "ensemble --sweep" not in page
    assert "<dt>sampler</dt>" not in page
    assert "<dt>members and their weights</dt><dd>night/" in page
    assert "expected on new faces" not in page  # nothing was selected
    assert ("were fitted to these faces, so its numbers are too high" in page) == (method == "greedy")


def test_a_member_is_named_once(verb: Callable[..., int], finished: Path, capsys: Capture) -> None:
    best = max(range(3), key=lambda number: (accuracy(finished, number), -number))
    for words in ((f"night/{best}", "night"), (f"night/{best}", f"night/{best}", f"night/{(best + 1) % 3}")):
        said = refused(capsys, lambda words=words: verb("ensemble", *words, "--name", "twice"))  # type: ignore[misc]
        assert f"night/{best}: named more than once" in said
    assert not (finished / "twice").exists()


def test_an_ensemble_does_not_change_with_its_member(verb: Callable[..., int], finished: Path, capsys: Capture) -> None:
    rewritten(finished, "midnight", copied(finished, "midnight"))
    assert verb("ensemble", "midnight/0", "midnight/1", "--name", "firm") == 0
    path = finished / "midnight/trials/0001/val_probabilities.npz"
    kept = dict(np.load(path))
    np.savez(path, **kept | {"probabilities": kept["probabilities"][:, ::-1]})  # the sweep made again, say
    said = refused(capsys, lambda: verb("test", "firm"))
    assert "firm/0: its members midnight/0, midnight/1 have other predictions than when it was made" in said
    assert f"python -m sweeps ensemble midnight/0 midnight/1 --name NAME --out {finished}" in said


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
    assert "needs at least two runs" in refused(capsys, lambda: verb("ensemble", "night/0"))
    assert verb("logs", "both") == 0
    assert f": epoch 1/1 val_accuracy {(mine.argmax(1) == kept[0]['labels']).mean():.2%}" in (capsys.readouterr().out)


@pytest.mark.parametrize(
    "words",
    ["resume made", "extend made --trials +3", "try made lr=0.1", "fork made/0 lr=0.1", "stop made", "rerun made"],
)
def test_what_was_not_trained_is_not_continued(
    words: str, verb: Callable[..., int], finished: Path, capsys: Capture
) -> None:
    if not (finished / "made").exists():
        assert verb("ensemble", "night/0", "night/1", "--name", "made") == 0
    before = (finished / "made/journal.jsonl").read_bytes()
    said = refused(capsys, lambda: verb(*words.split()))
    assert "was not trained, but made from night/0, night/1; name one of those" in said
    assert (finished / "made/journal.jsonl").read_bytes() == before


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
    assert "also in MLflow: artifact compare/night-0-against-night-1.html of night/0, night/1" in captured.err


def test_comparing_whole_sweeps(verb: Callable[..., int], finished: Path, capsys: Capture) -> None:
    shutil.copytree(finished / "night", finished / "day")
    assert verb("compare", "night", "day") == 0
    shown = capsys.readouterr().out
    best = max(range(3), key=lambda number: (accuracy(finished, number), -number))
    assert f"night is a sweep: its best trial, night/{best}, is compared" in shown
    assert re.search(r"trials +│ +3 │ +3 │", shown)
    assert f"{accuracy(finished, best):.2%} │" in shown
    assert "also in MLflow: artifact compare/night-against-day.html of night, day" in shown
    assert verb("compare", "night", f"day/{best}") == 0
    assert "whole sweeps" not in capsys.readouterr().out


def test_a_sweep_is_compared_with_another_of_its_trials(
    verb: Callable[..., int], finished: Path, capsys: Capture
) -> None:
    best, other, _ = sorted(range(3), key=lambda number: (-accuracy(finished, number), number))
    for names in (("night", f"night/{other}"), (f"night/{other}", "night")):
        assert verb("compare", *names) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert f"night is a sweep: its best trial, night/{best}, is compared" in shown
        file = "-against-".join(name.replace("/", "-") for name in names)
        assert f"artifact compare/{file}.html of {', '.join(names)}" in shown


def test_a_trial_is_not_compared_with_itself(verb: Callable[..., int], finished: Path, capsys: Capture) -> None:
    best, *others = sorted(range(3), key=lambda number: (-accuracy(finished, number), number))
    said = refused(capsys, lambda: verb("compare", f"night/{best}", "night"))
    assert said == (
        f"night/{best} and night: both are trial night/{best} (NAME alone is a sweep's best trial); "
        f"name another one, as night/{min(others)}"
    )
    every = [f"night/{number}" for number in range(3)]
    assert refused(capsys, lambda: verb("compare", *every, "night")).endswith("; name another one")


def accuracy(finished: Path, number: int) -> float:
    best = SweepHistory.load(finished / "night/journal.jsonl").trials[number].best_epoch()
    assert best is not None
    return best.metrics["val_accuracy"]


def test_a_command_to_be_pasted_has_no_password(verb: Callable[..., int], finished: Path, capsys: Capture) -> None:
    (finished / "night/trials/0000/last.safetensors").write_bytes(b"left by a crash")
    assert verb("gc", "--keep", "1", "--tracking-uri", "http://ann:secret@127.0.0.1:9") == 0
    captured = capsys.readouterr()
    assert "--tracking-uri http://ann:…@127.0.0.1:9" in captured.out.replace("'", "")
    assert "secret" not in captured.out + captured.err


@pytest.mark.long
def test_a_new_run_s_records_go_to_where_its_members_are_unless_another_place_is_asked_for(
    verb: Callable[..., int], finished: Path, tmp_path: Path
) -> None:
    members = ("night/0", "night/1")
    assert verb("ensemble", *members, "--name", "beside") == 0
    assert verb("ensemble", *members, "--name", "apart", "--tracking-uri", "http://127.0.0.1:9") == 0
    places = {name: SweepHistory.load(finished / name / "journal.jsonl").drivers[0].spec["tracking_uri"]
              for name in ("beside", "apart")}  # fmt: skip
    assert places == {"beside": "default", "apart": "http://127.0.0.1:9"}


@pytest.mark.long
def test_runs_of_two_stores_get_the_page_each_in_its_own(
    verb: Callable[..., int], finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    shutil.copy(finished / "mlflow.db", tmp_path / "other.db")
    other = f"sqlite:///{tmp_path}/other.db"
    assert verb("ensemble", "night/0", "night/2", "--name", "elsewhere", "--tracking-uri", other) == 0
    assert verb("compare", "night/0", "elsewhere") == 0
    assert "also in MLflow" in capsys.readouterr().out
    client = MlflowClient(other)
    experiment = client.get_experiment_by_name("ensembles")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.sweep = 'elsewhere' AND tags.trial = '0'")
    assert verb("compare", "night/0", run.info.run_id) == 0, "an id is looked for in every store that a sweep has"
    assert "elsewhere/0" in capsys.readouterr().out


def test_the_report_is_one_page(verb: Callable[..., int], finished: Path, capsys: Capture) -> None:
    assert verb("report", "night") == 0
    page = (finished / "night/figures/report.html").read_text()
    assert "lr 0.02" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert str(finished / "night/figures/report.html") in capsys.readouterr().out


@pytest.mark.parametrize("words", ["test night/1", "svm night/1", "inspect night/1"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_read(
    words: str, verb: Callable[..., int], finished: Path, capsys: Capture
) -> None:
    before = (finished / "night/journal.jsonl").read_bytes()
    assert "no NVIDIA GPU" in refused(capsys, lambda: verb(*words.split(), "--device", "cuda"))
    assert (finished / "night/journal.jsonl").read_bytes() == before, "the look at the test split is not spent"


def test_the_net_computes_where_it_is_told(
    verb: Callable[..., int], monkeypatch: pytest.MonkeyPatch, finished: Path, capsys: Capture
) -> None:
    seen: list[str] = []

    def predict(net: Any, images: Any, *, device: str, **how: Any) -> Any:
        seen.append(device)
        return np.full((len(images), 7), 1 / 7, np.float32)

    monkeypatch.setattr("sweeps.cli.run_verbs.own_device", lambda asked: asked)
    monkeypatch.setattr("fer_models.training.evaluate.predict", predict)
    assert verb("test", "night/2", "--again", "--device", "cuda") == 0
    assert seen == ["cuda"]


def test_runs_that_are_not_there(verb: Callable[..., int], capsys: Capture) -> None:
    assert "did you mean 'night'" in refused(capsys, lambda: verb("test", "nigth"))
    assert "it has 0 to 2" in refused(capsys, lambda: verb("test", "night/7"))


LABELS = np.array([0, 0, 1, 1])
RIGHT = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.2, 0.8]])
WRONG = RIGHT[:, ::-1]


def test_greedy_selection_leaves_a_harmful_member_out() -> None:
    choice = combine(LABELS, np.stack([WRONG, RIGHT]), "greedy")
    assert choice.weights.tolist() == [0, 1]


def test_answers_fitted_apart_owe_nothing_to_the_faces_they_answer() -> None:
    """Of nets that guess, greedy selection makes one that is right on the faces that it selects by."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    guesses = rng.dirichlet([1, 1], (24, 400))
    fitted = combine(labels, guesses, "greedy").probabilities
    apart = fitted_apart(labels, guesses, "greedy")
    assert (fitted.argmax(1) == labels).mean() > (apart.argmax(1) == labels).mean() + 0.05
    np.testing.assert_allclose(fitted_apart(labels, guesses, "mean"), guesses.mean(0))


def test_an_ensemble_with_a_fitted_member_owes_nothing_to_the_faces_it_answers(finished: Path) -> None:
    rewritten(finished, "guess", copied(finished, "guess"))
    for number in range(3):
        path = finished / f"guess/trials/000{number}/val_probabilities.npz"
        guesses = np.random.default_rng(number).dirichlet(np.ones(7), 14).astype(np.float32)
        np.savez(path, **dict(np.load(path)) | {"probabilities": guesses})
    *nets, alone = (find_run(f"guess/{number}", finished) for number in range(3))
    fitted = make_ensemble(nets, "weighted", "fitted", finished)
    nested = make_ensemble([fitted, alone], "mean", "nested", finished)
    found = answers_fitted_apart(nested).probabilities
    by_hand = (answers_fitted_apart(fitted).probabilities + alone.predictions().probabilities) / 2
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)
    assert np.abs(found - nested.predictions().probabilities).max() > 0.01
    note = "the weights of nested/0 were fitted to these faces, so its numbers are too high"
    assert note in compare_runs([alone, nested], [False, False]).notes
    shutil.rmtree(fitted.sweep.root)
    assert note not in compare_runs([alone, nested], [False, False]).notes, "not known any more"


def test_weights_go_to_the_member_with_the_least_log_loss() -> None:
    choice = combine(LABELS, np.stack([WRONG, RIGHT]), "weighted")
    assert choice.weights.sum() == pytest.approx(1)
    assert choice.weights[1] > 0.95


def test_the_mean_by_hand() -> None:
    choice = combine(LABELS, np.stack([WRONG, RIGHT]), "mean")
    np.testing.assert_allclose(choice.probabilities, np.full((4, 2), 0.5))


@pytest.mark.long
def test_the_report_is_utf8_on_any_terminal(finished: Path) -> None:
    command = [sys.executable, "-m", "sweeps", "report", "night", "--out", str(finished)]
    done = subprocess.run(command, env=os.environ | ASCII, cwd=ROOT, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    page = (finished / "night/figures/report.html").read_text(encoding="utf-8")
    assert 'content: " ↑"' in page
    assert "\ufffd" not in page


def test_the_command_of_the_report_gives_the_settings_back() -> None:
    settings = {"recipe.clip_norm": None, "recipe.step_iterations": [10, 20], "recipe.lr": 0.1}
    settings |= {"transfer.weights": "1234", "recipe.views": "true"}
    assert parse_settings([f"{name}={setting_text(value)}" for name, value in settings.items()]) == settings
    spec = fake_trials.spec(settings={"recipe.clip_norm": None})
    assert "--set recipe.clip_norm=null" in _commands(spec, TrainedNet())["run the same sweep again"]
