"""The contract of what a sweep's results are sent to while it runs."""

from typing import Protocol


class Tracker(Protocol):
    """Sends a sweep's journal elsewhere. The journal is its queue: what is not sent now, a later `sync` sends.

    All calls come from the driver's thread and return at once, but for `close`. A destination that does not answer is a
    warning, and never an exception: the sweep continues.
    """

    def start(self) -> None:
        """Start to send; the journal must have its first line. Further calls do nothing."""
        ...

    def wake(self) -> None:
        """Signal that the journal has grown."""
        ...

    def close(self, timeout_seconds: float) -> int:
        """Send what is left and stop; return how many events were unsent after that time."""
        ...


class NoTracker:
    """Sends nothing: the sweep's folder has everything, and `sync` can send it later."""

    def start(self) -> None:
        """Do nothing."""

    def wake(self) -> None:
        """Do nothing."""

    def close(self, timeout_seconds: float) -> int:
        """Nothing is left unsent."""
        return 0
