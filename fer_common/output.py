"""What the commands do with stdout and stderr."""

from __future__ import annotations

import io
import sys


def replace_missing_characters() -> None:
    """Write a question mark for each character that the terminal's encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
