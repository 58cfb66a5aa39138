"""What a trial takes of its machine, from the worker to MLflow's own corner for it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from fer_models import Recipe
from sweeps import Baseline, Space, TrialConfig, run_sweep
from sweeps.trial.messages import CPU, MEMORY
from sweeps.trial.resource_usage import Usage
from tests.stand_ins import QUIET, SMALL_NET


def test_a_busy_process_uses_a_core_and_an_idle_one_none() -> None:
    usage = Usage("cpu")
    before = time.process_time(), time.perf_counter()
    while time.process_time() - before[0] < 0.3:
        pass
    busy = usage.since_last()
    expected = 100 * (time.process_time() - before[0]) / (time.perf_counter() - before[1])
    # The kernel counts in hundredths of a second.
    assert busy[CPU] == pytest.approx(expected, rel=0.1)
    time.sleep(0.3)
    assert usage.since_last()[CPU] < 20
    assert set(busy) == {CPU, MEMORY}


def test_memory_is_resident_memory_in_megabytes() -> None:
    usage = Usage("cpu")
    before = usage.since_last()[MEMORY]
    taken = np.ones(25_000_000)
    assert usage.since_last()[MEMORY] - before == pytest.approx(taken.nbytes / 1e6, rel=0.1)


def test_a_gpu_is_measured_where_the_trial_trains_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    resets: list[None] = []
    monkeypatch.setattr("torch.cuda.max_memory_reserved", lambda: 3_000_000)
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda: resets.append(None))
    monkeypatch.setattr("torch.cuda.utilization", lambda: 87)
    usage = Usage("cuda")
    assert {name: value for name, value in usage.since_last().items() if "gpu" in name} == {
        "system/gpu_memory_megabytes": 3.0,
        "system/gpu_utilization_percentage": 87.0,
    }
    assert len(resets) == 2

    def refuse() -> int:
        raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")

    monkeypatch.setattr("torch.cuda.utilization", refuse)
    assert "system/gpu_utilization_percentage" not in usage.since_last()


def test_a_measurement_takes_less_than_a_millisecond() -> None:
    usage = Usage("cpu")
    times = []
    for _ in range(50):
        started = time.perf_counter()
        usage.since_last()
        times.append(time.perf_counter() - started)
    assert float(np.median(times)) < 1e-3


def test_every_epoch_has_it_and_no_result_is_made_of_it(tmp_path: Path, tiny_csv: Path) -> None:
    config = TrialConfig(net=SMALL_NET, recipe=Recipe(lr=0.01, batch_size=8))
    space = Space(suggest=lambda trial: config, baselines=[Baseline("report", config)])
    (trial,) = run_sweep(
        space,
        data=tiny_csv,
        trials=1,
        epochs=2,
        name="night",
        out=tmp_path,
        runner="inline",
        figures=False,
        **QUIET,
    )
    assert [epoch.metrics[CPU] > 0 and epoch.metrics[MEMORY] > 100 for epoch in trial.epochs] == [True, True]
    assert trial.end is not None
    assert "best_epoch_seconds" in trial.end.best
    assert not [name for name in trial.end.best if "system" in name]
