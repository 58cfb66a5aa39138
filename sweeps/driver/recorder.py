"""Writes the events of a running sweep: to the journal first, then to the history, then to the listeners."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tracking.record.events import Event
from tracking.record.history import SweepHistory
from tracking.record.journal import Journal

Listener = Callable[[Event, SweepHistory], None]
"""Called with each event, after it is on disk and in the history."""


class Recorder:
    """Records the events of one sweep. No event has an effect before it is on disk."""

    def __init__(self, journal: Journal, history: SweepHistory, listeners: Sequence[Listener] = ()) -> None:
        self.history = history
        self._journal, self._listeners = journal, listeners

    def record(self, event: Event) -> None:
        """Append the event to the journal, then apply it."""
        self._journal.append(event)
        self.history.apply(event)
        for listener in self._listeners:
            listener(event, self.history)
