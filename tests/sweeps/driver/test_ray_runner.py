"""The runner on Ray obeys its contract where the director raises, which Tune would hide."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.driver.director import Director
from sweeps.driver.ray_runner import ray_runner
from sweeps.planning.resources import Slots
from sweeps.trial.messages import Message, Task
from tests.cluster.processes import environment, python, ray_head
from tests.cluster.quick_trials import diaries
from tests.sweeps.fake_trials import good_body, only_sampled, open_desk, spec
from tracking.record.events import EpochDone, Event
from tracking.record.history import SweepHistory
from tracking.record.journal import _write_all

pytestmark = pytest.mark.timeout(120)

SLOTS = Slots(node_cpus=(2,), gpus=0, cpus_per_trial=1.0, gpus_per_trial=0.0, count=2, room=2)


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


@pytest.mark.long
def test_a_group_waits_at_a_rung_on_ray_and_its_best_is_confirmed(
    ray_of_the_caller: None, run: Callable[..., int], out: Path
) -> None:
    options = ("--baselines", "none", "--trials", "3", "--epochs", "3", "--replicates", "2", "--confirm", "1")
    assert run("--runner", "ray", "--pruner", "promoting", *options) == 0
    history = SweepHistory.load(out / "night/journal.jsonl")
    assert not history.unfinished
    assert (history.count("done"), history.count("pruned")) == (4, 2)
    assert [trial.state for trial in history.trials.values() if trial.is_confirming] == ["done", "done"]


def one_slow(task: Task) -> Iterator[Message]:
    """As `good_body`, but the epochs of trial 1 take seconds. Trial 0 waits until it has begun."""
    begun = Path(task.folder).parent / "begun"
    if task.trial == 1:
        begun.touch()
    while not begun.exists():
        time.sleep(0.05)
    for message in good_body(task):
        time.sleep(3.0 * task.trial)
        yield message


@pytest.mark.long
@pytest.mark.parametrize("hurried", [False, True], ids=["a limit", "a signal"])
def test_only_a_signal_leaves_a_long_epoch_after_the_grace(
    ray_of_the_caller: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hurried: bool
) -> None:
    monkeypatch.setattr("sweeps.driver.ray_runner.GRACE_SECONDS", 0.3)

    def stop(event: Event, _: SweepHistory) -> None:
        if isinstance(event, EpochDone) and event.trial == 0:
            held.director.request_stop("enough", hurried=hurried)

    held = open_desk(tmp_path / "night", only_sampled(first_rung_epochs=9), spec(trials=2), listeners=(stop,))
    with ray_runner(SLOTS) as runner:
        runner.run(held.director, one_slow)
    held.director.leave()
    trials = held.director.history.trials
    assert {trial.state for trial in trials.values()} == {"stopped"}
    assert [trials[number].last_epoch for number in (0, 1)] == [1, 0 if hurried else 1]


def test_a_limit_does_not_wait_for_a_trial_that_finds_no_room(ray_of_the_caller: None, tmp_path: Path) -> None:
    def stop(director: Director) -> None:
        if director.out:
            director.run_out("the time budget is used up")

    held = open_desk(tmp_path / "night", only_sampled(), spec(trials=1), attendants=(stop,))
    with ray_runner(replace(SLOTS, cpus_per_trial=4.0)) as runner:
        runner.run(held.director, good_body)
    held.director.leave()
    assert held.director.history.trials[0].state == "paused"


@pytest.mark.long
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
