"""The card, its driver, and whether the project counts what torch counts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import torch

from cluster.gpus import own_gpus
from tests.gpu.report import Row

_CONTEXT_MIB = 600


def machine(device: str) -> Iterator[Row]:
    cores = f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}"
    versions = f"torch {torch.__version__}, Python {sys.version.split()[0]}"
    if not device.startswith("cuda"):
        yield Row("machine", None, f"no GPU asked for; {versions}; {cores}")
        return
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,memory.used", "--format=csv,noheader"]
    smi = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    card = torch.cuda.get_device_properties(0)
    found = f"{card.name}, sm_{card.major}{card.minor}, {card.total_memory >> 20} MiB; {smi}"
    yield Row("machine", None, f"{found}; {versions}, cuDNN {torch.backends.cudnn.version()}; {cores}")
    facts = own_gpus()
    ours, theirs = len(facts.gpus), torch.cuda.device_count()
    fault = f"; {facts.fault}" if facts.fault else ""
    yield Row("GPUs counted", ours == theirs and not facts.fault, f"the project sees {ours}, torch {theirs}{fault}")
    before, _ = torch.cuda.mem_get_info()
    a = torch.randn(256, 256, device=device, dtype=torch.bfloat16)
    (a @ a).sum().item()
    torch.nn.functional.conv2d(torch.randn(8, 8, 32, 32, device=device), torch.randn(8, 8, 3, 3, device=device))
    torch.cuda.synchronize()
    after, _ = torch.cuda.mem_get_info()
    used = (before - after) >> 20
    smaller = used <= _CONTEXT_MIB
    yield Row("libraries' memory beside the context", smaller, f"{used} MiB after a product and a convolution")
    large = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        large @ large
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(10):
        large @ large
    torch.cuda.synchronize()
    rate = 10 * 2 * 8192**3 / (time.perf_counter() - started) / 1e12
    yield Row("bf16 product 8192", None, f"{rate:.0f} TFLOP/s", {"tflops": rate})
    yield Row("MPS", None, shutil.which("nvidia-cuda-mps-control") or "nvidia-cuda-mps-control is not installed")
