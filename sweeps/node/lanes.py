"""Several trials in one process of a node, each in a thread of its own: a lane. On a GPU each has its own stream.

Each trial still has its own worker, which passes the lane's messages on: to the driver it is a trial as any other. The
process is started by the first of the workers and ends with the last of them (`sweeps.node.lane_host`). Where it dies,
each of its trials is retried from its own checkpoint, beside half as many others: down to a process of its own, so that
a trial that breaks its process cannot use up the retries of the others.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any, NamedTuple

from sweeps.node.beside import node_folder, start_beside
from sweeps.trial.failures import Failure
from sweeps.trial.messages import Message, Task

TrialBody = Callable[[Task], Iterator[Message]]


class Begin(NamedTuple):
    """The order to begin a trial. The answer is whether it was: in no process are more trials than one of them allows.

    It is followed by `NEXT` for each message, to which the answer is the message, None after the last one or a
    `Failure`; and by `LEAVE`, answered when the trial's thread has ended.
    """

    task: Task
    body: TrialBody
    most: int


NEXT, LEAVE = "next", "leave"

_idle: defaultdict[tuple[str, str], list[Connection]] = defaultdict(list)
"""Connections of this worker between two trials, by sweep and GPU: the other process ends with the last one to it."""


@dataclass(frozen=True)
class Lanes:
    """A body that runs `body` in a process that `most` trials share; `sweep` is a random name of a sweep's run."""

    body: TrialBody
    most: int
    sweep: str

    def __call__(self, task: Task) -> Iterator[Message]:
        """The messages of the trial."""
        idle = _idle[self.sweep, _device()]  # the worker's next trial may have another GPU
        process = self._joined(idle, Begin(task, self.body, max(1, self.most >> task.deaths)))
        try:
            while (answer := _ask(process, NEXT)) is not None:
                if isinstance(answer, Failure):
                    raise answer.error()
                yield answer
        finally:
            with suppress(ChildProcessError):  # it is gone, and the trial with it
                _ask(process, LEAVE)
                idle.append(process)

    def _joined(self, idle: list[Connection], begin: Begin) -> Connection:
        """A process of this node that has begun the trial."""
        while idle:
            process = idle.pop()
            if _takes(process, begin):
                return process
            process.close()
        with node_folder(self.sweep) as folder:
            return self._found(folder, begin) or self._started(folder, begin)

    def _found(self, folder: Path, begin: Begin) -> Connection | None:
        for address in folder.glob(f"{_device()}-*"):
            try:
                process = Client(str(address), "AF_UNIX")
            except OSError:  # it was killed
                address.unlink()
                continue
            if _takes(process, begin):
                return process
            process.close()
        return None

    def _started(self, folder: Path, begin: Begin) -> Connection:
        address = folder / f"{_device()}-{os.getpid()}-{begin.task.trial}-{begin.task.attempt}"
        start_beside("sweeps.node.lane_host", self.sweep, str(address))
        process = Client(str(address), "AF_UNIX")
        if not _takes(process, begin):
            raise ChildProcessError("the process of the lanes ended before it began the trial")
        return process


def _device() -> str:
    """Trials with the same GPUs share a process; the names of GPUs may be long, those of sockets not."""
    return hashlib.sha256(os.environ.get("CUDA_VISIBLE_DEVICES", "").encode()).hexdigest()[:8]


def _takes(process: Connection, begin: Begin) -> bool:
    try:
        return bool(_ask(process, begin))
    except ChildProcessError:
        return False


def _ask(process: Connection, order: Begin | str) -> Any:
    """The answer. Raises ChildProcessError where the process has ended."""
    try:
        process.send_bytes(pickle.dumps(order))
        return pickle.loads(process.recv_bytes())
    except (EOFError, OSError) as error:
        raise ChildProcessError("the process that this trial shared with others has ended") from error
