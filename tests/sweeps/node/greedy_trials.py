"""A sweep on Ray of which one trial takes all the memory there is; as a program: `slowly|unguarded FOLDER`."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fer_data import DataOptions
from sweeps import run_sweep
from sweeps.trial.messages import Message, Task
from tests.sweeps.fake_trials import PATIENT, good_body

CHUNK_BYTES = 32 * 2**20


def greedy(task: Task) -> Iterator[Message]:
    """Trial 1 takes up to 4 GiB within seconds in each of its attempts."""
    if task.trial == 1:
        hoard: list[Any] = []
        for _ in range(128):
            hoard.append(np.ones(CHUNK_BYTES, dtype=np.uint8))
            time.sleep(0.1)
    for message in good_body(task):
        yield message
        time.sleep(0.3)


def greedy_and_unguarded(task: Task) -> Iterator[Message]:
    """As on a machine where the memory is gone faster than the guard looks."""
    import sweeps.node.memory_guard

    sweeps.node.memory_guard._is_the_largest = lambda: False
    yield from greedy(task)


def sweep(how: str, folder: str) -> int:
    body = greedy if how == "slowly" else greedy_and_unguarded
    where = {
        "name": "greedy",
        "out": Path(folder),
        "runner": "ray",
        "max_concurrent": 2,
        "cpus_per_trial": 0.5,
        "pruner": "none",
    }
    data = DataOptions(limit_train=350)
    return run_sweep(PATIENT, body=body, data=data, trials=4, figures=False, tracking_uri=None, **where).exit_code


if __name__ == "__main__":
    from tests.sweeps.node.greedy_trials import sweep as importable  # workers find the body by this name

    sys.exit(importable(*sys.argv[1:]))
