"""Which trials share a process, and where MPS runs: by options and GPUs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from sweeps.cli.main import main, run_main
from sweeps.options import Options
from sweeps.planning.gpu_share import Sizing
from sweeps.planning.hardware import find_hardware
from sweeps.planning.plan import Plan, make_plan
from tests.stand_ins import Card, FakeNvml
from tests.sweeps.fake_trials import only_sampled, refused


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen cores and one GPU, on which eight LeNets or two AlexNets were worthwhile."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(Card("GPU-a")))
    monkeypatch.setattr("cluster.gpus.torch_cuda", lambda: "13.0")
    monkeypatch.setattr("sweeps.planning.hardware.usable_cpus", lambda: 16)
    sizing = Sizing({"lenet": 1 / 8, "alexnet": 0.5}, ("measured",))
    monkeypatch.setattr("sweeps.planning.gpu_share.measured_shares", lambda plan, configs: sizing)


def planned(tiny_csv: Path, out: Path, **options: Any) -> Plan:
    return make_plan(only_sampled(), Options.parse({"data": tiny_csv, "out": out, **options}), find_hardware)


@pytest.mark.parametrize(
    ("options", "lanes", "at_once", "processes"),
    [
        ({}, 1, 8, 8),
        ({"lanes": 4}, 4, 4, 1),
        ({"lanes": 2}, 2, 2, 1),
        ({"lanes": "auto"}, 4, 8, 2),
        ({"lanes": "auto", "gpus_per_trial": 0.5}, 2, 2, 1),
        ({"lanes": "auto", "gpus_per_trial": 1.0}, 1, 1, 1),
        ({"lanes": 4, "gpus_per_trial": 0.125}, 4, 8, 2),
        ({"lanes": "auto", "max_concurrent": 1}, 1, 1, 1),
        ({"lanes": "auto", "device": "cpu"}, 1, 16, 0),
        ({"lanes": 4, "device": "cpu"}, 4, 16, 0),
    ],
)
def test_lanes_slots_and_mps(
    machine: None, tiny_csv: Path, tmp_path: Path, options: dict[str, Any], lanes: int, at_once: int, processes: int
) -> None:
    plan = planned(tiny_csv, tmp_path, **options)
    assert (plan.slots.lanes, plan.at_once) == (lanes, at_once)
    assert plan.spec.lanes == options.get("lanes", 1), "recorded as it was asked for"
    said = [note for note in plan.sizing if "MPS" in note]
    assert len(said) == (processes > 1), "it is for several processes on one GPU"
    assert plan.slots.of_a_trial.endswith(f", {lanes} trials per process") == (lanes > 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--lanes 4 --gpus-per-trial 0.5", "--gpus-per-trial 0.5 lets 2 at once on a GPU; use --gpus-per-trial 0.25"),
        ("--lanes 2 --gpus-per-trial 1", "--gpus-per-trial 1 lets 1 at once on a GPU; use --gpus-per-trial 0.5"),
        (
            "--lanes 2 --runner inline",
            "--lanes 2: --runner inline trains one trial at a time; use --lanes 1, or --runner ray",
        ),
        ("--lanes 2 --device cpu --cpus-per-trial 2 --workers-per-trial 2", "trained by 2 workers"),
    ],
)
def test_lanes_that_cannot_be_are_refused(
    machine: None, arguments: str, said: str, tiny_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    words = ["run", "lenet_space", "--data", str(tiny_csv), "--out", str(out), *shlex.split(arguments)]
    assert said in refused(capsys, lambda: main(words))
    assert not out.exists()


@pytest.mark.parametrize("asked", ["3", "many"])
def test_another_number_is_refused_with_those_that_there_are(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, lambda: run_main(["lenet_space", "--lanes", asked]))
    assert f"--lanes: unknown '{asked}' (known: 1, 2, 4, auto)" in message
