"""Sweeps small enough to be run whole, as a user runs them: another process, real Ray, real SQLite MLflow."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from sweeps.trial.messages import SYSTEM
from tests import ROOT
from tracking.record.events import AttemptStarted, DriverStarted, DriverStopped, SweepStarted, TrialEnded
from tracking.record.journal import read

_TIMES = {"epoch_seconds", "images_per_second", "best_epoch_seconds", "best_images_per_second"}


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments of a sweep whose epochs take a third of a second: 140 faces to train on, 42 to validate."""
    rng = np.random.default_rng(3)
    rows = ["emotion,pixels,Usage"]
    for usage, copies in (("Training", 20), ("PublicTest", 6), ("PrivateTest", 1)):
        for label in [*range(7)] * copies:
            face = rng.integers(0, 120, (48, 48))
            face[6 * label : 6 * label + 6] += 130
            rows.append(f"{label},{' '.join(map(str, face.ravel()))},{usage}")
    csv = tmp_path_factory.mktemp("csv") / "small.csv"
    csv.write_text("\n".join(rows) + "\n")
    return [str(ROOT / "tests/integration/small_space.py"), "--data", str(csv), "--max-concurrent", "1"]


Start = Callable[..., subprocess.Popen[str]]


@contextmanager
def started(out: Path) -> Iterator[Start]:
    """A function that starts a sweep with `--out out`; what still runs at the end of the block is killed."""
    running: list[subprocess.Popen[str]] = []

    def start_sweep(
        *arguments: str, module: str = "tests.integration.no_pictures", closing: str = ""
    ) -> subprocess.Popen[str]:
        shell = ["sh", "-c", f'exec "$@" {closing}', "sh"] if closing else []  # `closing` as ">&-"
        process = subprocess.Popen(
            [*shell, sys.executable, "-m", module, *arguments, *([] if "--out" in arguments else ["--out", str(out)])],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "GIT_PYTHON_REFRESH": "quiet"},
        )
        running.append(process)
        return process

    yield start_sweep
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`started` in the test's own folder."""
    with started(tmp_path) as start_sweep:
        yield start_sweep


def finish(process: subprocess.Popen[str], seconds: float = 180) -> tuple[int, str]:
    """The exit code and everything printed."""
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


def lines(journal: Path) -> int:
    """Lines of a journal that may not be there yet."""
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def what_happened(journal: Path) -> list[dict[str, Any]]:
    """A journal's events without times, and without what only says that a driver came or went."""
    kept = []
    for event in read(journal):
        if isinstance(event, SweepStarted | DriverStarted | DriverStopped | AttemptStarted):
            continue
        if isinstance(event, TrialEnded) and not event.final:
            continue
        content = event.model_dump(mode="json", exclude={"time_ms"})
        for part in ("metrics", "best"):
            if part in content:
                content[part] = {
                    name: value
                    for name, value in content[part].items()
                    if name not in _TIMES and not name.startswith(SYSTEM)
                }
        kept.append(content)
    return kept


def check_mlflow(uri: str, journal: Path, experiment: str) -> list[Run]:
    """Each acknowledged (trial, epoch) of the sweep stands in MLflow once, one run a trial, none RUNNING.

    Returns the trials' runs, by number.
    """
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    mine = f"tags.sweep = '{journal.parent.name}'"
    runs = client.search_runs([found.experiment_id], mine, max_results=1000)
    trials = {run.data.tags["trial"]: run for run in runs if "trial" in run.data.tags}
    events = list(read(journal))
    expected = {str(event.trial) for event in events if event.event == "trial"}
    assert sorted(trials) == sorted(expected)
    assert len(runs) == len(expected) + 1
    assert [run.info.status for run in runs if run.info.status == "RUNNING"] == []
    for event in events:
        if event.event == "epoch":
            for name, value in event.metrics.items():
                points = client.get_metric_history(trials[str(event.trial)].info.run_id, name)
                here = [point.value for point in points if point.step == event.epoch]
                assert here == [value], (event.trial, event.epoch, name)
    return [trials[number] for number in sorted(trials, key=int)]


def states(journal: Path) -> Counter[str]:
    """How many trials ended for good in each state."""
    return Counter(event.state for event in read(journal) if isinstance(event, TrialEnded) and event.final)
