"""The protocol of runners, and the runner that runs trials in this process, where a debugger works."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from sweeps.driver.director import Director
from sweeps.errors import WorkerMustLeave
from sweeps.sharing.gpu_places import GpuPlaces
from sweeps.trial.messages import Message, Task

POLL_SECONDS = 0.1

GRACE_SECONDS = 20.0
"""How long trials may take to their next report after a signal; then they end in the middle of an epoch."""

TrialBody = Callable[[Task], Iterator[Message]]
"""Runs one trial: yields an EpochReport after each epoch and, last, a TrialEnd.

If it is closed before its end, the trial can be resumed. It raises only errors that a retry may fix: a file system
error, or WorkerMustLeave if the GPU of this process is unusable. Other faults of the trial are in its TrialEnd.
"""


class Runner(Protocol):
    """Runs every task of the director, on one or several workers.

    `run` returns when the director is exhausted and no trial has a worker, or soon after the director is `stopping`. It
    calls the director from one thread. A director without a task may have one later, because trials may be paused. If a
    trial body ends without a TrialEnd, by an exception or because its worker died, the runner calls `worker_died`; the
    trial then becomes a task again. Messages of one trial arrive in order. If `take` returns False, the runner stops
    that trial without further messages. An exception of the director, for example a journal that cannot be written,
    ends the run and is raised.
    """

    def run(self, director: Director, body: TrialBody) -> None:
        """Run the sweep until nothing is left to do or the director is stopping."""
        ...


class QueuedRunner:
    """Starts another runner, with its workers, once the sweep has a slot."""

    def __init__(self, start: Callable[[], Runner]) -> None:
        self._start = start

    def run(self, director: Director, body: TrialBody) -> None:
        """Wait, then run the sweep."""
        if wait_for_task(director):
            with _attended(director):
                runner = self._start()
            runner.run(director, body)


@contextlib.contextmanager
def _attended(director: Director) -> Iterator[None]:
    """Have the director attended while the block runs, which takes seconds and does not use it.

    A more urgent sweep gets the slots meanwhile, and acts are answered.
    """
    over = threading.Event()

    def attend() -> None:
        while not over.wait(POLL_SECONDS):
            director.attend()

    with ThreadPoolExecutor(1, "attend") as threads:
        attending = threads.submit(attend)
        try:
            yield
        finally:
            over.set()
    attending.result()


def wait_for_task(director: Director) -> bool:
    """Return True once the director has a task, or False if none will come."""
    while not director.exhausted:
        if director.has_task:
            return True
        time.sleep(POLL_SECONDS)
    return False


def placed(task: Task, places: GpuPlaces | None) -> Task | None:
    """The task with the GPUs that its worker may use. None if it must wait for them."""
    if places is None or not task.gpu_share:
        return task
    gpus = places.take(task.trial, task.gpu_share)
    return None if gpus is None else task.model_copy(update={"gpus": gpus})


def see_its_gpus(task: Task) -> None:
    """Restrict this process to the task's GPUs. CUDA reads this once, when it is first used."""
    if task.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(task.gpus)


class InlineRunner:
    """Runs trials in this process, one at a time. On GPUs all trials run on that of the first trial."""

    def __init__(self, places: GpuPlaces | None = None) -> None:
        self._places = places

    def run(self, director: Director, body: TrialBody) -> None:
        """Run the sweep in this thread."""
        with _interrupted_after_grace(director):
            for waiting in _tasks(director):
                while (task := placed(waiting, self._places)) is None:
                    if director.stopping:
                        return
                    director.attend()
                    time.sleep(POLL_SECONDS)
                see_its_gpus(task)
                if self._places and task.gpus:
                    self._places.keep_to(task.gpus)
                messages = body(task)
                try:
                    for message in _to_its_end(messages, task, director):
                        if not director.take(task.trial, message):
                            break
                finally:
                    if hasattr(messages, "close"):
                        messages.close()
                    if self._places:
                        self._places.release(task.trial)


@contextlib.contextmanager
def _interrupted_after_grace(director: Director) -> Iterator[None]:
    """Raise KeyboardInterrupt in the block if a signal's request to stop has had no effect for `GRACE_SECONDS`.

    Only the main thread receives signals.
    """
    left = threading.Event()
    main_thread = threading.main_thread().ident or 0

    def watch() -> None:
        since: float | None = None
        while not left.wait(POLL_SECONDS):
            if director.is_hurried:
                since = since or time.monotonic()
                if time.monotonic() - since > GRACE_SECONDS:
                    # As a second signal. One that only Python sees would not wake a thread that waits for a lock.
                    signal.pthread_kill(main_thread, _handled_signal())
                    return

    watcher = threading.Thread(target=watch, name="grace", daemon=True)
    if threading.current_thread() is threading.main_thread():
        watcher.start()
    try:
        yield
    finally:
        left.set()
        if watcher.ident is not None:
            watcher.join()


def _handled_signal() -> signal.Signals:
    """A signal that Python handles here; SIGINT is ignored in background jobs of shell scripts."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return next((number for number in numbers if callable(signal.getsignal(number))), signal.SIGINT)


def _tasks(director: Director) -> Iterator[Task]:
    """Yield the director's tasks until it is exhausted."""
    while not director.exhausted:
        task = director.next_task()
        if task is not None:
            yield task
        elif not director.exhausted:
            time.sleep(POLL_SECONDS)


def _to_its_end(messages: Iterator[Message], task: Task, director: Director) -> Iterator[Message]:
    try:
        yield from messages
    except Exception as error:
        director.worker_died(task.trial, f"{type(error).__name__}: {error}")
        if isinstance(error, WorkerMustLeave):
            director.block(f"trial {task.trial}: {error}; resume the sweep in a new process")
