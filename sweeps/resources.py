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
    """`count` trials at once, each with `cpus_per_trial` cores of one node and `gpus_per_trial` of a GPU."""

    node_cpus: tuple[int, ...]
    gpus: int
    cpus_per_trial: float
    gpus_per_trial: float
    count: int

    @property
    def cpus(self) -> int:
        """Cores of all nodes."""
        return sum(self.node_cpus)

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
    node_cpus: tuple[int, ...] | None = None,
    gpus: int | None = None,
) -> Slots:
    """As many trials at once as each node's cores, or GPU shares, allow. Raises InputError where not one fits.

    Without `node_cpus` and `gpus` it is this machine's.
    """
    node_cpus = node_cpus or (usable_cpus(),)
    gpus = (visible_gpus() if gpus is None else gpus) if device == "cuda" else 0
    gpu_share = (1.0 if gpus_per_trial is None else gpus_per_trial) if device == "cuda" else (gpus_per_trial or 0.0)
    by_gpu = _shares(gpus, gpu_share)
    if cpus_per_trial == 0:
        raise InputError("--cpus-per-trial 0: a trial needs a core, or a part of one, as 0.5")
    even = min(max(1.0, sum(node_cpus) // by_gpu), max(node_cpus)) if by_gpu else 1.0
    cpu_share = even if cpus_per_trial is None else cpus_per_trial
    by_cpu = _fits(node_cpus, cpu_share, "--cpus-per-trial", "cores")
    count = min(limit for limit in (by_cpu, by_gpu, max_concurrent) if limit is not None)
    return Slots(node_cpus, gpus, cpu_share, gpu_share, count)


def _shares(gpus: int, share: float) -> int | None:
    """How many trials find their share on one of the GPUs: what each has left over is nobody's."""
    if share > 1 and share % 1:
        raise InputError(f"--gpus-per-trial {share:g}: above 1 it must be a whole number, as Ray wants it")
    fits = _fits((gpus,), share, "--gpus-per-trial", "GPUs")
    return fits if fits is None or share > 1 else gpus * int(1 / share + 1e-9)


def _fits(nodes: tuple[int, ...], share: float, option: str, what: str) -> int | None:
    """How many shares there are on all nodes, none across two; None where the share is nothing."""
    if share < 0 or not math.isfinite(share):
        raise InputError(f"{option} {share:g}: must be 0 or more")
    if share == 0:
        return None
    if share > max(nodes):
        whose = "this machine has" if len(nodes) == 1 else "the largest node has"
        raise InputError(f"{option} {share:g}: {whose} {max(nodes)} {what}; ask for {max(nodes)} at most")
    return sum(int(node / share + 1e-9) for node in nodes)
