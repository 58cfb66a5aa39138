"""The program's output: results to stdout, warnings and errors to stderr."""

from __future__ import annotations

import io
import select
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.text import Text

from fer_common.console import new_console
from fer_common.errors import without_password

console, errors = new_console(), new_console(stderr=True)


def warn(message: str) -> None:
    """Print a warning."""
    errors.print(Text(without_password(f"warning: {message}"), style="yellow"))


@contextmanager
def on_stderr(wanted: bool) -> Iterator[None]:
    """Print results on stderr while the block runs, if `wanted`: stdout has something for programs."""
    before, console.stderr = console.stderr, wanted or console.stderr
    try:
        yield
    finally:
        console.stderr = before


def hide_passwords_in_tracebacks() -> None:
    """Remove passwords from Python's tracebacks of uncaught exceptions."""

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stderr.write(without_password("".join(traceback.format_exception(kind, error, trace))))

    sys.excepthook = show


def let_no_output_fail() -> None:
    """Make stdout and stderr drop what cannot be written, so that it does not end a sweep.

    The reader of a pipe or the terminal may be gone, or the disk of a log full. A character that the terminal cannot
    show becomes a question mark.
    """
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is not None:  # None if the file descriptor is closed
            raw = io.BufferedWriter(_Unfailing(stream.fileno(), "w", closefd=False))
            setattr(sys, name, io.TextIOWrapper(raw, stream.encoding, errors="replace", line_buffering=True))


class _Unfailing(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


_STDOUT = 1


def is_unread() -> bool:
    """Whether the reader of stdout is gone, as in `logs night | head -1`: following a sweep then has no purpose.

    The pipe itself is asked, because a sweep may write nothing to print for hours.
    """
    pipe = select.poll()
    pipe.register(_STDOUT, 0)
    return any(state & select.POLLERR for _, state in pipe.poll(0))
