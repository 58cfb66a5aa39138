"""How many trials a GPU takes at once: what is measured of which configurations, and what follows from it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from fer_data import DataOptions, prepare
from fer_models import AlexNetConfig, LeNetConfig, Recipe
from fer_models.configs.transfer_config import Transfer
from sweeps import TrialConfig
from sweeps.options import Options
from sweeps.planning import gpu_share
from sweeps.planning.gpu_measure import Measured, fitting, measure
from sweeps.planning.gpu_share import Sized, shapes_by_net
from sweeps.planning.hardware import find_hardware
from sweeps.planning.plan import make_plan
from tests.stand_ins import Card, FakeNvml
from tests.sweeps.fake_trials import only_sampled

pytestmark = pytest.mark.timeout(120)

GIB = 1 << 30


def config(lr: float = 0.01, batch_size: int = 8, **more: Any) -> TrialConfig:
    return TrialConfig(net=more.pop("net", LeNetConfig()), recipe=Recipe(lr=lr, batch_size=batch_size, **more))


@pytest.mark.parametrize(
    ("peak_gib", "free_gib", "trials"),
    [
        (2, 16, 7),  # nine tenths of 16 hold seven times 2
        (10, 16, 1),
        (20, 16, 1),  # too large even for one: it is let try
    ],
)
def test_as_many_as_fit_into_what_is_free(peak_gib: int, free_gib: int, trials: int) -> None:
    assert fitting(peak_gib * GIB, free_gib * GIB) == trials


@pytest.mark.parametrize(
    ("rates", "trials", "exhausted"),
    [
        ((100.0,), 1, False),
        ((100.0, 103.0), 1, True),  # without MPS they take turns
        ((100.0, 190.0, 230.0, 250.0), 3, True),  # the fourth adds 9 %
        ((100.0, 190.0, 230.0), 3, False),
        ((), 1, False),
    ],
)
def test_as_many_as_add_a_tenth_each(rates: tuple[float, ...], trials: int, exhausted: bool) -> None:
    measured = Measured(GIB, rates)
    assert (measured.worthwhile, measured.is_exhausted) == (trials, exhausted)


def test_the_lesser_of_memory_and_throughput_decides() -> None:
    fast = Measured(10 * GIB, (100.0, 190.0, 270.0, 340.0))
    assert Sized({"lenet": fast}, free_bytes=80 * GIB).trials("lenet") == 4
    assert Sized({"lenet": fast}, free_bytes=25 * GIB).trials("lenet") == 2
    assert Sized(fault="no GPU").trials("lenet") == 1
    assert "1 trial per GPU, since it could not be measured: no GPU" in Sized(fault="no GPU").words("lenet")
    assert "2 trials per GPU; 10.0 GiB each of 25 free; 100 images/s of one, 190 of 2 together, 270 of 3" in Sized(
        {"lenet": fast}, free_bytes=25 * GIB
    ).words("lenet")


def test_what_changes_no_shape_is_measured_once() -> None:
    alike = [config(0.01), config(0.5), config(weight_decay=0.1), config(net=LeNetConfig(dropout=0.2))]
    alike += [
        config(net=LeNetConfig(dropout=0.4)),
        config(lr_policy="onecycle"),
        config(ema_decay=0.9),
        config(ema_decay=0.99),
    ]
    other = [config(batch_size=16), config(optimizer="adamw"), config(net=AlexNetConfig())]
    shapes = shapes_by_net([*alike, *other])
    assert {net: len(found) for net, found in shapes.items()} == {"lenet": 4, "alexnet": 1}, "the four largest"
    assert [shape.recipe.batch_size for shape in shapes["lenet"]] == [16, 8, 8, 8]
    assert all(shape.recipe.lr < 1e-6 for shape in shapes["lenet"]), "none that would diverge"


def test_the_phase_that_trains_more_is_measured() -> None:
    transfer = Transfer(weights="imagenet", freeze=3, finetune_freeze=0, finetune_epochs_share=0.5)
    ((found,),) = shapes_by_net([config().model_copy(update={"transfer": transfer})]).values()
    assert (found.transfer.freeze, found.transfer.finetune_epochs_share) == (0, 0)


@pytest.mark.long
def test_processes_train_at_once_and_one_that_diverges_does_not_end_the_others(tiny_csv: Path) -> None:
    """On cores, where memory is not looked at; the rates are real."""
    faces = str(prepare(tiny_csv))
    found = measure(
        {"lenet": [config(1e30), config()], "alexnet": [config(1e30, net=AlexNetConfig())]},
        faces=faces, device="cpu", free_bytes=GIB, most=2,
    )  # fmt: skip
    assert len(found["lenet"].rates) == 2
    assert min(found["lenet"].rates) > 0
    assert found["alexnet"].rates == ()
    assert "Diverged: diverged: train_loss" in str(found["alexnet"].fault)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A machine with a GPU on which 3 LeNets, or one AlexNet, are worthwhile; what was really measured."""
    calls: list[dict[str, Any]] = []

    def pretend(nets: dict[str, Any], **how: Any) -> dict[str, Measured]:
        calls.append({"nets": sorted(nets), **how})
        known = {"lenet": Measured(2 * GIB, (100.0, 200.0, 290.0, 300.0)), "alexnet": Measured(40 * GIB, (50.0,))}
        return {net: known[net] for net in nets}

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(Card("GPU-a", free_bytes=70 * GIB)))
    monkeypatch.setattr("cluster.gpus.torch_cuda", lambda: "13.0")
    monkeypatch.setattr(gpu_share, "measure", pretend)
    monkeypatch.setattr("sweeps.planning.resources.usable_cpus", lambda: 16)
    monkeypatch.setattr("sweeps.planning.hardware.usable_cpus", lambda: 16)
    return calls


