"""Which GPUs a process has, by the driver's library, and whether its torch can use them."""

import sys

import pytest

from cluster import gpus
from cluster.gpus import Driver, all_gpus, own_gpus, torch_cuda, torch_fault
from tests.stand_ins import Card, FakeNvml

TWO = FakeNvml(Card("GPU-aaaa-1"), Card("GPU-abbb-2", (7, 5)))
SPLIT = FakeNvml(
    Card("GPU-whole", slices=(Card("MIG-one", total_bytes=10 << 30), Card("MIG-two", total_bytes=20 << 30)))
)


@pytest.fixture(autouse=True)
def torch_for_cuda_13(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "torch_cuda", lambda: "13.0")


@pytest.mark.parametrize(
    ("machine", "visible", "uuids"),
    [
        (TWO, None, ["GPU-aaaa-1", "GPU-abbb-2"]),
        (TWO, "", []),
        (TWO, "-1", []),
        (TWO, "NoDevFiles", []),
        (TWO, "1", ["GPU-abbb-2"]),
        (TWO, "1, 0", ["GPU-abbb-2", "GPU-aaaa-1"]),
        (TWO, "0,7,1", ["GPU-aaaa-1"]),
        (TWO, "0,0", []),
        (TWO, "GPU-abbb", ["GPU-abbb-2"]),
        (TWO, "GPU-a", []),
        (SPLIT, None, ["MIG-one"]),
        (SPLIT, "0", ["MIG-one"]),
        (SPLIT, "MIG-two,MIG-one", ["MIG-two", "MIG-one"]),
        (FakeNvml(), "0", []),
    ],
)
def test_what_cuda_shows_is_counted(
    machine: FakeNvml, visible: str | None, uuids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", machine)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.uuid for gpu in own_gpus().gpus] == uuids


def test_what_a_gpu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    facts = all_gpus()
    assert (facts.driver, facts.fault) == (Driver("580.65", (13, 0)), None)
    assert [gpu.capability for gpu in facts.gpus] == [(9, 0), (7, 5)]
    assert (facts.gpus[0].total_bytes, facts.gpus[0].free_bytes) == (80 << 30, 70 << 30)
    monkeypatch.setitem(sys.modules, "pynvml", SPLIT)
    (part,) = all_gpus().gpus
    assert (part.total_bytes, part.capability) == (10 << 30, (9, 0)), "memory of the slice, capability of the whole"


def test_a_torch_that_cannot_use_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Driver("535.183", (12, 2))
    assert "build for CPUs alone" in str(torch_fault(old, None))
    said = str(torch_fault(old, "13.0"))
    assert said.startswith("driver 535.183 runs CUDA 12.2 at most, the installed torch is built for CUDA 13.0")
    assert "(580 or newer)" in said
    assert torch_fault(old, "12.8") is None, "within a major version any driver will do"
    assert torch_fault(Driver("590.1", (13, 1)), "12.8") is None
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(Card("GPU-a"), driver="535.183", cuda=12020))
    assert "driver 535.183" in str(all_gpus().fault)


def test_the_cuda_of_the_installed_torch_is_read_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delitem(sys.modules, "torch")
    assert torch_cuda() == torch.version.cuda
    assert "torch" not in sys.modules
