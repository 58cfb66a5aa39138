"""Computes how many trials run at once, and with which share of the machine."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from cluster.gpus import GpuFacts, own_gpus
from sweeps.errors import InputError

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Slots:
    """`count` trials at once, each with at least `cpus_per_trial` cores and `gpus_per_trial` GPUs of one node.

    A trial with more than one GPU has whole GPUs. `mps` means that NVIDIA's Multi-Process Service is to run.
    """

    node_cpus: tuple[int, ...]
    gpus: int
    cpus_per_trial: float
    gpus_per_trial: float
    count: int
    room: int
    """Maximum number of trials at once without --max-concurrent."""
    mps: bool = False
    workers: int = 1
    """Number of processes that train a trial together."""
    lanes: int = 1
    """Number of trials that share a process."""

    @property
    def cpus(self) -> int:
        """The number of cores of all nodes."""
        return sum(self.node_cpus)

    @property
    def threads(self) -> int:
        """The number of threads of a trial: one per core, at least one."""
        return max(1, int(self.cpus_per_trial))

    @property
    def of_a_trial(self) -> str:
        """The resources of one trial, as text."""
        cores = "1 core" if self.cpus_per_trial == 1 else f"{self.cpus_per_trial:g} cores"
        gpus = f", {self.gpus_per_trial:g} GPU{'s' * (self.gpus_per_trial > 1)}" if self.gpus_per_trial else ""
        workers = f", {self.workers} workers" if self.workers > 1 else ""
        lanes = f", {self.lanes} trials per process" if self.lanes > 1 else ""
        return f"{cores}{gpus}{workers} per trial{lanes}"


@dataclass(frozen=True)
class Hardware:
    """Cores and GPUs of each node; `facts` describes the GPUs that could be queried."""

    node_cpus: tuple[int, ...]
    node_gpus: tuple[int, ...]
    facts: GpuFacts

    @property
    def gpus(self) -> int:
        """The number of GPUs of all nodes."""
        return sum(self.node_gpus)

    @property
    def capability(self) -> tuple[int, int] | None:
        """The lowest compute capability of the GPUs. None if none could be queried."""
        return min((gpu.capability for gpu in self.facts.gpus), default=None)

    def __str__(self) -> str:
        """The GPUs as text: kinds, driver, and the precision of fp32."""
        kinds = Counter(
            f"{gpu.name} (compute capability {'.'.join(map(str, gpu.capability))})" for gpu in self.facts.gpus
        )
        listed = ", ".join(f"{count} × {kind}" if count > 1 else kind for kind, count in kinds.items())
        version = f", driver {self.facts.driver.version}" if self.facts.driver else ""
        return f"{listed}{version}, fp32 without TF32" if listed else ""


def usable_cpus() -> int:
    """Cores that this process may use, by its CPU affinity and its container's CPU limit."""
    from joblib import cpu_count

    return int(cpu_count())


def own_device(asked: str) -> Device:
    """As `choose_device`, for this machine."""
    facts = own_gpus()
    return choose_device(asked, len(facts.gpus), facts.fault)


def choose_device(asked: str, gpus: int, fault: str | None = None) -> Device:
    """The device for a sweep. `auto` is the GPU if there is a usable one; `cuda` without a usable GPU is an InputError.

    `fault` is the reason why the GPUs of this machine cannot be used.
    """
    if asked == "cuda" and gpus == 0:
        raise InputError("--device cuda: this machine has no NVIDIA GPU; use --device cpu or auto")
    if asked == "cuda" and fault:
        raise InputError(f"--device cuda: {fault}; or use --device cpu")
    return "cuda" if gpus and not fault and asked != "cpu" else "cpu"


def plan_slots(
    device: Device,
    *,
    cpus_per_trial: float | None = None,
    gpus_per_trial: float | None = None,
    workers_per_trial: int | None = None,
    max_concurrent: int | None = None,
    node_cpus: tuple[int, ...] | None = None,
    node_gpus: tuple[int, ...] | None = None,
) -> Slots:
    """As many trials at once as the cores, or GPU shares, of each node allow. Raises InputError if none fits.

    `node_cpus` and `node_gpus` are those of this machine by default.
    """
    node_cpus = node_cpus or (usable_cpus(),)
    if device == "cpu":
        node_gpus = (0,)
    elif node_gpus is None:
        node_gpus = (len(own_gpus().gpus),)
    gpu_share = (1.0 if gpus_per_trial is None else gpus_per_trial) if device == "cuda" else (gpus_per_trial or 0.0)
    if device == "cuda" and gpu_share == 0:
        raise InputError(
            f"--gpus-per-trial {gpu_share:g}: a trial on a GPU needs a share above 0, as 0.25; or use --device cpu"
        )
    by_gpu = _shares(node_gpus, gpu_share)
    if cpus_per_trial == 0:
        raise InputError("--cpus-per-trial 0: a trial needs a share of a core above 0, as 0.5")
    workers = _workers(device, workers_per_trial, gpu_share)
    even = min(max(1.0, sum(node_cpus) // by_gpu), max(node_cpus)) if by_gpu else float(workers)
    cpu_share = even if cpus_per_trial is None else cpus_per_trial
    if device == "cpu" and cpu_share < workers > 1:
        raise InputError(
            f"--workers-per-trial {workers}: each needs a core, and --cpus-per-trial is {cpu_share:g}; "
            f"use --cpus-per-trial {workers}, or fewer workers"
        )
    option = "--workers-per-trial" if cpus_per_trial is None and workers > 1 else "--cpus-per-trial"
    by_cpu = _fits(node_cpus, cpu_share, option, "cores")
    room = min(limit for limit in (by_cpu, by_gpu) if limit is not None)
    count = min(room, max_concurrent or room)
    return Slots(node_cpus, sum(node_gpus), cpu_share, gpu_share, count, room, workers=workers)


def _workers(device: Device, asked: int | None, gpu_share: float) -> int:
    """The number of processes of a trial: one per GPU."""
    if device == "cpu":
        return asked or 1
    workers = max(1, int(gpu_share))
    if asked not in (None, workers):
        raise InputError(
            f"--workers-per-trial {asked}: on GPUs a trial has one worker per GPU, {workers} here; "
            f"omit it, or use --gpus-per-trial {asked}"
        )
    return workers


def _shares(node_gpus: tuple[int, ...], share: float) -> int | None:
    """How many trials fit on the GPUs. Each has a share of one GPU, or whole GPUs of one node."""
    if share > 1 and share % 1:
        raise InputError(f"--gpus-per-trial {share:g}: above 1 it must be a whole number (a rule of Ray)")
    fits = _fits(node_gpus, share, "--gpus-per-trial", "GPUs")
    return fits if fits is None or share > 1 else sum(node_gpus) * int(1 / share + 1e-9)


def _fits(nodes: tuple[int, ...], share: float, option: str, what: str) -> int | None:
    """How many shares fit on all nodes; a share is never split over two nodes. None if the share is 0."""
    if share < 0 or not math.isfinite(share):
        raise InputError(f"{option} {share:g}: must be 0 or more")
    if share == 0:
        return None
    if share > max(nodes):
        whose = "this machine has" if len(nodes) == 1 else "the largest node has"
        raise InputError(f"{option} {share:g}: {whose} {max(nodes)} {what}; give at most {max(nodes)}")
    return sum(int(node / share + 1e-9) for node in nodes)
