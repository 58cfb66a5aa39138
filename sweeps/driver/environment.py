"""Facts about the machine and the program, for every record."""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from fer_common.versions import versions
from sweeps.spec import SweepSpec
from tracking.record.events import FORMAT, DriverStarted
from tracking.record.history import SweepHistory

_PACKAGES = ("fer-sweeps", "torch", "ray", "optuna", "mlflow", "numpy")


def driver_started(
    spec: SweepSpec, *, resumed: bool, suggest: Callable[..., object] | None = None, gpus: str = ""
) -> DriverStarted:
    """The event of a driver's start: user, options, versions, and the hash of the space's code."""
    return DriverStarted(
        format=FORMAT,
        host=socket.gethostname(),
        pid=os.getpid(),
        versions=versions(_PACKAGES),
        git_commit=_git_commit(),
        gpus=gpus or None,
        resumed=resumed,
        space_sha256=_source_sha256(suggest) if suggest else None,
        spec=spec.model_dump(mode="json"),
    )


def differences(history: SweepHistory, driver: DriverStarted) -> Iterator[str]:
    """What differs from the sweep's earlier drivers, one sentence each."""
    known = [before.space_sha256 for before in history.drivers if before.space_sha256]
    if driver.space_sha256 and known and driver.space_sha256 != known[-1]:
        yield (
            f"{history.started.space}: its file was edited since this sweep was last at work; further trials are drawn "
            "from the space as it is now"
        )
    ends = [trial.end for trial in history.trials.values() if trial.end and trial.end.final]
    misled = any(end.diverged or history.trials[end.trial].started.baseline for end in ends)
    if misled and history.drivers[-1].format < 2:
        yield (
            "an earlier version began this sweep: its sampler learned from baselines as well, and nothing from "
            "diverged trials. Its trials stay as recorded; further ones are proposed by today's rules"
        )


def _source_sha256(function: Callable[..., object]) -> str | None:
    """Of the file that a function is written in; None where there is none, as in a notebook."""
    try:
        return hashlib.sha256(Path(inspect.getfile(inspect.unwrap(function))).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return None


def _git_commit() -> str | None:
    """The commit of the code that runs, with `+` where the tree differs from it; None outside a checkout."""
    here = Path(__file__).parents[1]
    try:
        commit = _git(here, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, timeout=5, check=True)
    return done.stdout.decode("utf-8", "replace").strip()


def free_bytes(path: Path) -> int:
    """Free space where `path` is, or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