def test_each_net_of_a_sweep_gets_its_own_share(measured: list[dict[str, Any]], tiny_csv: Path, tmp_path: Path) -> None:
    said: list[str] = []
    options = Options(data=DataOptions(source=str(tiny_csv)), out=tmp_path / "runs", gpus_per_trial="auto")
    plan = make_plan(only_sampled(), options, find_hardware, said.append)
    assert plan.spec.gpu_shares == {"lenet": pytest.approx(1 / 3), "alexnet": 1.0}
    assert (plan.spec.gpu_share("lenet"), plan.spec.gpu_share("vgg16")) == (pytest.approx(1 / 3), 1.0)
    assert plan.slots.count == 3
    assert any("measuring how many trials" in line for line in said)
    assert any(note.startswith("lenet: 3 trials per GPU") for note in plan.notes)
    assert any(note == "MPS is not started: nvidia-cuda-mps-control is not installed" for note in plan.notes)
    assert (measured[0]["most"], measured[0]["free_bytes"]) == (16, 70 * GIB)
    assert not (tmp_path / "runs").exists(), "nothing is written for a plan"


def test_what_was_measured_is_kept_for_that_kind_of_gpu(
    measured: list[dict[str, Any]], tiny_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "cache"))
    options = Options(data=DataOptions(source=str(tiny_csv)), out=tmp_path / "runs")
    shares = [make_plan(only_sampled(), options, find_hardware).spec.gpu_shares for _ in range(2)]
    assert shares[0] == shares[1]
    # One AlexNet alone was measured, and 70 GiB hold no second one. With more free it is measured again.
    assert [call["nets"] for call in measured] == [["alexnet", "lenet"]]
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(Card("GPU-a", total_bytes=80 << 30, free_bytes=180 << 30)))
    make_plan(only_sampled(), options, find_hardware)
    assert measured[-1]["nets"] == ["alexnet"]
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(Card("GPU-b", name="NVIDIA Other")))
    make_plan(only_sampled(), options, find_hardware)
    assert measured[-1]["nets"] == ["alexnet", "lenet"]
