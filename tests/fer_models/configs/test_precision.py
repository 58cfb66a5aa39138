from pathlib import Path

import pytest

from fer_models import NET_NAMES
from fer_models.configs.precision import MEASURED, DeviceKind, device_kind, fastest


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        ("fpu avx512f avx512_bf16 amx_bf16 amx_tile", "cpu-amx"),
        ("fpu avx512f avx512_bf16", "cpu-avx512_bf16"),
        ("fpu avx2 avx512f", "cpu"),
    ],
)
def test_a_cpu_is_known_by_its_flags(flags: str, kind: str, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: some avx512_bf16 amx_bf16 name\nflags\t\t: {flags}\nbugs\t: x\n")
    assert device_kind("cpu", cpuinfo) == kind
    assert device_kind("cuda:1", cpuinfo) == "cuda"
    assert device_kind("cuda", capability=(8, 0)) == "cuda"
    assert device_kind("cuda", capability=(7, 5)) == "cuda-fp16"
    assert device_kind("cuda", capability=(6, 1)) == "cuda-fp32"


def test_a_cpu_that_cannot_be_known_computes_in_fp32(tmp_path: Path) -> None:
    kind = device_kind("cpu", tmp_path / "absent")
    assert {fastest(name, kind)[0] for name in NET_NAMES} == {"fp32"}


@pytest.mark.parametrize("kind", ["cuda", "cuda-fp16", "cuda-fp32", "cpu-amx", "cpu-avx512_bf16", "cpu"])
def test_every_net_has_a_choice_for_every_kind_of_device(kind: DeviceKind) -> None:
    for name in NET_NAMES:
        precision, memory_format = fastest(name, kind)
        assert precision in ("fp32", "bf16", "fp16")
        assert memory_format in ("contiguous", "channels_last")


def test_what_was_measured_names_nets_that_exist() -> None:
    assert {name for name, _ in MEASURED} <= set(NET_NAMES)
