"""Runs NVIDIA's Multi-Process Service during a sweep: it runs kernels of several trials on one GPU concurrently."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.planning.plan import Plan

_CONTROL = "nvidia-cuda-mps-control"
_PIPES = "CUDA_MPS_PIPE_DIRECTORY"
_LOGS = "CUDA_MPS_LOG_DIRECTORY"
_USUAL_PIPES = Path("/tmp/nvidia-mps")
_SECONDS = 20.0


class MpsError(Exception):
    """MPS did not start; the message says why."""


def obstacle() -> str | None:
    """Why this process cannot start MPS on this machine. None if it can."""
    if _PIPES in os.environ or (_USUAL_PIPES / "control").exists():
        return "it runs already"
    if shutil.which(_CONTROL) is None:
        return f"{_CONTROL} is not installed"
    return None


@contextmanager
def mps() -> Iterator[None]:
    """Run MPS for processes of this user that are started within the block.

    Raises:
        MpsError: MPS did not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="fer-sweeps-mps-"))
    names = {_PIPES: str(folder), _LOGS: str(folder)}
    # It serves every GPU; each client chooses its GPUs by its own CUDA_VISIBLE_DEVICES.
    around = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"} | names
    try:
        _start(folder, around)
        os.environ.update(names)
        try:
            yield
        finally:
            for name in names:
                del os.environ[name]
            _stop(folder, around)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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


def with_mps(plan: Plan) -> Plan:
    """Request MPS if trials on this machine share GPUs by a given --gpus-per-trial."""
    if plan.slots.gpus_per_trial >= 1 or plan.options.address is not None:
        return plan
    why_not = obstacle()
    words = f"MPS is not started: {why_not}" if why_not else "MPS runs during this sweep"
    return replace(plan, slots=replace(plan.slots, mps=why_not is None), sizing=(words,))
