"""Where the program speaks to a person: results to stdout, warnings and errors to stderr."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.text import Text

_PIPED_WIDTH = 160  # rich takes 80 where there is no terminal to ask, which squeezes the leaderboard

console = Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def warn(message: str) -> None:
    """Say what is wrong but not fatal."""
    errors.print(Text(f"warning: {message}", style="yellow"))
