"""What a sweep on Ray does when Ray's memory monitor ends its workers."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray.exceptions import OutOfMemoryError
from ray.tune.execution.tune_controller import TuneController

from cluster.connect import prepare_environment
from sweeps.driver.ray_runner import ray_runner
from sweeps.planning.resources import Slots
from sweeps.sharing.gpu_places import GpuPlaces
from tests import ROOT
from tests.sweeps.fake_trials import good_body, only_sampled, open_desk, spec

pytestmark = [pytest.mark.long, pytest.mark.timeout(90)]


def test_the_gpu_of_a_trial_that_pauses_then_is_free_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    asked = spec(trials=2, device="cuda", gpus_per_trial=1.0)
    held = open_desk(tmp_path / "night", only_sampled(first_rung_epochs=9), asked)
    step, ends = TuneController.step, iter([OutOfMemoryError("memory on the node was low")])

    def ended(tuner: TuneController) -> None:
        director = held.director
        if director.out == [0] and director.history.trials[0].epochs and (cause := next(ends, None)):
            director.pause(0, "person")
            raise RuntimeError from cause
        step(tuner)

    monkeypatch.setattr(TuneController, "step", ended)
    slots = Slots(node_cpus=(2,), gpus=1, cpus_per_trial=1.0, gpus_per_trial=1.0, count=1, room=1)
    prepare_environment()
    with ray_runner(slots, places=GpuPlaces(["0"])) as runner:
        runner.run(held.director, good_body)
    states = {number: trial.state for number, trial in held.director.history.trials.items()}
    assert states == {0: "paused", 1: "done"}
