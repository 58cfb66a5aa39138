"""A thread that sends a growing journal's events to a receiver and never blocks the journal's writer."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from tracking.errors import TrackingError
from tracking.record.events import Event
from tracking.record.journal import read_from

_STRETCH_BYTES = 16 << 20
"""Bytes of a backlog that are sent at once. A larger number means fewer requests per run and more memory."""

_GATHER_SECONDS = 1.0
_FIRST_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 30.0
_CLOSE_WHEN_DOWN_SECONDS = 2.0


class Receiver(Protocol):
    """Receives a journal's events, each at least once. It is called from one thread; any method may raise."""

    def connect(self, journal: Path, end: int) -> None:
        """Drop all state and look up what the destination has. The events then come again from the first one.

        The journal's bytes up to `end` will be sent before anything newer.
        """

    def send(self, events: Iterable[Event]) -> None:
        """Take the next events, in order. They are read from the journal during the iteration.

        If this raises, `connect` is called before anything else.
        """

    def all_acknowledged(self) -> bool:
        """Whether every request so far was answered. If not, another `connect` repairs what is missing."""

    def describe(self, error: Exception) -> str:
        """The last fault, in one line."""


class Follower:
    """Follows one journal. The file is the queue: no events wait in memory, even if the destination is down."""

    def __init__(self, journal: Path, receiver: Receiver, on_warning: Callable[[str], None]) -> None:
        self._journal = journal
        self._receiver = receiver
        self._on_warning = on_warning
        self._thread = threading.Thread(target=self._run, name="mlflow-sink", daemon=True)
        self._news = threading.Event()
        self._closing = threading.Event()
        self._connected = False
        self._down = False
        self._end = 0
        self._offset = 0
        self._sent = 0

    def start(self) -> None:
        """Start, once; the journal must have its first line."""
        self.wake()
        if self._thread.ident is None:
            self._thread.start()

    def wake(self) -> None:
        """Signal that the journal has grown; returns at once.

        Events up to the present size of the file are sent, because a line that is still being written may be removed
        again.
        """
        self._end = self._journal.stat().st_size
        self._news.set()

    def close(self, seconds_left: Callable[[], float]) -> int:
        """Send what is left and stop; return the number of events that were unsent when time was up.

        If the destination is down, it is tried once more, without waiting.
        """
        self.wake()
        self._closing.set()
        self._news.set()
        down_since: float | None = None
        while self._thread.is_alive() and seconds_left() > 0:
            self._thread.join(0.05)
            down_since = (down_since or time.monotonic()) if self._down else None
            if down_since is not None and time.monotonic() - down_since > _CLOSE_WHEN_DOWN_SECONDS:
                break
        return self._backlog()

    def run_to_end(self) -> None:
        """Send the whole journal now, in this thread.

        Raises:
            TrackingError: the journal is corrupt, or the receiver did not accept all of it.
        """
        self._end = self._journal.stat().st_size
        try:
            self._catch_up()
        except TrackingError:
            raise
        except Exception as error:
            raise TrackingError(
                f"{self._receiver.describe(error)}; {self._backlog()} events of {self._journal} are not sent"
            ) from error

    def _run(self) -> None:
        retry_seconds = _FIRST_RETRY_SECONDS
        while True:
            is_last_round = self._closing.is_set()
            try:
                self._catch_up()
            except TrackingError as error:
                self._on_warning(str(error))
                return
            # No exception of a client library or a disk may end this thread or the sweep.
            except Exception as error:
                if not self._go_on_after(error):
                    return
                self._closing.wait(retry_seconds)
                retry_seconds = min(2 * retry_seconds, _LONGEST_RETRY_SECONDS)
                continue
            self._down = False
            retry_seconds = _FIRST_RETRY_SECONDS
            if is_last_round:
                return
            self._news.wait()
            self._closing.wait(_GATHER_SECONDS)

    def _go_on_after(self, error: Exception) -> bool:
        if not self._down:
            self._on_warning(
                f"{self._receiver.describe(error)}; the sweep continues; its results stay in {self._journal} "
                "and are sent when MLflow answers again"
            )
        self._down = True
        return not self._closing.is_set()

    def _catch_up(self) -> None:
        self._news.clear()
        try:
            self._send_waiting()
            if self._closing.is_set() and not self._receiver.all_acknowledged():
                self._connected = False
                self._send_waiting()
        except Exception:
            self._connected = False
            raise

    def _send_waiting(self) -> None:
        # The end named to `connect` must be a border between two stretches, so it is fixed for this round.
        end = self._end
        if not self._connected:
            self._offset = 0
            self._receiver.connect(self._journal, end)
            self._connected = True
        while self._offset < end:
            begin = self._offset
            self._receiver.send(self._stretch(end))
            self._sent = max(self._sent, self._offset)
            if self._offset == begin:
                return

    def _stretch(self, end: int) -> Iterator[Event]:
        """The next events; moves `_offset`. After an error the next round starts from the first event."""
        begin = self._offset
        while self._offset < min(end, begin + _STRETCH_BYTES):
            events, after = read_from(self._journal, self._offset, end=end)
            if after == self._offset:
                return
            self._offset = after
            yield from events

    def _backlog(self) -> int:
        with self._journal.open("rb") as file:
            file.seek(self._sent)
            return sum(1 for line in file if line.endswith(b"\n"))
