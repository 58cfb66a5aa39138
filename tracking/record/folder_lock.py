"""One driver per sweep: a lock on the sweep's folder that is released when its holder dies."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from tracking.errors import TrackingError
from tracking.record.layout import SweepFolder

_TRIES = 5
_TRY_SECONDS = 0.05


@dataclass(frozen=True)
class Holder:
    """Who works on a sweep, and since when (UTC)."""

    host: str
    pid: int
    since: str
    waits_for: str = ""
    """Who has the slots that it waits for; empty if it has one."""
    waits_since: str = ""


class Hold:
    """A lock that this process holds. Its file names the process and what it waits for."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._write(Holder(socket.gethostname(), os.getpid(), _now()))

    def wait_for(self, whom: str) -> None:
        """Have the file say what this process waits for; with an empty text, that it does not wait."""
        if whom != self._holder.waits_for:
            since = (self._holder.waits_since or _now()) if whom else ""
            self._write(replace(self._holder, waits_for=whom, waits_since=since))

    def _write(self, holder: Holder) -> None:
        self._holder = holder
        line = json.dumps(asdict(holder)) + "\n"
        # One write from the start: who reads meanwhile finds a whole first line, and ignores what is left after it.
        os.pwrite(self._file.fileno(), line.encode(), 0)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class FolderHeldError(TrackingError):
    """Another process works on the sweep; `who` names it."""

    def __init__(self, root: Path, holder: Holder | None) -> None:
        self.who = f"host {holder.host}, pid {holder.pid}, since {holder.since}" if holder else "another process"
        super().__init__(
            f"the sweep in {root} is being run by {self.who}: stop that one first, or choose another --name"
        )


@contextmanager
def hold_folder(root: Path) -> Iterator[Hold]:
    """Hold the lock of the sweep's folder while the block runs. If the process is killed, the lock is released.

    Raises:
        FolderHeldError: another process holds it; the message names it.
        TrackingError: the lock cannot be opened or written.
    """
    lock = SweepFolder(root).lock
    try:
        lock.touch()
        file = lock.open("r+", encoding="utf-8")
    except OSError as error:
        raise TrackingError(f"cannot open {lock}: {error.strerror}") from error
    with file:
        if not _taken(file, fcntl.LOCK_EX):
            raise FolderHeldError(root, _content(file))
        file.truncate(0)
        try:
            hold = Hold(file)
        except OSError as error:
            raise TrackingError(f"cannot write {lock}: {error.strerror}") from error
        try:
            yield hold
        finally:
            # The file stays. If it were removed, two other processes could each lock a file of their own.
            file.truncate(0)


def refuse_if_held(root: Path) -> None:
    """Raise FolderHeldError if another process holds the lock of the sweep's folder now. Does not take the lock."""
    if holder := folder_holder(root):
        raise FolderHeldError(root, holder)


def folder_holder(root: Path) -> Holder | None:
    """The process that holds the lock of the sweep's folder now. None if there is none."""
    try:
        file = SweepFolder(root).lock.open("r", encoding="utf-8")
    except FileNotFoundError:
        return None
    with file:
        if _locked_now(file, fcntl.LOCK_SH):
            return None
        return _content(file) or Holder("an unknown host", 0, "an unknown time")


def _taken(file: TextIO, kind: int) -> bool:
    # `folder_holder` takes the lock for an instant, which must not make a driver give up.
    for _ in range(_TRIES):
        if _locked_now(file, kind):
            return True
        time.sleep(_TRY_SECONDS)
    return False


def _locked_now(file: TextIO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _content(file: TextIO) -> Holder | None:
    file.seek(0)
    try:
        return Holder(**json.loads(file.readline()))
    except (ValueError, TypeError):
        return None
