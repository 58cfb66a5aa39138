"""What the workers of one sweep on one node share: a folder of theirs, and processes that outlive who started them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fer_common.own_modules import command, environment

_START_SECONDS = 60.0
_READY = "ready"


@contextmanager
def node_folder(sweep: str) -> Iterator[Path]:
    """The folder of a sweep on this node, which no other process uses within the block; removed once it is empty."""
    node = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]  # of several that mount one folder here
    path = Path(tempfile.gettempdir()) / f"fer-sweeps-{os.getuid()}-{node}-{sweep}"
    held = _held(path)
    try:
        yield path
    finally:
        with suppress(OSError):  # there is something in it
            path.rmdir()
        os.close(held)


def _held(path: Path) -> int:
    """The descriptor of the folder, once no other process holds it."""
    while True:
        path.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):  # another process has removed it meanwhile
            descriptor = os.open(path, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
            os.close(descriptor)


def start_beside(module: str, *arguments: str) -> None:
    """Run a module of this project in a process that outlives this one; return once it has called `say_ready`.

    It is a child of no worker, since Ray ends the children of those that end.

    Raises:
        ChildProcessError: it ended before, with what it printed.
    """
    shell = subprocess.Popen(
        ["/bin/sh", "-c", '"$@" &', "sh", *command(module, *arguments)],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    )
    with shell:
        try:
            said, _ = shell.communicate(timeout=_START_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ChildProcessError(str(error)) from None
    if said != _READY:
        raise ChildProcessError(said.strip() or f"{module} ended before it was ready")


def say_ready() -> None:
    """Have `start_beside` return."""
    sys.stdout.write(_READY)
    sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
