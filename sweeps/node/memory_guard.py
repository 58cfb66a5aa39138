"""Ends the largest worker before its machine runs out of memory, so that one trial is retried.

Otherwise Ray's memory monitor would act a little later, and end every trial on every machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import psutil
from ray._common.utils import get_system_memory
from ray._private.utils import get_used_memory

from sweeps.trial.messages import Task
from tracking.record.files import write_json

_EXIT_CODE = 137
_POLL_SECONDS = 0.1
_BEFORE_RAY = 0.03
"""How far below the limit of Ray's monitor this one acts, as a share of the machine's memory."""
_RAYS_LIMIT = "RAY_memory_usage_threshold"
_GIBIBYTE = 2**30


class MemoryGuard(threading.Thread):
    """Watches the memory of the machine or container while this worker runs."""

    def __init__(self) -> None:
        super().__init__(name="memory-guard", daemon=True)
        self._limit = float(os.environ.get(_RAYS_LIMIT, "0.95")) - _BEFORE_RAY
        self._tasks: Sequence[Task] = ()

    def watch(self, tasks: Sequence[Task]) -> None:
        """Set the tasks that this process runs now."""
        self._tasks = tasks
        if not self.is_alive():
            self.start()

    def run(self) -> None:
        """End the process when memory is short and no other worker is larger."""
        while True:
            time.sleep(_POLL_SECONDS)
            used, total = get_used_memory(), get_system_memory()  # type: ignore[no-untyped-call]
            if used > self._limit * total and self._tasks and _is_the_largest():
                own = _bytes_of(psutil.Process())
                sizes = f"{used / _GIBIBYTE:.1f} of {total / _GIBIBYTE:.1f} GiB in use, {own / _GIBIBYTE:.1f} GiB here"
                leave(self._tasks, f"out of memory ({sizes}); smaller batches or fewer trials at once need less")


def reason_of_leaving(task: Task) -> str | None:
    """Why the worker of this attempt ended, if it called `leave`."""
    try:
        left = json.loads(_note(task).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no note, or one that cannot be read
        return None
    return str(left["reason"]) if left["attempt"] == task.attempt else None


def leave(tasks: Sequence[Task], reason: str) -> NoReturn:
    """Record the reason and end this process; its trials are then retried in another process."""
    try:
        for task in tasks:
            write_json(_note(task), {"attempt": task.attempt, "reason": reason})
    finally:
        os._exit(_EXIT_CODE)


def _note(task: Task) -> Path:
    return Path(task.folder) / ".left.json"


def _is_the_largest() -> bool:
    """Whether no other worker of this machine uses more memory."""
    sizes = {
        process.pid: _bytes_of(process)
        for process in psutil.process_iter(["cmdline"])
        if _is_worker(process.info["cmdline"] or [""])
    }
    return sizes.get(os.getpid(), 0) >= max(sizes.values(), default=0)


def _is_worker(words: Sequence[str]) -> bool:
    """Whether a process of this command line trains: a worker of Ray, or the process of several trials."""
    return words[0].startswith("ray::") or "sweeps.node.lane_host" in words


def _bytes_of(process: psutil.Process) -> int:
    """Resident memory of a process and its children, over which a trial's net may be distributed."""
    total = 0
    with contextlib.suppress(psutil.Error):
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
    return total
