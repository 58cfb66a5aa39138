"""Errors that the user can fix, and the one that ends a worker process."""

from __future__ import annotations

from fer_common.errors import UserError
from fer_common.errors import did_you_mean as did_you_mean


class InputError(UserError):
    """Bad input to a sweep."""


class WorkerMustLeave(Exception):  # noqa: N818  (an instruction, not a fault of the trial)
    """This process must end; another one can continue the trial from its last checkpoint."""


class NoRoomHere(WorkerMustLeave):
    """As the base class, for this trial only: others may continue in this process."""
