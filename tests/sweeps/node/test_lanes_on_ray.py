"""A sweep whose trials share a process, on real Ray: the process is killed, and the sweep comes to the same results."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from fer_models import LeNetConfig, Recipe
from sweeps import Space, SweepResult, TrialConfig, run_sweep
from tests import ROOT
from tests.stand_ins import QUIET
from tests.sweeps.node.lane_trials import noting
from tracking.record.events import EpochDone, Event
from tracking.record.history import SweepHistory

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


def suggest(trial: optuna.Trial) -> TrialConfig:
    lr = trial.suggest_float("lr", 1e-4, 1e-2)
    return TrialConfig(net=LeNetConfig(dropout=0.3), recipe=Recipe(lr=lr, batch_size=8))


SPACE = Space(suggest=suggest, max_epochs=3, trials=4, name="lanes", sampler="random", pruner="none")


@pytest.fixture(scope="module")
def ray_of_the_caller() -> Iterator[None]:
    from cluster.connect import local_ray, prepare_environment

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        prepare_environment()
        with local_ray(cpus=2, gpus=0):
            yield


def test_a_killed_process_of_two_trials_changes_no_result(
    ray_of_the_caller: None, tiny_csv: Path, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_once(event: Event, history: SweepHistory) -> None:
        """Once both trials have begun."""
        begun = list((tmp_path / "shared/trials").glob("*.pids"))
        if isinstance(event, EpochDone) and not killed and len(begun) >= 2:
            killed.append(int(begun[0].read_text().split()[-1]))
            os.kill(killed[0], signal.SIGKILL)

    asked: dict[str, Any] = {"data": tiny_csv, "out": tmp_path, "figures": False, "body": noting, **QUIET}
    shared = run_sweep(
        SPACE, name="shared", lanes=2, cpus_per_trial=0.5, max_concurrent=2, listeners=[kill_once], **asked
    )
    alone = run_sweep(SPACE, name="alone", runner="inline", **asked)
    assert killed
    assert [trial.state for trial in shared] == ["done"] * 4
    assert numbers(shared) == numbers(alone)
    retried = [trial for trial in shared if trial.attempts]
    assert 1 <= len(retried) <= 2
    assert all("that this trial shared with others has ended" in trial.attempts[0].reason for trial in retried)
    pids = {path.name: path.read_text().split() for path in (tmp_path / "shared/trials").glob("*.pids")}
    first = [number for number, where in pids.items() if str(killed[0]) in where]
    assert len(first) >= 2, "they shared it"


def numbers(result: SweepResult) -> list[list[tuple[float, float]]]:
    return [[(one.metrics["train_loss"], one.metrics["val_loss"]) for one in trial.epochs] for trial in result]
