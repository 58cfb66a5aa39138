"""How many trials run at once, and on what share of the machine."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sweeps.errors import InputError

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Slots:
    """`count` trials at once, each with `cpus_per_trial` cores and `gpus_per_trial` of a GPU."""

    cpus: int
    gpus: int
    cpus_per_trial: float
    gpus_per_trial: float
    count: int

    @property
    def threads(self) -> int:
        """Threads of a trial: a thread a core, one at the least."""
        return max(1, int(self.cpus_per_trial))


def visible_gpus() -> int:
    """GPUs of this machine that this process may use, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    driver = Path("/proc/driver/nvidia/gpus")
    return len(list(driver.iterdir())) if driver.is_dir() else 0


def usable_cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def choose_device(asked: str, gpus: int) -> Device:
    """`auto` is the GPU where there is one; asking for one that is not there is an error."""
    if asked == "cuda" and gpus == 0:
        raise InputError("--device cuda: this machine shows no NVIDIA GPU; use --device cpu or auto")
    return "cuda" if gpus and asked != "cpu" else "cpu"


def plan_slots(
    device: Device,
    *,
    cpus_per_trial: float | None = None,
    gpus_per_trial: float | None = None,
    max_concurrent: int | None = None,
    cpus: int | None = None,
    gpus: int | None = None,
) -> Slots:
    """As many trials at once as cores or GPU shares allow. Raises InputError where not one fits."""
    cpus = usable_cpus() if cpus is None else cpus
    gpus = (visible_gpus() if gpus is None else gpus) if device == "cuda" else 0
    gpu_share = (1.0 if gpus_per_trial is None else gpus_per_trial) if device == "cuda" else (gpus_per_trial or 0.0)
    by_gpu = _shares(gpus, gpu_share)
    if cpus_per_trial == 0:
        raise InputError("--cpus-per-trial 0: a trial needs a core, or a part of one, as 0.5")
    cpu_share = cpus_per_trial if cpus_per_trial is not None else max(1.0, cpus // by_gpu) if by_gpu else 1.0
    by_cpu = _fits(cpus, cpu_share, "--cpus-per-trial", "cores")
    count = min(limit for limit in (by_cpu, by_gpu, max_concurrent) if limit is not None)
    return Slots(cpus, gpus, cpu_share, gpu_share, count)


def _shares(gpus: int, share: float) -> int | None:
    """How many trials find their share on one of the GPUs: what each has left over is nobody's."""
    if share > 1 and share % 1:
        raise InputError(f"--gpus-per-trial {share:g}: above 1 it must be a whole number, as Ray wants it")
    fits = _fits(gpus, share, "--gpus-per-trial", "GPUs")
    return fits if fits is None or share > 1 else gpus * int(1 / share + 1e-9)


def _fits(total: int, share: float, option: str, what: str) -> int | None:
    """How many shares there are in `total`; None where the share is nothing."""
    if share < 0 or not math.isfinite(share):
        raise InputError(f"{option} {share:g}: must be 0 or more")
    if share == 0:
        return None
    if share > total:
        raise InputError(f"{option} {share:g}: this machine has {total} {what}; ask for {total} at most")
    return int(total / share + 1e-9)
