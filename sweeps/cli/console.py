"""The program's output: results to stdout, warnings and errors to stderr."""

from __future__ import annotations

import select
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

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


_STDOUT = 1


def is_unread() -> bool:
    """Whether the reader of stdout is gone, as in `logs night | head -1`: following a sweep then has no purpose.

    The pipe itself is asked, because a sweep may write nothing to print for hours.
    """
    pipe = select.poll()
    pipe.register(_STDOUT, 0)
    return any(state & select.POLLERR for _, state in pipe.poll(0))
