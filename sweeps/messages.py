"""What the driver and a trial say to each other: small, frozen, JSON both ways."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from sweeps.config import TrialConfig

OBJECTIVE = "val_accuracy"
"""What a sweep selects by; higher is better."""


def val_title(dataset: str) -> str:
    """The split that selects, by the name that the data set's makers gave it."""
    return "PublicTest (val)" if dataset == "FER2013" else "val"


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FacesRef(_Message):
    """Which faces: a cache folder that every trial of a machine maps into memory, and the subset of its train split."""

    folder: str
    limit_train: int | None = None
    limit_seed: int = 0


class Task(_Message):
    """One trial to run, or to go on with; `folder` may hold an earlier attempt's checkpoint.

    `attempt` grows each time a trial is handed out: a worker that was given up for dead can be told from its heir.
    """

    trial: int
    attempt: int
    folder: str
    config: TrialConfig
    seed: int
    epochs: int
    faces: FacesRef
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    figures: bool = True


class EpochReport(_Message):
    """One epoch, told after its checkpoint is on disk."""

    attempt: int
    epoch: int
    metrics: dict[str, float]
    iterations: tuple[tuple[int, float, float], ...] = ()


class TrialEnd(_Message):
    """A trial's last word.

    `ended`: it ran its epochs, or obeyed the driver's verdict. `failed`: a fault of its own. `blocked`: it cannot
    write to its folder; it is whole up to its last epoch, and other trials would fare no better.
    """

    attempt: int
    state: Literal["ended", "failed", "blocked"]
    reason: str | None = None
    diverged: bool = False


Message = EpochReport | TrialEnd
