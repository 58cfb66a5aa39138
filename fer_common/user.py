"""The user who runs this process."""

from __future__ import annotations

import getpass
import os


def user_name() -> str:
    """The user's name, or their number if they have no name, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
