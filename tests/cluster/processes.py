"""Python and Ray in processes of their own, with a token and nothing of this machine's settings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import ROOT
from tests.ports import free_port

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
TOKEN = "0f" * 32
PATIENCE = 900
"""Seconds that the start of nodes, or a sweep on them, may take on a machine that does much else."""
needs_ray_default = pytest.mark.skipif(
    find_spec("aiohttp_cors") is None, reason="a head that takes jobs needs ray[default]"
)


def environment(folder: Path) -> dict[str, str]:
    """For the processes of a cluster whose token lies in `folder`, which is their home as well.

    Ray's workers are nice by default, and its starts have seconds: neither is for a machine that does much else.
    """
    token = folder / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # a job's `python` is that of the head's PATH
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_", "CUDA_"))}
    return kept | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "HOME": str(folder), "PYTHONPATH": str(ROOT),
                   "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "PATH": path,
                   "RAY_worker_niceness": "0", "RAY_raylet_start_wait_time_s": "60",
                   "RAY_worker_register_timeout_seconds": "180"}  # fmt: skip


def python(environment: dict[str, str], *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], env=environment, cwd=environment["HOME"], timeout=timeout,
                          capture_output=True, text=True, check=False)  # fmt: skip


def wait_for(condition: Callable[[], object], seconds: float, what: Callable[[], str], every: float = 0.5) -> None:
    """Until `condition` holds; after `seconds` the test fails with what `what` says."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(every)


@contextmanager
def ray_head(folder: Path, *more: str) -> Iterator[str]:
    """A head with two cores on this machine, whose token and log are in `folder`, and its address; `more` are options
    of `ray start`."""
    port, temporary = free_port(), f"/tmp/fer-{os.getpid()}-{time.monotonic_ns() % 10**6}"
    start = [*RAY, "start", "--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=2",
             f"--dashboard-agent-listen-port={free_port()}", "--object-store-memory=100000000",
             f"--temp-dir={temporary}", *more]  # fmt: skip
    log = folder / "head.log"
    with log.open("w") as file:
        process = subprocess.Popen(start, env=environment(folder), stdout=file, stderr=file, start_new_session=True)
    try:
        wait_for(lambda: "Ray runtime started" in log.read_text(), 120, log.read_text)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(temporary, ignore_errors=True)
