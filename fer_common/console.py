"""Terminals to print on."""

from __future__ import annotations

import sys

from rich.console import Console

_PIPED_WIDTH = 160  # rich takes 80 where there is no terminal to ask, which squeezes tables


def new_console(*, stderr: bool = False) -> Console:
    """A console for plain text and tables. If the output is piped, it is wide enough for them."""
    stream = sys.stderr if stderr else sys.stdout
    at_a_terminal = stream is not None and stream.isatty()
    width = None if at_a_terminal else _PIPED_WIDTH
    return Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True, width=width)
