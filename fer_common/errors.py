"""Bad input ends a command with one line and exit code 2. No message shows a password."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

BAD_INPUT = 2
_MOST_LISTED = 30
_PASSWORD = re.compile(
    r"(://[^\s/?#@:]*:)(?!\d+(?:[/?#\s]|$))\S*(?=@)|([?&](?:password|passwd|pwd|odbc_connect)=)(?!…)[^\s&'\")]+",
    re.IGNORECASE,
)


class UserError(Exception):
    """An error that the user can fix; the message names the rule, the given value and the way out."""


class Parser(argparse.ArgumentParser):
    """Raises UserError for a bad command line. Options cannot be abbreviated."""

    way_out = ""
    """A hint for unknown options. If it is empty, the nearest known option is suggested."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **{**more, "allow_abbrev": False})

    def parse_known_args(self, *args: Any, **more: Any) -> Any:  # typed in the stubs by four overloads
        """Refuse unknown arguments here, where the options of the verb are known."""
        parsed, unknown = super().parse_known_args(*args, **more)
        if unknown:
            option = next((word.partition("=")[0] for word in unknown if word.startswith("-")), None)
            near = nearest(option, self._option_string_actions) if option else ""
            self.error(f"unknown argument {' '.join(unknown)}{self.way_out or near}")
        return parsed, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(
                action, f"unknown '{value}'{did_you_mean(str(value), map(str, action.choices))}"
            )

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(f"{message}; see {self.prog} --help")


def run_command(argv: Sequence[str], act: Callable[[], int], show: Callable[[str], object]) -> int:
    """Run `act` and return its exit code. `show` receives the line of a UserError. `--debug` shows the traceback."""
    fault: Exception
    try:
        return act()
    except UserError as error:
        fault, line = error, str(error)
    except OSError as error:  # of the file system, such as a folder that may not be entered
        fault, line = error, f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except KeyboardInterrupt:
        return 130
    if "--debug" in argv:
        raise fault
    show(f"error: {line}")
    return BAD_INPUT


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest of the known names, case ignored. Empty if none is near."""
    lowered = {one.lower(): one for one in sorted(known, reverse=True)}
    close = get_close_matches(name.lower(), list(lowered), n=1)
    return f"; did you mean '{lowered[close[0]]}'?" if close else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """As `nearest`, with all known names: `; did you mean 'x'? (known: x, y)`. Many are listed only if none is near."""
    names = sorted(known)
    near = nearest(name, names)
    return near if near and len(names) > _MOST_LISTED else f"{near} (known: {', '.join(names) or 'none'})"


def without_password(text: str) -> str:
    """A URI, or a message that contains URIs, without passwords, as it may be printed and recorded."""
    return _PASSWORD.sub(lambda found: f"{found[1] or found[2]}…", text)
