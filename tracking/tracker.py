"""The protocol of a tracker, to which a sweep sends its results while it runs."""

from collections.abc import Callable
from typing import Protocol


class Tracker(Protocol):
    """Sends a sweep's journal elsewhere. The journal is its queue: a later `sync` sends what is missing.

    All calls come from the driver's thread and return at once, except `close`. If the destination does not answer, that
    is a warning and never an exception, so that the sweep continues.
    """

    def start(self) -> None:
        """Start sending; the journal must have its first line. Further calls do nothing."""
        ...

    def wake(self) -> None:
        """Signal that the journal has grown."""
        ...

    def close(self, seconds_left: Callable[[], float]) -> int:
        """Send what is left and stop; return how many events were unsent when no seconds were left."""
        ...


class NoTracker:
    """Sends nothing: the sweep's folder has everything, and `sync` can send it later."""

    def start(self) -> None:
        """Do nothing."""

    def wake(self) -> None:
        """Do nothing."""

    def close(self, seconds_left: Callable[[], float]) -> int:
        """Nothing is left unsent."""
        return 0
