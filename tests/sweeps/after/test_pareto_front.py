"""A sweep's Pareto front: by hand, in the terminal, as JSON, in the report and in MLflow."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from sweeps.after.report_input import sweep_page
from sweeps.cli.main import main
from sweeps.runs import open_sweep
from sweeps.sweep import run_sweep
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests.stand_ins import QUIET
from tests.sweeps.fake_trials import SPACE, metrics
from tracking.metrics.front import pareto_front
from tracking.metrics.pareto import hypervolume

MEASURED = [(0.5, 900.0), (0.4, 300.0), (0.45, 950.0), (0.3, 100.0)]
"""The third is worse than the first in both."""


def body(task: Task) -> Iterator[Message]:
    accuracy, latency = MEASURED[task.trial]
    yield EpochReport(attempt=task.attempt, epoch=1, metrics=metrics(accuracy) | {"latency_milliseconds": latency})
    yield TrialEnd(attempt=task.attempt, state="ended")


@pytest.mark.timeout(90)
def test_the_front_is_shown_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = replace(SPACE, baselines=(), pruner="none", sampler="random")
    run_sweep(
        space, body=body, out=tmp_path, name="both", trials=4, epochs=1, runner="inline", device="cpu",
        objective="val_accuracy,latency", figures=False,
    )  # fmt: skip
    folder, history = open_sweep("both", tmp_path)
    assert [(one.trial.number, one.values) for one in pareto_front(history)] == [
        (0, (0.5, 900.0)),
        (1, (0.4, 300.0)),
        (3, (0.3, 100.0)),
    ]
    capsys.readouterr()
    assert main(["status", "both", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "Pareto front, 3 of 4" in text
    assert "900 ms" in text
    assert main(["list", "--json", "--out", str(tmp_path)]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["pareto"][1] == {"trial": 1, "val_accuracy": 0.4, "latency": 300.0}
    assert main(["list", "--out", str(tmp_path)]) == 0
    shown_list = " ".join(capsys.readouterr().out.split())
    assert "50.00% at 900 ms (trial 0)" in shown_list
    assert "30.00% at 100 ms (trial 3)" in shown_list
    page = sweep_page(folder, history)
    assert "Pareto front" in page
    assert "milliseconds per face" in page
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = [one for one in client.search_experiments() if one.name != "Default"]
    runs = client.search_runs([experiment.experiment_id])
    tagged = {int(run.data.tags["trial"]): run for run in runs if "trial" in run.data.tags}
    assert {number: run.data.tags["pareto"] for number, run in tagged.items()} == {
        0: "true",
        1: "true",
        2: "false",
        3: "true",
    }
    assert tagged[1].data.metrics["latency_milliseconds"] == 300.0
    (own,) = [run for run in runs if "trial" not in run.data.tags]
    volume = 0.3 * (300 - 100) / 950 + 0.4 * (900 - 300) / 950 + 0.5 * (950 - 900) / 950
    assert own.data.metrics["pareto/hypervolume"] == pytest.approx(volume)
    assert own.data.metrics["pareto/size"] == 3


def test_fronts_of_two_sweeps_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = replace(SPACE, baselines=(), pruner="none", sampler="random")
    for name, trials in (("two", 2), ("four", 4)):
        run_sweep(
            space, body=body, out=tmp_path, name=name, trials=trials, epochs=1, runner="inline", device="cpu",
            objective="val_accuracy,latency", figures=False, **QUIET,
        )  # fmt: skip
    capsys.readouterr()
    page = tmp_path / "compared.html"
    assert main(["compare", "two", "four", "--html", str(page), "--out", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    of_two, of_four = (0.4 * (900 - 300) + 0.5 * (950 - 900)) / 950, (0.3 * (300 - 100) + 0.4 * 600 + 0.5 * 50) / 950
    for text in ("val_accuracy, latency", f"{of_two:.4f}", f"{of_four:.4f}", "40.00% at 300 ms"):
        assert text in shown
    written = page.read_text()
    assert "Pareto fronts" in written
    assert f"{of_four:.4f}" in written
    assert written.count("milliseconds per face") == 1


def test_hypervolume_by_hand() -> None:
    assert hypervolume(np.empty((0, 2))) == 0
    assert hypervolume(np.array([[0.5, 0.5]])) == pytest.approx(0.25)
    assert hypervolume(np.array([[0.5, 0.5], [0.2, 0.9], [0.6, 0.6], [1.0, 0.0]])) == pytest.approx(0.25 + 0.3 * 0.1)
    cube = np.array([[0.5, 0.5, 0.5], [0.0, 0.5, 0.75], [0.5, 0.5, 0.9]])
    assert hypervolume(cube) == pytest.approx(0.5**3 + 0.5 * 0.5 * 0.25)
    points = np.random.default_rng(0).random((40, 3))
    grid = np.random.default_rng(1).random((20_000, 3))
    covered = (points[:, None, :] <= grid[None]).all(axis=2).any(axis=0).mean()
    assert hypervolume(points) == pytest.approx(covered, abs=0.02)
