"""Runs NVIDIA's Multi-Process Service during a sweep: it runs kernels of several trials on one GPU concurrently.

`python -m sweeps.node.mps SWEEP PLACE` runs it on a node for as long as workers of the sweep are there: those that have
called `join_mps`, the first of which starts it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sweeps.node.beside import node_folder, say_ready, start_beside

_CONTROL = "nvidia-cuda-mps-control"
_PIPES = "CUDA_MPS_PIPE_DIRECTORY"
_LOGS = "CUDA_MPS_LOG_DIRECTORY"
_USUAL_PIPES = Path("/tmp/nvidia-mps")
_SECONDS = 20.0
_POLL_SECONDS = 0.5
_RUNS_ALREADY = "it runs already"


class MpsError(Exception):
    """MPS did not start; the message says why."""


def obstacle() -> str | None:
    """Why this process cannot start MPS on this machine. None if it can."""
    if _PIPES in os.environ or (_USUAL_PIPES / "control").exists():
        return _RUNS_ALREADY
    if shutil.which(_CONTROL) is None:
        return f"{_CONTROL} is not installed"
    return None


def join_mps(sweep: str) -> str | None:
    """Have this process, and those that it starts, use the service of the sweep's workers on this node.

    It is to be called before CUDA is used. Returns why there is none; one that ran before the sweep is used as it is.
    """
    with node_folder(sweep) as folder:
        place = folder / "mps"
        if not place.exists():
            if (why_not := obstacle()) == _RUNS_ALREADY:
                return None
            try:
                if why_not:
                    raise MpsError(why_not)
                start_beside("sweeps.node.mps", sweep, str(place))
            except (MpsError, ChildProcessError) as error:
                return f"MPS is not started on {socket.gethostname()}: {error}; trials on one GPU take turns"
        members = os.open(place / "members", os.O_RDONLY | os.O_CREAT)  # held until this process ends, however it does
        fcntl.flock(members, fcntl.LOCK_SH)
        os.environ.update(_names(place))
    return None


@contextmanager
def mps() -> Iterator[None]:
    """Run MPS for processes of this user that are started within the block.

    Raises:
        MpsError: MPS did not start.
    """
    with tempfile.TemporaryDirectory(prefix="fer-sweeps-mps-", ignore_cleanup_errors=True) as folder:
        names = _names(Path(folder))
        with _running(Path(folder)):
            os.environ.update(names)
            try:
                yield
            finally:
                for name in names:
                    del os.environ[name]


def _names(folder: Path) -> dict[str, str]:
    return {_PIPES: str(folder), _LOGS: str(folder)}


@contextmanager
def _running(folder: Path) -> Iterator[None]:
    # It serves every GPU; each client chooses its GPUs by its own CUDA_VISIBLE_DEVICES.
    around = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"} | _names(folder)
    _start(folder, around)
    try:
        yield
    finally:
        _stop(folder, around)


def _start(folder: Path, around: dict[str, str]) -> None:
    output = folder / "start.log"
    try:
        with output.open("w", encoding="utf-8") as log:  # a file, since the daemon would keep a pipe open
            done = subprocess.run(
                [_CONTROL, "-d"],
                env=around,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=_SECONDS,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MpsError(str(error)) from None
    if done.returncode:
        raise MpsError(output.read_text(encoding="utf-8").strip() or f"{_CONTROL} -d ended with {done.returncode}")


def _stop(folder: Path, around: dict[str, str]) -> None:
    try:
        subprocess.run(
            [_CONTROL],
            input="quit\n",
            env=around,
            text=True,
            encoding="utf-8",
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        pid = folder / f"{_CONTROL}.pid"
        if pid.is_file():
            os.kill(int(pid.read_text(encoding="utf-8")), signal.SIGTERM)


def _keep(sweep: str, place: Path) -> None:
    """Run it until no worker of the sweep is left on this node; the one that starts it holds the node's folder."""
    place.mkdir()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        stack.enter_context(_running(place))
        members = os.open(place / "members", os.O_RDONLY | os.O_CREAT)
        say_ready()
        while True:
            time.sleep(_POLL_SECONDS)
            with node_folder(sweep), suppress(BlockingIOError):
                fcntl.flock(members, fcntl.LOCK_EX | fcntl.LOCK_NB)
                stack.close()
                return


def _main(sweep: str, place: str) -> int:
    try:
        _keep(sweep, Path(place))
    except MpsError as error:
        sys.stdout.write(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
