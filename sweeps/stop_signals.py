"""Signals that stop a sweep: it can be resumed."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from sweeps.driver.director import Director
from sweeps.driver.runner import GRACE_SECONDS


@contextlib.contextmanager
def signals_stop(director: Director) -> Iterator[list[int]]:
    """Turn the first SIGINT, SIGTERM or SIGHUP (the terminal is closed) into a request to stop, the second into an
    immediate KeyboardInterrupt. A signal that the caller has ignored, as nohup does, stays ignored."""
    received: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        received.append(number)
        director.request_stop(f"stopped by {signal.Signals(number).name}")
        if len(received) > 1:
            raise KeyboardInterrupt
        sys.stderr.write(
            f"\nstopping at the end of this epoch, in {GRACE_SECONDS:.0f} s at most; once more to leave at once\n"
        )

    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    try:
        before = {number: signal.signal(number, handle) for number in numbers}
    except ValueError:  # not the main thread, as in some notebooks: their own way of interrupting holds
        yield received
        return
    try:
        yield received
    except KeyboardInterrupt:
        if not received:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
