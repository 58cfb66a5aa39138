"""Bounds the disk space of paused trials' states; the least promising are deleted first."""

from __future__ import annotations

from collections.abc import Callable

from sweeps.driver.environment import free_bytes
from sweeps.driver.pauses import by_promise, paused_trials
from tracking.errors import TrackingError
from tracking.record.cleaning import remove, states
from tracking.record.events import Event, TrialPaused
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder

_SHARE_OF_FREE = 10


class KeptStates:
    """Listens to a sweep. After each pause the states of its paused trials take `most_bytes` at most.

    A trial without its state trains its epochs again when it continues, to the same values. None is a tenth of the
    disk's free space, as it is at the pause.
    """

    def __init__(self, folder: SweepFolder, most_bytes: int | None, on_warning: Callable[[str], None]) -> None:
        self._folder, self._most_bytes, self._on_warning = folder, most_bytes, on_warning
        self._warned = False

    def __call__(self, event: Event, history: SweepHistory) -> None:
        """Take in an event, as a director's listener."""
        if not isinstance(event, TrialPaused):
            return
        files = {trial.number: list(states(self._folder, trial)) for trial in paused_trials(history)}
        sizes = {number: sum(one.size_bytes for one in found) for number, found in files.items()}
        taken = sum(sizes.values())
        most = self._most_bytes if self._most_bytes is not None else (
            (free_bytes(self._folder.root) + taken) // _SHARE_OF_FREE
        )  # fmt: skip
        for number in reversed(by_promise(history, [number for number, size in sizes.items() if size])):
            if taken <= most:
                return
            try:
                taken -= remove(files[number])
            except TrackingError as error:
                self._on_warning(str(error))
                return
            if self._warned and event.reason == "rung":
                continue  # many trials wait at rungs, and few of them continue
            self._warned = True
            self._on_warning(
                f"trial {number}: its state is dropped, as those of paused trials take more than "
                f"{most / 2**20:,.0f} MiB (--keep-states); it trains its epochs again when it continues"
            )
