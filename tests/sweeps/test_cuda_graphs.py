"""--cuda-graphs: from the command line to the steps. What a graph does is tests/fer_models/training/test_captured.py."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fer_models import LeNetConfig, Recipe
from sweeps.cli.main import main
from sweeps.config import TrialConfig
from sweeps.options import Options
from sweeps.planning.hardware import find_hardware
from sweeps.planning.plan import make_plan
from sweeps.sweep import run_plan
from sweeps.trial.messages import EpochReport, Message, Task
from sweeps.trial.run_trial import run_trial
from tests.replayed import Replayed
from tests.stand_ins import QUIET
from tests.sweeps import fake_trials
from tests.sweeps.fake_trials import refused


def test_on_cores_they_are_refused(tiny_csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "lenet_space", "--data", str(tiny_csv), "--cuda-graphs", "on", "--device", "cpu"]
    assert "--cuda-graphs on: the trials run on cores; use it with --device cuda" in refused(
        capsys, lambda: main(words)
    )
    assert not Path("runs").exists()


def test_a_trials_steps_are_replayed_where_the_sweep_asks_for_it(
    tiny_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_common.captured.CudaGraph", Replayed)
    space = replace(
        fake_trials.SPACE,
        suggest=lambda trial: TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=0.01, batch_size=8)),
        baselines=[],
    )
    losses: dict[bool, list[float]] = {}
    replays = {}

    def body(task: Task) -> Iterator[Message]:
        before, losses[task.cuda_graphs] = Replayed.replays, []
        for message in run_trial(task):
            if isinstance(message, EpochReport):
                losses[task.cuda_graphs].append(message.metrics["train_loss"])
            replays[task.cuda_graphs] = Replayed.replays - before
            yield message

    for name, graphs in (("usual", "off"), ("graphs", "on")):
        asked = {"data": tiny_csv, "trials": 1, "epochs": 2, "name": name, "out": tmp_path, "runner": "inline"}
        plan = make_plan(space, Options.parse({**asked, "figures": False}), find_hardware)
        plan = replace(plan, spec=plan.spec.model_copy(update={"cuda_graphs": graphs}))
        run_plan(plan, body=body, **QUIET)
    assert losses[True] == losses[False]
    assert len(losses[True]) == 2
    assert replays == {False: 0, True: 2 * (2 * 7 - 4)}, "steps and batches, but those to warm up and the recorded one"
