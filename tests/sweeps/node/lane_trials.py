"""Bodies of trials that share a process: what a test has happen to one of them is said by its folder's name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from fer_models.training.trainer import Trainer
from sweeps.trial.messages import Message, Task
from sweeps.trial.run_trial import run_trial

_backward = Trainer._backward
_met: dict[str, int] = {}


def noting(task: Task) -> Iterator[Message]:
    """`run_trial`; the trial's folder says in which process."""
    with (Path(task.folder).parent / f"{Path(task.folder).name}.pids").open("a") as pids:
        pids.write(f"{os.getpid()}\n")
    yield from run_trial(task)


class Unreadable:
    """A body that no process can read."""

    def __call__(self, task: Task) -> Iterator[Message]:
        yield from noting(task)

    def __reduce__(self) -> tuple[Any, ...]:
        return import_module, ("no.such.module",)


def leaving(task: Task) -> Iterator[Message]:
    """No generator: it fails when it is called, and not as a trial does."""
    raise SystemExit(f"trial {task.trial} leaves")


def faulty(task: Task) -> Iterator[Message]:
    """`noting`, where trials called `crash`, `memory` and `broken` meet an error in the second epoch."""
    Trainer._backward = _failing  # type: ignore[method-assign]  # for good: the process is the lanes' own
    yield from noting(task)


def _failing(trainer: Trainer, x: torch.Tensor, *rest: Any) -> Any:
    """The trial is known by the rate that its recipe begins with: the trainer does not know its name."""
    error = _ERRORS.get(trainer.phase.recipe.lr)
    if error is not None and trainer.state.epoch == 1:
        met = _met[str(error)] = _met.get(str(error), 0) + 1
        if met == 1 or isinstance(error, ZeroDivisionError):
            raise error
    return _backward(trainer, x, *rest)


CRASH, MEMORY, BROKEN = 0.0111, 0.0112, 0.0113
_ERRORS: dict[float, Exception] = {
    CRASH: ZeroDivisionError("a fault of the net"),
    MEMORY: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    BROKEN: torch.AcceleratorError("CUDA error: device-side assert triggered"),
}
"""By the learning rate of the trial that meets it. The last two are met once in a process."""
