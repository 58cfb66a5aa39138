"""A sweep on Ray whose trials meet the errors of a GPU, raised by hand on cores; as a program: `FOLDER CSV`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import optuna
import torch

from fer_models import Recipe
from fer_models.training.trainer import Trainer
from sweeps import Space, TrialConfig, run_sweep
from sweeps.trial.messages import Message, Task
from sweeps.trial.run_trial import run_trial
from tests.stand_ins import QUIET, SMALL_NET

BATCH = 8
ONCE, WHOLE_BATCHES, ALWAYS, ASSERTED, CUBLAS, CUDNN, CALM = range(7)
"""What happens to each trial: out of memory once, in whole batches, or always; three other errors; nothing."""

ERRORS: dict[int, Callable[[], RuntimeError]] = {
    ONCE: lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    WHOLE_BATCHES: lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ALWAYS: lambda: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ASSERTED: lambda: torch.AcceleratorError("CUDA error: device-side assert triggered"),
    CUBLAS: lambda: RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"),
    CUDNN: lambda: RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
}

_broken: list[RuntimeError] = []
"""What this process's GPU answers from now on, as a real one does after such an error."""


def body(task: Task) -> Iterator[Message]:
    """`run_trial` under the trial's error, which meets the second epoch's first step; a line in the sweep's diary."""
    backward, met = Trainer._backward, 0

    def failing(trainer: Trainer, x: torch.Tensor, *rest: Any) -> Any:
        nonlocal met
        if _broken:
            raise _broken[0]
        if trainer.state.epoch == 1 and task.trial in ERRORS:
            is_due = {ONCE: met == 0, WHOLE_BATCHES: len(x) == BATCH, ALWAYS: True}
            if is_due.get(task.trial, task.attempt == 0):
                met += 1
                error = ERRORS[task.trial]()
                if task.trial not in is_due:
                    _broken.append(error)
                raise error
        return backward(trainer, x, *rest)

    with (Path(task.folder).parents[1] / "diary.jsonl").open("a") as diary:
        diary.write(json.dumps([task.trial, os.getpid()]) + "\n")
    with mock.patch.object(Trainer, "_backward", failing):
        yield from run_trial(task)


def suggest(trial: optuna.Trial) -> TrialConfig:
    return TrialConfig(net=SMALL_NET, recipe=Recipe(lr=trial.suggest_float("lr", 1e-4, 1e-3), batch_size=BATCH))


SPACE = Space(suggest=suggest, max_epochs=3, first_rung_epochs=3, trials=len(ERRORS) + 1, name="faults")


def sweep(folder: str, csv: str) -> int:
    asked = {"data": csv, "name": "faults", "out": Path(folder), "figures": False}
    return run_sweep(SPACE, body=body, max_concurrent=2, cpus_per_trial=0.5, **asked, **QUIET).exit_code


if __name__ == "__main__":
    from tests.sweeps.trial.gpu_fault_trials import sweep as importable  # workers find the body by this name

    sys.exit(importable(*sys.argv[1:]))
