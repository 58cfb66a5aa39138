"""What programs print: terminals to print on, and output that cannot be written."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

from rich.console import Console

_PIPED_WIDTH = 160  # rich takes 80 where there is no terminal to ask, which squeezes tables


def new_console(*, stderr: bool = False) -> Console:
    """A console for plain text and tables. If the output is piped, it is wide enough for them."""
    stream = sys.stderr if stderr else sys.stdout
    at_a_terminal = stream is not None and stream.isatty()
    width = None if at_a_terminal else _PIPED_WIDTH
    return Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True, width=width)


def let_no_output_fail() -> None:
    """Make stdout and stderr drop what cannot be written, so that it does not end a sweep.

    The reader of a pipe or the terminal may be gone, the disk of a log full, or a descriptor closed. A character that
    the terminal cannot show becomes a question mark.
    """
    _open_closed_descriptors()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        before = getattr(sys, name)  # None if the descriptor was closed
        raw = io.BufferedWriter(_Unfailing(descriptor, "w", closefd=False))
        encoding = before.encoding if before else "utf-8"
        setattr(sys, name, io.TextIOWrapper(raw, encoding, errors="replace", line_buffering=True))


def _open_closed_descriptors() -> None:
    """Open /dev/null as each closed one of stdin, stdout and stderr, also for processes that are started.

    Otherwise the next files that are opened take their numbers, and receive what is printed.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115


class _Unfailing(io.FileIO):
    full: OSError | None = None
    """The error of a disk that had no space for what was printed."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self.full = OSError(error.errno, error.strerror, "stdout")
            return len(data)


def refuse_lost_output() -> None:
    """Raise OSError if the disk behind stdout had no space. A reader that is gone had what it wanted."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _Unfailing):
        sys.stdout.flush()
        if raw.full:
            raise raw.full
