"""Passes an error from one process to another."""

from __future__ import annotations

import pickle
import traceback
from typing import NamedTuple


class Failure(NamedTuple):
    """Sent in place of an answer: the error, its cause or context, and so on."""

    errors: list[BaseException]

    @classmethod
    def of(cls, error: BaseException | None) -> Failure:
        """The error in a form that other processes can read. Its traceback becomes a note."""
        if error is not None:
            error.add_note("in another process:\n" + "".join(traceback.format_exception(error)))
        chain: list[BaseException] = []
        while error is not None:
            try:
                pickle.loads(pickle.dumps(error))
                chain.append(error)
            except Exception:
                chain.append(RuntimeError(f"{type(error).__name__}: {error}"))
            error = error.__cause__ or error.__context__
        return cls(chain)

    def error(self) -> BaseException:
        """The error, with the same chain of causes."""
        for error, cause in zip(self.errors, self.errors[1:], strict=False):
            error.__cause__ = cause
        return self.errors[0]
