"""Runs the project's own commands for the pages, so that a page does what the command line does."""

from __future__ import annotations

import subprocess
import sys

from sweeps.errors import InputError


def run_verb(*words: str, timeout: float, module: str = "sweeps") -> str:
    """The output of `python -m sweeps`, or of another module, with these arguments.

    Raises InputError with its error message. An internal error is printed only on the server's terminal, with its
    traceback.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *words], capture_output=True, encoding="utf-8", timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"{words[0]} took longer than {timeout:.0f} s and was stopped") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        if not lines or not lines[0].startswith("error: "):
            print(done.stderr, file=sys.stderr)  # noqa: T201  (the server's own terminal)
            raise InputError(f"{words[0]} failed; the server's terminal shows why")
        raise InputError(done.stderr.strip().removeprefix("error: "))
    return done.stdout
