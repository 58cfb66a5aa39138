"""What a user did wrong, said once and clearly."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(Exception):
    """Bad input: the message names the rule, the value given and the way out. The command exits with code 2."""


class WorkerMustLeave(Exception):  # noqa: N818  (an instruction, not a fault of the trial)
    """This process cannot train the trial further, but another can: from its last checkpoint, after this one ended."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'? (known: …)`, ready to be appended to a message about an unknown name."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    guess = f"; did you mean '{close[0]}'?" if close else ""
    return f"{guess} (known: {', '.join(names)})"
