"""Which precision and memory format trains a net fastest, as measured. Does not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fer_models.configs.recipe import MemoryFormat, Precision

DeviceKind = Literal["cuda", "cuda-fp16", "cuda-fp32", "cpu-amx", "cpu-avx512_bf16", "cpu"]

BF16_CAPABILITY = (8, 0)
"""The lowest compute capability with bfloat16 tensor cores; below it torch emulates bfloat16 slowly."""

FP16_CAPABILITY = (7, 0)
"""The lowest compute capability with tensor cores, which compute in float16."""

# Training, images/s of processor time, one thread, batch 128, SGD; torch 2.14.1, November 2026; medians of 9 steps
# taken in turns. The first block is an Intel Sapphire Rapids; the second is the same processor with oneDNN held to
# AVX-512 without bf16 (ONEDNN_MAX_CPU_ISA=AVX512_CORE).
#                              fp32 contiguous  fp32 channels_last  bf16 contiguous  bf16 channels_last
#   cpu-amx  lenet                         662               1,117            1,122               2,238
#            alexnet, lrn                  719                 730              972               1,171
#            alexnet, batch                649                 847              932               1,038
#            compact_resnet                233                 277              444                 607
#   cpu      lenet                         582                 989              172                 240
#            alexnet, lrn                  535                 552              183                 186
#            alexnet, batch                597                 867              225                 228
# cpu-avx512_bf16, on an AMD Zen 4 with two threads, single runs: lenet 589 in fp32 contiguous, 2,059 in bf16
# channels_last; alexnet, with torch's own layers, 517 in fp32 and 735 in bf16 contiguous. The Intel processor held to
# AVX-512 with bf16 but without AMX is faster in fp32 (lenet 818 against 482): pin fp32 on such a machine.
# Other nets use the default of the device, mostly unmeasured: with it a small VGG with batch norm on that Zen 4 went
# from 181 to 448. cuda is not measured either: tensor cores are made for 16 bits in channels_last.
MEASURED: dict[tuple[str, DeviceKind], tuple[Precision, MemoryFormat]] = {
    ("alexnet", "cpu-avx512_bf16"): ("bf16", "contiguous"),
}
"""Nets whose measured best differs from the default of the device."""

_USUAL: dict[DeviceKind, tuple[Precision, MemoryFormat]] = {
    "cuda": ("bf16", "channels_last"),
    "cuda-fp16": ("fp16", "channels_last"),
    "cuda-fp32": ("fp32", "contiguous"),
    "cpu-amx": ("bf16", "channels_last"),
    "cpu-avx512_bf16": ("bf16", "channels_last"),
    "cpu": ("fp32", "channels_last"),
}


def fastest(net_name: str, device_kind: DeviceKind) -> tuple[Precision, MemoryFormat]:
    """Precision and memory format for a net of `NET_NAMES` on a kind of device."""
    return MEASURED.get((net_name, device_kind), _USUAL[device_kind])


def device_kind(
    device: str, cpuinfo: Path = Path("/proc/cpuinfo"), capability: tuple[int, int] | None = None
) -> DeviceKind:
    """The hardware with which `device` ("cpu", "cuda", "cuda:1") computes bf16; "cpu" if it is unknown.

    A GPU with unknown compute `capability` is assumed to have bf16.
    """
    if device.startswith("cuda"):
        if capability is None or capability >= BF16_CAPABILITY:
            return "cuda"
        return "cuda-fp16" if capability >= FP16_CAPABILITY else "cuda-fp32"
    try:
        flags = set(cpuinfo.read_text(encoding="utf-8").partition("\nflags")[2].partition("\n")[0].split())
    except OSError:
        return "cpu"
    if "amx_bf16" in flags:
        return "cpu-amx"
    return "cpu-avx512_bf16" if "avx512_bf16" in flags else "cpu"
