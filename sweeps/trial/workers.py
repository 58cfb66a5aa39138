"""Trains one trial in several processes, which the trial's own process starts, monitors and ends.

The trial's process trains nothing and has no GPU, so it never waits in a collective operation. If a worker fails, it
ends all of them. Each worker is `python -m sweeps.trial.worker`; a request is for one epoch.
"""

from __future__ import annotations

import pickle
import subprocess
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fer_common.own_modules import command, environment
from fer_models.errors import Cancelled
from sweeps.trial.epochs import Trained
from sweeps.trial.failures import Failure
from sweeps.trial.messages import CPU, GPU, GPU_MEMORY, MEMORY, Task

if TYPE_CHECKING:
    from fer_models.training.fit import Epoch
    from fer_models.training.state import TrainingState
    from fer_models.training.weights import Snapshot

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 2.0
"""How long to wait after a worker's failure for another worker's end, which may be the cause."""


class Work(NamedTuple):
    """The first message to all workers of a trial."""

    task: Task
    cache: Path
    state: TrainingState
    micro_batches: int
    meeting: Path


class Answer(NamedTuple):
    """One worker's answer to a request. The answer of the first worker has the epoch and the state after it."""

    usage: dict[str, float]
    epoch: Epoch | None = None
    snapshot: Snapshot | None = None


def epochs_of_workers(
    task: Task, cache: Path, state: TrainingState, micro_batches: int, is_cancelled: Callable[[], bool]
) -> Generator[Trained]:
    """Train from `state` on in `task.workers` processes, which end with this iterator.

    Raises:
        Cancelled: `is_cancelled` returned True.
        ChildProcessError: a worker ended, for example by a signal.
    """
    with ExitStack() as stack:
        meeting = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fer-sweeps-"))) / "meeting"
        work = pickle.dumps(Work(task, cache, state, micro_batches, meeting))
        workers = [stack.enter_context(_Worker(rank, task.workers)) for rank in range(task.workers)]
        for worker in workers:
            worker.send(work)
        for _ in range(state.epoch, task.epochs):
            for worker in workers:
                worker.send(b"")
            answers = _answers(workers, is_cancelled)
            first, usage = answers[0], _together([answer.usage for answer in answers])
            assert first.epoch is not None
            assert first.snapshot is not None
            yield Trained(first.epoch, first.snapshot, usage)


class _Worker:
    """One worker process, which ends with the block."""

    def __init__(self, rank: int, size: int) -> None:
        self._name = f"worker {rank + 1} of {size}"
        self._rank = rank

    def __enter__(self) -> _Worker:
        self.pipe, others = Pipe()
        with others:
            self._process = subprocess.Popen(
                command("sweeps.trial.worker", str(others.fileno()), str(self._rank)),
                env=environment(),
                pass_fds=[others.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # the sweep handles Ctrl-C
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self.pipe.close()

    def send(self, content: bytes) -> None:
        """Send the work, or a request for the next epoch."""
        try:
            self.pipe.send_bytes(content)
        except OSError:
            raise self._lost() from None

    def receive(self) -> Answer | Failure:
        """Receive its next answer. Raises ChildProcessError if it has ended."""
        try:
            answer: Answer | Failure = pickle.loads(self.pipe.recv_bytes())
        except (EOFError, OSError):
            raise self._lost() from None
        return answer

    def _lost(self) -> ChildProcessError:
        code = self._process.wait()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return ChildProcessError(f"{self._name} {how} (pid {self._process.pid})")


def _answers(workers: list[_Worker], is_cancelled: Callable[[], bool]) -> list[Answer]:
    """Every worker's answer to a request."""
    answers: dict[_Worker, Answer] = {}
    while len(answers) < len(workers):
        if is_cancelled():
            raise Cancelled
        waiting = {worker.pipe: worker for worker in workers if worker not in answers}
        for worker in _ready(waiting, _POLL_SECONDS):
            answer = worker.receive()
            if isinstance(answer, Failure):
                del waiting[worker.pipe]
                raise _cause(answer, waiting)
            answers[worker] = answer
    return [answers[worker] for worker in workers]


def _cause(failure: Failure, others: dict[Connection, _Worker]) -> BaseException:
    """The failure's error. If another worker has ended in the meantime, that end is the cause."""
    while ready := _ready(others, _GRACE_SECONDS):
        for worker in ready:
            del others[worker.pipe]
            try:
                worker.receive()
            except ChildProcessError as lost:
                return lost
    return failure.error()


def _ready(workers: dict[Connection, _Worker], seconds: float) -> list[_Worker]:
    return [workers[pipe] for pipe in wait(list(workers), seconds) if isinstance(pipe, Connection)]


def _together(usages: list[dict[str, float]]) -> dict[str, float]:
    """The resources of all workers: the sums of CPU and memory, and the maximum of each GPU metric."""
    combine: dict[str, Any] = {CPU: sum, MEMORY: sum, GPU: max, GPU_MEMORY: max}
    return {name: combine[name](usage[name] for usage in usages if name in usage) for name in usages[0]}
