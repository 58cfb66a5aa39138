"""The runner on Ray obeys its contract where the director raises, which Tune would hide."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.processes import environment, python, ray_head
from tests.cluster.quick_trials import diaries
from tracking.record.history import SweepHistory
from tracking.record.journal import _write_all

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("kind", ["trial", "epoch", "end"])
def test_a_journal_write_that_fails_once_ends_the_sweep_with_one_line(
    ray_of_the_caller: None,
    run: Callable[..., int],
    out: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    faults = iter([OSError(errno.EIO, os.strerror(errno.EIO))])

    def failing(descriptor: int, data: bytes) -> None:
        if f'"event":"{kind}"'.encode() in data and (fault := next(faults, None)):
            raise fault
        _write_all(descriptor, data)

    monkeypatch.setattr("tracking.record.journal._write_all", failing)
    code = run("--runner", "ray", "--trials", "2")
    captured = capsys.readouterr()
    assert code == 2
    journal = out / "night/journal.jsonl"
    assert captured.err.startswith(f"error: cannot write to {journal}: Input/output error; everything recorded")
    assert "Traceback" not in captured.err + captured.out
    assert "died" not in captured.out

    assert run("--runner", "inline", "--trials", "2", "--resume") == 0
    assert {trial.state for trial in SweepHistory.load(journal).trials.values()} == {"done"}


def test_trials_pause_at_rungs_and_continue_on_ray(ray_of_the_caller: None, run: Callable[..., int], out: Path) -> None:
    options = ("--baselines", "none", "--trials", "5", "--epochs", "3")
    assert run("--runner", "ray", "--pruner", "promoting", "--sampler", "qmc-tpe", *options) == 0
    history = SweepHistory.load(out / "night/journal.jsonl")
    assert not history.unfinished
    assert (history.count("done"), history.count("pruned")) == (2, 3)


def test_a_group_waits_at_a_rung_on_ray_and_its_best_is_confirmed(
    ray_of_the_caller: None, run: Callable[..., int], out: Path
) -> None:
    options = ("--baselines", "none", "--trials", "3", "--epochs", "3", "--replicates", "2", "--confirm", "1")
    assert run("--runner", "ray", "--pruner", "promoting", *options) == 0
    history = SweepHistory.load(out / "night/journal.jsonl")
    assert not history.unfinished
    assert (history.count("done"), history.count("pruned")) == (4, 2)
    assert [trial.state for trial in history.trials.values() if trial.is_confirming] == ["done", "done"]


def test_on_a_joined_ray_a_slot_keeps_its_worker_from_trial_to_trial(tmp_path: Path) -> None:
    asked = {
        "name": "sweep",
        "out": str(tmp_path),
        "tracking_uri": f"sqlite:///{tmp_path}/mlflow.db",
        "trials": 6,
        "epochs": 2,
    }
    with ray_head(tmp_path) as address:
        ran = python(
            environment(tmp_path), "-m", "tests.cluster.quick_trials", json.dumps(asked | {"address": address})
        )
    assert ran.returncode == 0, ran.stderr
    lines = diaries(tmp_path / "sweep")
    assert len({line["trial"] for line in lines}) == 6
    assert len({line["pid"] for line in lines}) == 2, "one per slot: a new one costs each trial its imports"
