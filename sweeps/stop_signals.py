"""Signals that stop a sweep: it can be resumed."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType

from sweeps.driver.director import Director
from sweeps.driver.runner import GRACE_SECONDS


class StopSignals:
    """The signals that a sweep has received."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.interrupt = True
        """Whether the second signal, and each later one, raises KeyboardInterrupt."""

    def any(self) -> bool:
        """Whether one was received."""
        return bool(self.received)

    @contextlib.contextmanager
    def withheld(self) -> Iterator[None]:
        """Let no signal interrupt the block, which records the end of the sweep."""
        self.interrupt = False
        try:
            yield
        finally:
            self.interrupt = True


@contextlib.contextmanager
def signals_stop(director: Director) -> Iterator[StopSignals]:
    """Turn the first SIGINT, SIGTERM or SIGHUP (the terminal is closed) into a request to stop, and the second into
    an immediate KeyboardInterrupt. Signals that the caller ignores, as nohup does, stay ignored."""
    signals = StopSignals()

    def handle(number: int, _: FrameType | None) -> None:
        signals.received.append(number)
        director.request_stop(f"stopped by {signal.Signals(number).name}", hurried=True)
        if len(signals.received) > 1:
            if signals.interrupt:
                raise KeyboardInterrupt
            return
        sys.stderr.write(
            f"\nstopping at the end of this epoch, in at most {GRACE_SECONDS:.0f} s; a second signal stops at once\n"
        )

    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    try:
        before = {number: signal.signal(number, handle) for number in numbers}
    except ValueError:  # not in the main thread, as in some notebooks, which have their own way to interrupt
        yield signals
        return
    try:
        yield signals
    except KeyboardInterrupt:
        if not signals.any():
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Deadline:
    """The end of a wait: after `seconds`, or `hurried_seconds` after `is_hurried` is first True, as after a signal."""

    def __init__(self, seconds: float, hurried_seconds: float, is_hurried: Callable[[], bool]) -> None:
        self._seconds, self._hurried_seconds, self._is_hurried = seconds, hurried_seconds, is_hurried
        self._hurried_end = math.inf
        self.renew()

    def renew(self) -> None:
        """Wait `seconds` from now on; a signal's limit stays."""
        self._end = time.monotonic() + self._seconds

    def left(self) -> float:
        """The seconds left; 0 or less when the time is up."""
        now = time.monotonic()
        if self._is_hurried():
            self._hurried_end = min(self._hurried_end, now + self._hurried_seconds)
        return min(self._end, self._hurried_end) - now
