"""The share of a GPU that a trial needs, by the memory that its space's configurations take there."""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from fer_data import open_cached
from sweeps.config import TrialConfig

if TYPE_CHECKING:
    from sweeps.planning.plan import Plan

_SAMPLES = 8
_CONTEXT_BYTES = 600 << 20
"""What a process takes of a GPU before its first tensor: CUDA's context and its kernels."""


def measured_share(plan: Plan) -> float:
    """The share for the largest of the baselines and some samples; a whole GPU where measuring fails."""
    from sweeps.planning.dry_run import configurations

    configs = [config for _, config in configurations(plan, _SAMPLES)]
    # A process of its own, so that the driver keeps no hold of the GPU.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return share_for_memory(*pool.submit(_measure, plan.spec.faces, configs).result())
        except (RuntimeError, BrokenProcessPool):
            return 1.0


def share_for_memory(peak_bytes: int, gpu_bytes: int) -> float:
    """1/n for n trials of `peak_bytes` at their peak, a tenth of the GPU left spare.

    Memory is not partitioned between trials, so when in doubt (nothing measured) a trial gets a whole GPU.
    """
    if peak_bytes <= 0 or gpu_bytes <= 0:
        return 1.0
    return 1.0 / max(1, math.floor(0.9 * gpu_bytes / peak_bytes))


def _measure(faces: str, configs: list[TrialConfig]) -> tuple[int, int]:
    """Peak bytes of a trial, and the bytes of the smallest GPU."""
    import torch

    from fer_data.cache.preprocess_cache import preprocessed
    from sweeps.planning.dry_run import measure

    for config in configs:
        measure(open_cached(preprocessed(Path(faces), config.preprocess)), "", config, "cuda")
    gpus = range(torch.cuda.device_count())
    smallest = min(torch.cuda.get_device_properties(gpu).total_memory for gpu in gpus)
    return torch.cuda.max_memory_allocated() + _CONTEXT_BYTES, smallest
