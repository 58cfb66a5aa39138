"""The work of every benchmark trial: seconds of one core, counted by the core, reported like training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd

EPOCHS = 5
EPOCH_CORE_SECONDS = 0.2
TRIAL_CORE_SECONDS = EPOCHS * EPOCH_CORE_SECONDS


def train(first_step: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield (epoch from 1, metrics) after each epoch's share of processor time, however long a busy machine takes.

    The file `first_step` gets the time at which the earliest trial began to work.
    """
    mark(first_step)
    for epoch in range(1, EPOCHS + 1):
        end = time.thread_time() + EPOCH_CORE_SECONDS
        while time.thread_time() < end:
            pass
        yield epoch, _metrics(epoch)


def mark(first_step: Path) -> None:
    """Write the time into `first_step`, unless another trial was earlier."""
    if not first_step.exists():
        first_step.write_text(repr(time.time()))


def burn(task: Task, first_step: Path) -> Iterator[Message]:
    """The work as the body of a sweep's trial."""
    for epoch, metrics in train(first_step):
        yield EpochReport(attempt=task.attempt, epoch=epoch, metrics=metrics)
    yield TrialEnd(attempt=task.attempt, state="ended")


def _metrics(epoch: int) -> dict[str, float]:
    return {
        "train_loss": 2 / epoch,
        "train_accuracy": 1 - 0.8 / epoch,
        "val_loss": 2.1 / epoch,
        "val_accuracy": 1 - 0.85 / epoch,
        "learning_rate": 0.01,
        "epoch_seconds": EPOCH_CORE_SECONDS,
        "images_per_second": 1000.0,
    }
