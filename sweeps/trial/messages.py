"""Messages between driver and trial: small, frozen, to and from JSON."""

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
"""Prefix of the metrics of a trial's resource usage, which MLflow shows apart from results."""

CPU = SYSTEM + "process_cpu_percentage"
"""Of the trial's process, or of its workers together, since its last epoch: 100 is one core at work all the time."""

MEMORY = SYSTEM + "process_memory_megabytes"
"""Resident memory of the same at the end of the epoch; the mapped faces that it has read count."""

GPU = SYSTEM + "gpu_utilization_percentage"
"""Utilisation of the trial's GPU, by all its processes, in the epoch's last second."""

GPU_MEMORY = SYSTEM + "gpu_memory_megabytes"
"""Peak GPU memory that the trial's process, or one of its workers, had reserved since its last epoch."""

MICRO_BATCHES = SYSTEM + "micro_batches"
"""Parts in which each batch was computed, gradients accumulated, because of a GPU's memory; absent where it is one."""


def val_title(dataset: str) -> str:
    """The split that selects, by the name that the data set's makers gave it."""
    return "PublicTest (val)" if dataset == "FER2013" else "val"


class EpochReport(EpochResults, Frozen):
    """One epoch, reported after its checkpoint is on disk."""

    attempt: int


class Preparing(Frozen):
    """Progress of a trial before its first epoch or between two epochs. It is shown, but not recorded."""

    attempt: int
    what: str


class Task(Frozen):
    """One trial to run, or to continue with; `folder` may hold an earlier attempt's checkpoint.

    `attempt` grows each time a trial is assigned, so that reports from a stale worker are ignored.
    """

    trial: int
    attempt: int
    folder: str
    config: TrialConfig
    seed: int
    epochs: int
    faces: str
    """A cache folder, which all trials of a machine memory-map."""
    data: DataOptions = DataOptions()
    """The source of that folder, for a machine that does not have it yet."""
    device: Literal["cpu", "cuda"] = "cpu"
    gpu_share: float = 1.0
    """What the trial has of a GPU; above 1, how many it has; 0 on cores."""
    threads: int = 1
    """Of all its workers together."""
    workers: int = 1
    """Processes that train it together, each on its part of every batch; on GPUs each on one of them."""
    cuda_graphs: bool = False
    """Whether steps are replayed as CUDA graphs."""
    figures: bool = True
    objectives: tuple[str, ...] = ACCURACY_ALONE
    """What the sweep optimizes; those that the net itself costs are measured once."""
    recorded: tuple[EpochResults, ...] = ()
    """The journal's epochs of the trial so far. They stay valid where an epoch is trained again."""


class TrialEnd(Frozen):
    """The last message of a trial.

    `ended`: it ran its epochs, or obeyed the driver's verdict. `failed`: a fault of its own. `blocked`: it cannot
    write to its folder, or its faces are gone; it is whole up to its last epoch, and others would fare no better.
    """

    attempt: int
    state: Literal["ended", "failed", "blocked"]
    reason: str | None = None
    diverged: bool = False
    note: str | None = None
    """In what the trial's training differed from its configuration."""
    scores: dict[str, float] = Field(default={})
    """At the best epoch, for the record."""
    undrawn: bool = False
    """Whether pictures of it are wanted, and its folder has all that they show."""


class ToDraw(Frozen):
    """A trial whose pictures are to be drawn: what its folder does not have of what they show."""

    folder: str
    faces: str
    data: DataOptions
    started: TrialStarted
    epochs: tuple[EpochDone, ...]


Message = EpochReport | Preparing | TrialEnd
