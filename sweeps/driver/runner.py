"""Where trials run: the protocol, and the runner that runs them in this process (for example under a debugger)."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from sweeps.driver.director import Director
from sweeps.errors import WorkerMustLeave
from sweeps.trial.messages import Message, Task

POLL_SECONDS = 0.1

GRACE_SECONDS = 20.0
"""How long trials may take to their next report after a signal; then they leave in the middle of an epoch."""

TrialBody = Callable[[Task], Iterator[Message]]
"""Runs one trial: yields an EpochReport after each epoch and, last, a TrialEnd. Closing it leaves the trial resumable.

It raises only for what another attempt may fix: a file system that failed, or, as WorkerMustLeave, a process whose
GPU is of no more use. Faults of the trial are a TrialEnd.
"""


class Runner(Protocol):
    """Runs every task the director hands out, on one or many workers.

    `run` returns when the director is exhausted and nothing is out, or soon after it is `stopping`. It calls the
    director from one thread. A director that has no task now may have one later: its trials may be paused. What ends
    a body without a TrialEnd, be it an exception or the worker's death, is `worker_died`, after which the trial comes
    back as a task. Reports of one trial arrive in order; `take` answering False ends that trial's work without another
    word. What the director raises, such as a journal that cannot be written, ends the run and is raised.
    """

    def run(self, director: Director, body: TrialBody) -> None:
        """Run the sweep; returns when nothing is left to do or the director wants to stop."""
        ...


class InlineRunner:
    """Runs trials in this process, one at a time."""

    def run(self, director: Director, body: TrialBody) -> None:
        """Run the sweep in this thread."""
        with _interrupted_after_grace(director):
            for task in _tasks(director):
                messages = body(task)
                try:
                    for message in _to_its_end(messages, task, director):
                        if not director.take(task.trial, message):
                            break
                finally:
                    if hasattr(messages, "close"):
                        messages.close()


@contextlib.contextmanager
def _interrupted_after_grace(director: Director) -> Iterator[None]:
    """Raise KeyboardInterrupt in the block if a signal's request to stop has had no effect for `GRACE_SECONDS`.

    Only the main thread gets signals.
    """
    left = threading.Event()
    main_thread = threading.main_thread().ident or 0

    def watch() -> None:
        since: float | None = None
        while not left.wait(POLL_SECONDS):
            if director.stop_reason is not None:
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
    """A signal that Python handles here. SIGINT is ignored in a background job of a shell script, as under nohup."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return next((number for number in numbers if callable(signal.getsignal(number))), signal.SIGINT)


def _tasks(director: Director) -> Iterator[Task]:
    """The director's tasks as they come, until there will be none."""
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
