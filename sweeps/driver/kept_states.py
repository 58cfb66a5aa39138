"""Limits the disk space of training states from which trials may continue: the least promising are deleted first."""

from __future__ import annotations

from collections.abc import Callable

from sweeps.driver.environment import free_bytes
from sweeps.driver.pauses import by_promise
from tracking.errors import TrackingError
from tracking.record.cleaning import lasting, remove, states
from tracking.record.events import Event, TrialEnded, TrialPaused
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder

_SHARE_OF_FREE = 10


class KeptStates:
    """Listens to a sweep, and keeps the total size of its states at `most_bytes` or less.

    None is a tenth of the disk's free space at that time. States of trials that are done, which only `extend` needs,
    are deleted first. A paused or failed trial without its state trains its epochs again when it continues, with the
    same results. A trial that began from another trial's state cannot, and keeps its own.
    """

    def __init__(self, folder: SweepFolder, most_bytes: int | None, on_warning: Callable[[str], None]) -> None:
        self._folder, self._most_bytes, self._on_warning = folder, most_bytes, on_warning
        self._warned = False
        self._lasting = {int(path.parent.parent.name) for path in folder.trials.glob("*/lasting/last.safetensors")}

    def __call__(self, event: Event, history: SweepHistory) -> None:
        """Handle an event of the director."""
        if isinstance(event, TrialEnded) and self._folder.trial(event.trial).lasting.last.is_file():
            self._lasting.add(event.trial)
        elif not (isinstance(event, TrialPaused) or (isinstance(event, TrialEnded) and event.state == "failed")):
            return
        done = [number for number in self._lasting if history.trials[number].state == "done"]
        files = {number: list(lasting(self._folder, history.trials[number], None)) for number in done}
        waiting = [*history.paused, *history.to_retry]
        files |= {trial.number: list(states(self._folder, trial)) for trial in waiting}
        sizes = {number: sum(one.size_bytes for one in found) for number, found in files.items()}
        taken = sum(sizes.values())
        most = self._most_bytes if self._most_bytes is not None else (
            (free_bytes(self._folder.root) + taken) // _SHARE_OF_FREE
        )  # fmt: skip
        if taken <= most:
            return
        starts = {number: history.trials[number].started for number, size in sizes.items() if size}
        can_go = [number for number, started in starts.items() if number in done or not started.began_from_state]
        least_first = by_promise(history, can_go)[::-1]
        for number in sorted(least_first, key=lambda number: number not in done):
            if taken <= most:
                return
            try:
                taken -= remove(files[number])
            except TrackingError as error:
                self._on_warning(str(error))
                return
            if self._warned and not (isinstance(event, TrialPaused) and event.reason != "rung"):
                continue  # no warning: many trials wait at rungs, and few of them continue
            self._warned = True
            what = "it cannot be extended" if number in done else "it trains its epochs again when it continues"
            self._on_warning(
                f"trial {number}: its state is deleted, since the kept states take more than "
                f"{most / 2**20:,.0f} MiB (--keep-states); {what}"
            )
