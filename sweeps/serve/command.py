"""Runs the project's own commands for the pages, so that a page does what the command line does."""

from __future__ import annotations

import signal
import subprocess
import sys

from sweeps.errors import InputError

_GRACE_SECONDS = 10.0


def run_verb(*words: str, timeout: float, module: str = "sweeps") -> str:
    """The output of `python -m sweeps`, or of another module, with these arguments.

    Raises InputError with its error message. An internal error is printed only on the server's terminal, with its
    traceback.
    """
    command = [sys.executable, "-m", module, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as running:
        try:
            printed, errors = running.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _interrupt(running)
            raise InputError(f"{words[0]} took longer than {timeout:.0f} s and was stopped") from None
        except BaseException:
            running.kill()
            raise
    if running.returncode:
        _, is_refused, reason = f"\n{errors}".partition("\nerror: ")  # warnings may come first
        if not is_refused:
            print(errors, file=sys.stderr)  # noqa: T201  (the server's own terminal)
            raise InputError(f"{words[0]} failed; the server's terminal shows why")
        raise InputError(reason.strip())
    return printed


def _interrupt(running: subprocess.Popen[str]) -> None:
    """End a command as Ctrl-C does, so that it takes back what it asked for; kill it if that has no effect."""
    running.send_signal(signal.SIGINT)
    try:
        running.communicate(timeout=_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        running.kill()
