"""Facts about the machine and the program, recorded by every driver."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from fer_common.versions import versions
from sweeps.spec import SweepSpec
from tracking.record.events import FORMAT, Drawn, DriverStarted
from tracking.record.history import SweepHistory

_PACKAGES = ("fer-sweeps", "torch", "ray", "optuna", "mlflow", "numpy")


def driver_started(
    spec: SweepSpec,
    *,
    resumed: bool,
    space_sha256: str | None = None,
    redrawn: Mapping[int, Drawn | None] | None = None,
    gpus: str = "",
) -> DriverStarted:
    """The event of a driver's start: user, options, versions, and the effects of an edited space."""
    return DriverStarted(
        format=FORMAT,
        host=socket.gethostname(),
        pid=os.getpid(),
        versions=versions(_PACKAGES),
        git_commit=_git_commit(),
        gpus=gpus or None,
        resumed=resumed,
        space_sha256=space_sha256,
        redrawn=dict(redrawn) if redrawn is not None else None,
        spec=spec.model_dump(mode="json"),
    )


def differences(history: SweepHistory) -> Iterator[str]:
    """What differs from the sweep's earlier drivers, one sentence each."""
    ends = [trial.end for trial in history.trials.values() if trial.end and trial.end.final]
    misled = any(end.diverged or history.trials[end.trial].started.baseline for end in ends)
    if misled and history.drivers[-1].format < 2:
        yield (
            "an earlier version started this sweep: its sampler also learned from baselines, and nothing from diverged "
            "trials. These trials stay as recorded; further ones are proposed by the current rules"
        )


def _git_commit() -> str | None:
    """The commit of the running code, with `+` if files differ from it. None outside a checkout."""
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
    """Free bytes on the disk of `path`, which need not exist."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
