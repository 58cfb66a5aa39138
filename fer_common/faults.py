"""Rewords the errors of pydantic."""

from __future__ import annotations

from typing import Any

_WORDS = {
    "Value error, ": "",  # raised by a validator of ours
    "Input should be greater than or equal to ": "must be at least ",
    "Input should be greater than ": "must be above ",
    "Input should be less than or equal to ": "must be at most ",
    "Input should be less than ": "must be below ",
    "Input should be ": "must be ",
}


def rule(fault: Any) -> str:
    """The rule that one of `ValidationError.errors()` breaks."""
    message = str(fault["msg"])
    for theirs, ours in _WORDS.items():
        if message.startswith(theirs):
            return ours + message.removeprefix(theirs)
    return message if message[1:2].isupper() else f"{message[:1].lower()}{message[1:]}"  # JSON stays JSON
