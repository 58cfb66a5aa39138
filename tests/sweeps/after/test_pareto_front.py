"""A sweep's Pareto front: by hand, in the terminal, as JSON, in the report and in MLflow."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from sweeps.after.report_input import sweep_page
from sweeps.cli.main import main
from sweeps.runs import open_sweep
from sweeps.sweep import run_sweep
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests.sweeps.fake_trials import SPACE, metrics
from tracking.metrics.front import pareto_front

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
