"""Facts about the machine and the program that every record carries."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sweeps.spec import SweepSpec
from tracking.events import FORMAT, DriverStarted

_PACKAGES = ("fer-sweeps", "torch", "ray", "optuna", "mlflow", "numpy")


def driver_started(spec: SweepSpec, *, resumed: bool) -> DriverStarted:
    """The event that says who took up the sweep, to do what, with which versions."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return DriverStarted(
        format=FORMAT,
        host=socket.gethostname(),
        pid=os.getpid(),
        versions=versions,
        git_commit=_git_commit(),
        resumed=resumed,
        spec=spec.model_dump(mode="json"),
    )


def _git_commit() -> str | None:
    """The commit of the code that runs, with `+` where the tree differs from it; None outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()


def free_bytes(path: Path) -> int:
    """Free space where `path` is, or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
