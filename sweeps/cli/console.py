"""Where the program speaks to a person: results to stdout, warnings and errors to stderr."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType

from rich.console import Console
from rich.text import Text

from tracking.mlflow_sync.uri import without_password

_PIPED_WIDTH = 160  # rich takes 80 where there is no terminal to ask, which squeezes the leaderboard

console = Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def warn(message: str) -> None:
    """Say what is wrong but not fatal."""
    errors.print(Text(without_password(f"warning: {message}"), style="yellow"))


def hide_passwords_in_tracebacks() -> None:
    """Have Python print what no code here has caught without the passwords in it."""

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stderr.write(without_password("".join(traceback.format_exception(kind, error, trace))))

    sys.excepthook = show
