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
    """Raises UserError for a bad command line. Options cannot be abbreviated.

    `parse_known_args` raises only for faults that hide the others, as an unknown verb. The others are in `faults` of
    what it returns, so that its caller can show them together with those that it finds itself.
    """

    way_out = ""
    """A hint for unknown options. If it is empty, the nearest known option is suggested."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **{**more, "allow_abbrev": False})

    def parse_args(self, *args: Any, **more: Any) -> Any:  # typed in the stubs by overloads, as the next one
        """The arguments. Raises UserError with every fault."""
        given, _ = self.parse_known_args(*args, **more)
        if given.faults:
            raise UserError("; ".join(given.faults))
        return given

    def parse_known_args(self, *args: Any, **more: Any) -> Any:
        """The arguments and their faults. Unknown ones are faults, found here, where the verb's options are known."""
        self._faults: list[str] = []
        given, unknown = super().parse_known_args(*args, **more)
        if unknown:
            option = next((word.partition("=")[0] for word in unknown if word.startswith("-")), None)
            near = nearest(option, self._option_string_actions) if option else ""
            self._faults.append(f"unknown argument {' '.join(unknown)}{self.way_out or near}")
        of_verb = getattr(given, "faults", [])
        given.faults = of_verb + ([self._with_hint(self._faults)] if self._faults else [])
        return given, []

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """The value of an argument; a bad one is a fault, and the argument counts as not given."""
        try:
            return super()._get_values(action, arg_strings)
        except argparse.ArgumentError as error:
            if action.nargs == argparse.PARSER:  # the rest can only be read by the parser of a known verb
                raise
            self._faults.append(str(error))
            return argparse.SUPPRESS

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(
                action, f"unknown '{value}'{did_you_mean(str(value), map(str, action.choices))}"
            )

    def _with_hint(self, faults: Sequence[str]) -> str:
        return f"{'; '.join(faults)}; see {self.prog} --help"

    def error(self, message: str) -> NoReturn:
        """Raise UserError with the faults so far."""
        raise UserError(self._with_hint([*self._faults, message]))


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
