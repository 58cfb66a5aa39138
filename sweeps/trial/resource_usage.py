"""Measures the resources that a trial uses while it trains."""

from __future__ import annotations

import psutil

from sweeps.trial.messages import CPU, GPU, GPU_MEMORY, MEMORY

_MEGABYTE = 1e6


class Usage:
    """Measures this process from one epoch to the next; `device` is where it trains."""

    def __init__(self, device: str) -> None:
        self._process = psutil.Process()
        self._on_gpu = device.startswith("cuda")
        self.since_last()

    def since_last(self) -> dict[str, float]:
        """Usage since the last call, by name; with GPU metrics only if it trains on a GPU."""
        used = {
            CPU: self._process.cpu_percent(),
            MEMORY: self._process.memory_info().rss / _MEGABYTE,
        }
        return used | (_gpu() if self._on_gpu else {})


def _gpu() -> dict[str, float]:
    import torch

    used = {GPU_MEMORY: torch.cuda.max_memory_reserved() / _MEGABYTE}
    torch.cuda.reset_peak_memory_stats()
    try:
        used[GPU] = float(torch.cuda.utilization())
    except Exception:  # nvidia-ml-py is missing, or raises its own error: MIG slices lack these numbers
        return used
    return used
