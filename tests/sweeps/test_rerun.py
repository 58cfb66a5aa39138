"""`sweeps rerun`: a recorded trial trained again and compared to the last bit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fer_models import LeNetConfig, Recipe
from sweeps import Baseline, Space, TrialConfig, run_sweep
from sweeps.cli.main import main
from sweeps.cli.steering.rerun import begin
from sweeps.runs import find_run
from tests.stand_ins import QUIET
from tests.sweeps.fake_trials import refused
from tracking.record.history import SweepHistory

pytestmark = pytest.mark.timeout(120)

Capture = pytest.CaptureFixture[str]


def _lenet(lr: float) -> TrialConfig:
    return TrialConfig(net=LeNetConfig(dropout=0.3), recipe=Recipe(lr=lr, batch_size=8))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, tiny_csv: Path) -> Path:
    """A sweep of a baseline and of one drawn trial, of which the last epoch is taken out: it was given up."""
    out = tmp_path_factory.mktemp("recorded")
    space = Space(suggest=lambda trial: _lenet(0.02), baselines=[Baseline("a report", _lenet(0.01))])
    run_sweep(space, data=tiny_csv, trials=2, epochs=2, name="night", out=out, runner="inline", figures=False)
    journal = out / "night/journal.jsonl"
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    kept = [event for event in events if (event.get("trial"), event.get("epoch")) != (1, 2)]
    journal.write_text("".join(json.dumps(event) + "\n" for event in kept))
    return out


@pytest.fixture
def out(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "runs"))


@pytest.fixture
def rerun(out: Path, no_mlflow: object) -> Callable[..., int]:
    return lambda *words: main(["rerun", *words, "--name", "again", "--out", str(out)])


def change(out: Path, make: Callable[[dict[str, Any]], None]) -> None:
    journal = out / "night/journal.jsonl"
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    for event in events:
        make(event)
    journal.write_text("".join(json.dumps(event) + "\n" for event in events))


def test_the_same_again_is_equal_to_the_last_bit(rerun: Callable[..., int], out: Path, capsys: Capture) -> None:
    before = {path: path.read_bytes() for path in (out / "night").rglob("*") if path.is_file()}
    assert rerun("night/0") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "again/0 equals night/0 to the last bit: scores and losses of 2 epochs, predictions, weights" in said
    assert before == {path: path.read_bytes() for path in (out / "night").rglob("*") if path.is_file()}
    history = SweepHistory.load(out / "again/journal.jsonl")
    assert history.started.tags["rerun.of"] == "night/0"
    assert (history.trials[0].state, history.finished is not None) == ("done", True)


@pytest.mark.parametrize(
    "options", [{"replicates": 2}, {"folds": 2}, {"confirm": 1}, {"cpu_hours": 1e-4, "priority": 3}]
)
def test_only_the_trial_is_trained_again_without_the_limits_of_its_sweep(
    tiny_csv: Path, tmp_path: Path, capsys: Capture, options: dict[str, Any], no_mlflow: object
) -> None:
    out, space = tmp_path / "one", Space(suggest=lambda trial: _lenet(0.02), name="lenet_space")
    run_sweep(
        space,
        data=tiny_csv,
        trials=1,
        epochs=2,
        name="night",
        out=out,
        runner="inline",
        figures=False,
        **options,
        **QUIET,
    )
    capsys.readouterr()
    assert main(["rerun", "night/0", "--name", "again", "--out", str(out)]) == 0
    assert "again/0 equals night/0 to the last bit" in " ".join(capsys.readouterr().out.split())
    history = SweepHistory.load(out / "again/journal.jsonl")
    assert (len(history.trials), history.spec["priority"]) == (1, 0)


def test_the_comparison_as_json(rerun: Callable[..., int], capsys: Capture) -> None:
    assert rerun("night/0", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"original": "night/0", "rerun": "again/0", "equal": True, "differences": [], "versions": []}


def test_the_recorded_seed_holds_and_so_does_the_length(rerun: Callable[..., int], out: Path) -> None:
    """A seed that today's rules would not derive, as a fork's or an earlier version's; a trial given up at epoch 1."""

    def other_seed(event: dict[str, Any]) -> None:
        if event["event"] == "trial" and event["trial"] == 1:
            event["seed"] = 12345

    change(out, other_seed)
    assert rerun("night/1") == 1, "its numbers are of another seed"
    (trial,) = SweepHistory.load(out / "again/journal.jsonl").trials.values()
    assert (trial.started.seed, trial.started.epochs, trial.last_epoch) == (12345, 2, 1)


def test_what_differs_is_a_table(rerun: Callable[..., int], out: Path, capsys: Capture) -> None:
    def other_loss(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and (event["trial"], event["epoch"]) == (0, 2):
            event["metrics"]["val_loss"] += 1e-15
        if event["event"] == "driver":
            event["versions"]["torch"] = "1.0"

    change(out, other_loss)
    assert rerun("night/0") == 1
    said = capsys.readouterr().out
    (row,) = [line for line in said.splitlines() if "val_loss" in line]
    assert "2" in row.split("val_loss")[0]
    assert "torch: 1.0 then" in " ".join(said.split())


def test_a_rerun_that_is_whole_is_only_compared_again(rerun: Callable[..., int], capsys: Capture) -> None:
    assert rerun("night/0") == rerun("night/0") == 0
    assert "is finished" in capsys.readouterr().out
    assert "is no rerun of night/1: choose another --name" in refused(capsys, lambda: rerun("night/1"))


def test_a_rerun_of_a_sweep_with_a_long_name_has_its_time_in_its_name(out: Path) -> None:
    """Of 100 characters `rerun-` has 6, and the trial's number with the time 18."""
    (out / "night").rename(out / ("n" * 95))
    folder = begin(find_run("n" * 95 + "/0", out), None, out)
    assert re.fullmatch(r"rerun-n{76}-0-\d{8}-\d{6}", folder.root.name)


def test_lanes_do_not_hold_for_one_trial_again_nor_is_its_latency_compared(
    rerun: Callable[..., int], out: Path
) -> None:
    def add(event: dict[str, Any]) -> None:
        if event["event"] in ("sweep", "driver"):
            event["spec"] |= {"lanes": 2, "objectives": ["val_accuracy", "latency"]}
        if event["event"] == "epoch":
            event["metrics"]["latency_milliseconds"] = 1e-9

    change(out, add)
    assert rerun("night/1") == 0


def test_a_trial_that_was_retried_from_its_state_is_trained_from_its_start(
    rerun: Callable[..., int], out: Path
) -> None:
    def retried(event: dict[str, Any]) -> None:
        if event["event"] == "trial" and event["trial"] == 1:
            event["wanted"] = {"act": "a", "verb": "retry", "source": 0, "config": {}, "epochs": 2, "epoch": 1}

    change(out, retried)
    assert rerun("night/1") == 0


def test_what_cannot_be_run_again(rerun: Callable[..., int], out: Path, capsys: Capture) -> None:
    def forked(event: dict[str, Any]) -> None:
        if event["event"] == "trial" and event["trial"] == 1:
            event["wanted"] = {"act": "a", "verb": "fork", "source": 0, "config": {}, "epochs": 2, "epoch": 1}

    change(out, forked)
    assert "continued from the state of trial 0 after epoch 1" in refused(capsys, lambda: rerun("night/1"))
    assert "night has no trial '7'" in refused(capsys, lambda: rerun("night/7"))
    assert not (out / "again").exists()
