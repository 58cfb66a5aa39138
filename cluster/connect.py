"""Starts Ray on this machine as a sweep needs it: private, quiet, and without a word in the user's home folder."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial with 0 GPUs sees none, rather than all
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in a worker
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the journal is the record
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the sweep stops itself, checkpointed
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Tune's own state is never read again
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def prepare_environment() -> None:
    """Set what Ray reads from the environment; to be called before ray is imported, which is when it reads it.

    The token is made here, since Ray would otherwise write one to ~/.ray, which changes the user's later `ray start`.
    Where ray is imported already (a notebook), its own way of authentication holds.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@contextmanager
def local_ray(cpus: int, gpus: int) -> Iterator[None]:
    """A Ray of our own on this machine for as long as the block runs.

    A Ray that the caller has initialised already (a notebook, a driver on a cluster) is used as it is and left
    running. `address="local"` because Ray would otherwise join whatever cluster its temporary folder names.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    with _signal_handlers_kept():
        ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=gpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Put back the SIGTERM handler that ray.init replaces by one that aborts."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
