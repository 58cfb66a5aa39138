"""NVIDIA's Multi-Process Service: lets small kernels of several processes run on one card at the same time."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping

CONTROL = "nvidia-cuda-mps-control"


@contextlib.contextmanager
def mps() -> Iterator[Mapping[str, str] | None]:
    """The environment of processes that share a card through a daemon of ours; None where there can be none."""
    control = shutil.which(CONTROL)
    if control is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        started = subprocess.run([control, "-d"], env=environment, capture_output=True, text=True, timeout=20)
        if started.returncode:
            yield None
            return
        try:
            yield environment
        finally:
            subprocess.run([control], input="quit\n", env=environment, capture_output=True, text=True, timeout=30)
