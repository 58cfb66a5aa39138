"""What a sweep decides by the GPUs that the driver's library lists: refusals, precision, and what it says and records."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps import SweepResult
from sweeps.cli.main import run_main
from sweeps.options import Options
from sweeps.planning.hardware import find_hardware
from sweeps.planning.plan import make_plan
from tests.stand_ins import Card, FakeNvml
from tests.sweeps.fake_trials import refused
from tracking.mlflow_sync.run_records import first_tags

Capture = pytest.CaptureFixture[str]


H100 = Card("GPU-a")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """This machine with one GPU, or another driver, or a torch that was built for another CUDA."""

    def be(card: Card = H100, torch_cuda: str | None = "13.0", **driver: object) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(card, **driver))  # type: ignore[arg-type]
        monkeypatch.setattr("cluster.gpus.torch_cuda", lambda: torch_cuda)

    return be


OLD_DRIVER = {"driver": "535.183", "cuda": 12020}
T4 = {"card": Card("GPU-t4", (7, 5), "Tesla T4")}
GTX = {"card": Card("GPU-gtx", (6, 1), "GeForce GTX 1080")}


@pytest.mark.parametrize(
    ("has", "arguments", "said"),
    [
        ({}, "--device cuda --gpus-per-trial 0", "--gpus-per-trial 0: a trial on a GPU needs a share above 0"),
        ({}, "--gpus-per-trial 0", "or use --device cpu"),
        (OLD_DRIVER, "--device cuda", "--device cuda: driver 535.183 runs CUDA 12.2 at most"),
        ({"torch_cuda": None}, "--device cuda", "--device cuda: the installed torch is a build for CPUs alone"),
        (
            T4,
            "--set precision=bf16 --runner inline",
            "precision bf16: Tesla T4 (compute capability 7.5), driver 580.65",
        ),
        ({}, "--device cpu --set precision=fp16 --runner inline", "precision fp16: is only for GPUs"),
        ({}, "--gpus-per-trial 2", "--gpus-per-trial 2: this machine has 1 GPUs; give at most 1"),
        ({}, "--workers-per-trial 2", "one worker per GPU, 1 here; omit it, or use --gpus-per-trial 2"),
        (
            {},
            "--device cpu --workers-per-trial 2 --cpus-per-trial 2 --set batch_size=1",
            "batch_size 1: fewer faces than the 2 workers of a trial",
        ),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(
    machine: Callable[..., None], has: dict[str, object], arguments: str, said: str, out: Path, capsys: Capture
) -> None:
    machine(**has)
    message = refused(
        capsys, lambda: run_main(["lenet_space", "--limit-train", "350", "--out", str(out), *shlex.split(arguments)])
    )
    assert said in message
    assert not out.exists()


@pytest.mark.parametrize(("has", "precision"), [({}, "bf16"), (T4, "fp16"), (GTX, "fp32")])
def test_the_capability_decides_the_precision_and_the_record_says_on_what(
    machine: Callable[..., None], sweep: Callable[..., SweepResult], has: dict[str, object], precision: str
) -> None:
    machine(**has)
    result = sweep(trials=1)
    assert result[0].started.config["precision"] == precision
    (driver,) = result.history.drivers
    assert driver.spec["device"] == "cuda"
    tags = first_tags(0, result.history.started, result[0].started, driver)
    assert tags["gpus"] == driver.gpus
    assert str(driver.gpus).endswith("driver 580.65, fp32 without TF32")


def test_two_gpus_train_one_trial_together(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(H100, Card("GPU-b")))
    monkeypatch.setattr("cluster.gpus.torch_cuda", lambda: "13.0")
    plan = make_plan("lenet_space", Options.parse({"out": out, "gpus_per_trial": 2.0}), find_hardware)
    assert (plan.at_once, plan.spec.workers, plan.spec.gpu_share("lenet")) == (1, 2, 2)
    assert plan.slots.of_a_trial.endswith("2 GPUs, 2 workers per trial")
    assert plan.sizing == (), "there is nothing to measure"


def test_a_gpu_that_cannot_be_used_is_left_alone_and_it_is_said_why(
    machine: Callable[..., None], run: Callable[..., int], capsys: Capture
) -> None:
    machine(**OLD_DRIVER)
    assert run() == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "no GPU is used: driver 535.183 runs CUDA 12.2 at most" in shown
    assert "at once on cpu" in shown
