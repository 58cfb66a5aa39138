"""Messages between driver and trial: small, frozen, stored as JSON."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fer_common.frozen import Frozen
from fer_data import DataOptions
from sweeps.config import TrialConfig
from tracking.record.events import OBJECTIVE as OBJECTIVE
from tracking.record.events import PARAMETERS as PARAMETERS
from tracking.record.events import EpochDone, EpochResults, TrialStarted
from tracking.record.objectives import ACCURACY_ALONE

SYSTEM = "system/"
"""Prefix of metrics of resource usage, which MLflow shows separately."""

CPU = SYSTEM + "process_cpu_percentage"
"""CPU usage of the trial's process, or of its workers together, since the last epoch; 100 is one fully used core.

If trials share a process, this and the next three metrics are those of the process."""

MEMORY = SYSTEM + "process_memory_megabytes"
"""Resident memory of these processes at the end of the epoch, including mapped faces that were read."""

GPU = SYSTEM + "gpu_utilization_percentage"
"""Utilisation of the trial's GPU by all its processes, in the last second of the epoch."""

GPU_MEMORY = SYSTEM + "gpu_memory_megabytes"
"""Peak GPU memory reserved by the trial's process, or by one of its workers, since the last epoch."""

MICRO_BATCHES = SYSTEM + "micro_batches"
"""Number of parts in which each batch was computed to fit GPU memory, with accumulated gradients; absent if it is 1."""


def val_title(dataset: str, *, is_fold: bool = False) -> str:
    """The name of the val split in titles: PublicTest for FER2013 unless val is a fold of train and val, else val."""
    return "PublicTest (val)" if dataset == "FER2013" and not is_fold else "val"


class EpochReport(EpochResults, Frozen):
    """One epoch, reported after its checkpoint is on disk."""

    attempt: int
    repeated: bool = False
    """Whether the epoch was trained before this attempt, so that its report comes at once."""


class Preparing(Frozen):
    """Progress of a trial before its first epoch or between epochs. It is shown but not recorded."""

    attempt: int
    what: str


class Task(Frozen):
    """One trial to run or continue; `folder` may have the checkpoint of an earlier attempt.

    `attempt` increases with each assignment of a trial, so that reports of a stale worker are ignored.
    """

    trial: int
    attempt: int
    folder: str
    config: TrialConfig
    seed: int
    epochs: int
    faces: str
    """The cache folder of the faces, which all trials of a machine map into memory."""
    data: DataOptions = DataOptions()
    """The source of that folder, for a machine that lacks it."""
    device: Literal["cpu", "cuda"] = "cpu"
    gpu_share: float = 1.0
    """The trial's share of a GPU; above 1, its number of GPUs; 0 on CPU cores."""
    gpus: tuple[str, ...] = ()
    """Names of its GPUs, if the driver chose them; otherwise Ray chooses."""
    threads: int = 1
    """Number of threads of all its workers together."""
    workers: int = 1
    """Number of processes that train it together, each on its part of every batch; on GPUs one per GPU."""
    cuda_graphs: bool = False
    """Whether steps are replayed as CUDA graphs."""
    deaths: int = 0
    """Number of workers that it has lost since its last epoch."""
    figures: bool = True
    objectives: tuple[str, ...] = ACCURACY_ALONE
    """The sweep's objectives. Costs of the net itself are measured once."""
    began_from_state: bool = False
    """Whether it began from another trial's state, so that it cannot be trained from its start."""
    plateau_from: int | None = None
    """The epoch after which `lr_policy="plateau"` begins without reductions, whatever the state says."""
    recorded: tuple[EpochResults, ...] = ()
    """The trial's recorded epochs so far. They stay valid if an epoch is trained again."""


class TrialEnd(Frozen):
    """The last message of a trial.

    `ended`: it trained its epochs, or followed the driver's verdict. `failed`: by its own fault. `blocked`: its folder
    cannot be written, or its faces are gone. It is complete up to its last epoch, and other trials would fail, too.
    """

    attempt: int
    state: Literal["ended", "failed", "blocked"]
    reason: str | None = None
    diverged: bool = False
    note: str | None = None
    """How the training differed from the configuration."""
    scores: dict[str, float] = Field(default={})
    """Scores at the best epoch."""
    undrawn: bool = False
    """Whether its pictures are to be drawn, and its folder has the data for them."""


class ToDraw(Frozen):
    """A trial whose pictures are to be drawn, with the data that its folder does not have."""

    folder: str
    faces: str
    data: DataOptions
    started: TrialStarted
    epochs: tuple[EpochDone, ...]


Message = EpochReport | Preparing | TrialEnd
