"""One of several processes that train a trial together: `python -m sweeps.trial.worker DESCRIPTOR RANK`.

It trains one epoch per request. It ends with the trial's process, and never by itself: other workers would take this
for the cause of their own failure.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

from sweeps.trial.failures import Failure
from sweeps.trial.workers import Answer, Work


def main(descriptor: int, rank: int) -> None:
    """Serve the process at the other end of the pipe."""
    pipe, orders = Connection(descriptor), SimpleQueue[bytes]()
    Thread(target=_listen, args=(pipe, orders), daemon=True).start()
    try:
        _train(rank, orders, lambda answer: pipe.send_bytes(pickle.dumps(answer)))
    except Exception as error:
        pipe.send_bytes(pickle.dumps(Failure.of(error)))
    Event().wait()


def _listen(pipe: Connection, orders: SimpleQueue[bytes]) -> None:
    """Pass requests on; end this process when the other end of the pipe is closed."""
    while True:
        try:
            orders.put(pipe.recv_bytes())
        except (EOFError, OSError):
            os._exit(1)


def _train(rank: int, orders: SimpleQueue[bytes], answer: Callable[[Answer], None]) -> None:
    work: Work = pickle.loads(orders.get())
    import torch

    from fer_models.training.computed import Computing
    from fer_models.training.team import join
    from fer_models.training.weights import take_snapshot
    from sweeps.trial.epochs import own_epochs
    from sweeps.trial.resource_usage import Usage

    task = work.task
    torch.set_num_threads(max(1, task.threads // task.workers))
    if task.device == "cuda":
        torch.cuda.set_device(rank)
    team = join(rank, task.workers, work.meeting, task.device)
    usage = Usage(task.device)
    epochs: Any = own_epochs(task, work.cache, work.state, work.micro_batches, lambda: False, team)
    while True:
        orders.get()
        epoch = next(one for one in epochs if not isinstance(one, Computing))
        if rank == 0:
            answer(Answer(usage.since_last(), epoch, take_snapshot(work.state)))
        else:
            answer(Answer(usage.since_last()))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
