"""What is wrong with a cluster or with what was said about it, in one message that is complete in itself."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches


class ClusterError(Exception):
    """The message names the rule, the value found and the way out. The command exits with code 2."""


def without_password(text: str) -> str:
    """A URI, or a message with URIs in it, as it may be shown."""
    return re.sub(r"(://[^\s/?#@:]*:)\S*(?=@)", r"\1…", text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'? (known: …)`, ready to be appended to a message about an unknown name."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    guess = f"; did you mean '{close[0]}'?" if close else ""
    return f"{guess} (known: {', '.join(names) or 'none'})"
