"""The user who runs this process, and when they asked for it."""

from __future__ import annotations

import getpass
import os
import time

ASKED_MS = "FER_SWEEPS_ASKED_MS"
"""Environment variable of a command that runs for a user of another machine: when it was given there."""


def user_name() -> str:
    """The user's name, or their number if they have no name, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def asked_ms() -> int:
    """When this command was given, in milliseconds since 1970."""
    return int(os.environ.get(ASKED_MS) or time.time_ns() // 1_000_000)
