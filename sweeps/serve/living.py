"""The state of sweeps as their journals grow: what a page shows, and which trials changed since a version."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary, ref

from sweeps.cli.overview import Digest, digest_of, row_of
from sweeps.runs import sweep_names
from sweeps.search.forecast import forecasts
from tracking.errors import TrackingError
from tracking.record.events import Act, DriverStarted, DriverStopped, Event, SweepEnded, SweepStarted
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.journal import collector_paused, read_from
from tracking.record.layout import SweepFolder
from tracking.record.spans import attempt_spans

_KEPT = 32
"""Maximum number of sweeps whose histories stay in memory while no page watches them."""
_UNUSED_SECONDS = 120
"""How long they stay. The history of 10,000 trials takes 200 MiB, and is read again in some seconds."""
_MOST_GROUPS = 500
_SHARE = 0.1
_CHEAP_SECONDS = 0.01
_OPENING_BYTES = 256
"""How much of a journal's first line distinguishes it from any other journal: it has the time and the sweep's id."""


class Living:
    """One sweep's history, updated from the new lines of its journal.

    `version` increases with each change of what a page shows. What depends on all trials (counts, best, time left,
    ranks at a rung, forecasts) uses at most a tenth of the time, so that the server stays responsive with many trials.
    """

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder
        self.version = time.time_ns() // 1_000  # above all versions of earlier servers, whose pages may ask again
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._offset, self._opening = 0, b""
        self._history: SweepHistory | None = None
        self._shown: dict[int, dict[str, Any]] = {}
        """The trials as shown on pages."""
        self._changed: dict[int, int] = {}
        self._judged: dict[int, int] = {}
        """The versions of the last change of each trial: of its curve or state, and of its rank or forecast."""
        self._digest = Digest()
        self._groups: list[dict[str, Any]] = []
        self._digested, self._due = 0, 0.0
        """How much of the journal the digest includes, and when it may be computed again."""
        self._summary: dict[str, Any] | None = None

    def started(self) -> SweepStarted:
        """The first event of the sweep; nothing else is read. Raises TrackingError."""
        events, _ = read_from(self.folder.journal, 0, max_bytes=1)
        if not events:
            raise TrackingError(f"{self.folder.root.name}: the journal is empty: the sweep never started")
        assert isinstance(events[0], SweepStarted)
        return events[0]

    def read_so_far(self) -> tuple[str, int, bool]:
        """The id of the sweep, the bytes of its journal, and whether it has a driver. Raises TrackingError."""
        summary = self.summary()
        with self._lock:
            is_driven = summary is not None and summary["driver"] is not None
            return (self._history.started.sweep_id if self._history else "", self._offset, is_driven)

    @collector_paused()
    def summary(self) -> dict[str, Any] | None:
        """The sweep's state without its trials. None before it has started. Raises TrackingError."""
        with self._lock:
            self._read()
            if self._history is not None:
                self._summarise(self._history)
            return self._summary

    def state(self, since: int = 0) -> dict[str, Any]:
        """The sweep's state, and its trials that changed after version `since`. Raises TrackingError."""
        summary = self.summary()
        with self._lock:
            # If only the rank or forecast of a trial changed, its curve is not sent again.
            changed = [self._shown[number] for number, version in self._changed.items() if version > since]
            judged = [
                {key: self._shown[number][key] for key in ("number", "reason", "forecast")}
                for number, version in self._judged.items()
                if version > since >= self._changed[number]
            ]
            return {
                "version": self.version,
                "sweep_id": self._history.started.sweep_id if self._history else "",
                "summary": summary,
                "trials": [*changed, *judged],
            }

    def _read(self) -> None:
        with self.folder.journal.open("rb") as journal:
            opening, size = journal.read(_OPENING_BYTES), os.fstat(journal.fileno()).st_size
        if not opening.startswith(self._opening) or self._offset > size:
            self._forget()  # a different journal under the same name
        self._opening = opening
        changed: set[int] = set()
        while True:
            events, offset = read_from(self.folder.journal, self._offset)
            if offset == self._offset:
                break
            self._offset = offset
            for event in events:
                if isinstance(event, SweepStarted):
                    self._history = SweepHistory(event)
                elif self._history is not None:
                    self._history.apply(event)
                    changed.update(_changed_by(event, self._history))
        if self._history is not None and changed:
            self.version += 1
            trials = [self._history.trials[number] for number in sorted(changed)]
            reasons = self._history.reasons(trials)
            for one in trials:
                forecast = None if one.is_over else self._shown.get(one.number, {}).get("forecast")
                self._shown[one.number] = _trial(one, reasons[one.number]) | {"forecast": forecast}
            self._changed |= dict.fromkeys(changed, self.version)

    def _summarise(self, history: SweepHistory) -> None:
        if self._digested != self._offset and time.monotonic() >= self._due:
            began = time.thread_time()
            self._digest, self._digested = digest_of(self.folder, history), self._offset
            self._groups = _groups(history)
            self._update_ranks_and_forecasts(history)
            took = time.thread_time() - began
            self._due = time.monotonic() + (took / _SHARE if took > _CHEAP_SECONDS else 0)
        summary = row_of(self.folder.root, self._digest).model_dump(mode="json") | {
            "asked": self._digest.asked,
            "groups": self._groups,
            "classes": history.started.spec.get("classes", []),
            "set": {name: history.spec.get(name) for name in ("max_concurrent", "priority", "weight")},
            "synthetic": bool(history.started.spec.get("synthetic")),
        }
        if summary != self._summary:
            self.version += 1
            self._summary = summary

    def _update_ranks_and_forecasts(self, history: SweepHistory) -> None:
        """Update what other trials change in an unfinished one: its rank at a rung, and its forecast."""
        unfinished = history.unfinished
        reasons = history.reasons(unfinished)
        ends = forecasts(history)
        judged = {}
        for number, reason in reasons.items():
            end = ends.get(number)
            forecast = None if end is None else asdict(end) | {"text": str(end)}
            shown = self._shown[number]
            if (shown["reason"], shown["forecast"]) != (reason, forecast):
                judged[number] = shown | {"reason": reason, "forecast": forecast}
        if judged:
            self.version += 1
            self._shown |= judged
            self._judged |= dict.fromkeys(judged, self.version)


def _changed_by(event: Event, history: SweepHistory) -> Iterable[int]:
    """The trials whose display an event changes."""
    match event:
        case Act(verb="pause" | "unpause" | "extend"):
            return history.trials
        case DriverStarted() | DriverStopped() | SweepEnded():
            return [trial.number for trial in history.unfinished]
        case _:
            number = getattr(event, "trial", None)
            return [] if number is None else [number]


class AllLiving:
    """The sweeps of a folder by name. A name is only looked up among existing sweeps, and never used as a path.

    A sweep that a page watches has its history in memory once, whatever the number of pages.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._open: WeakValueDictionary[str, Living] = WeakValueDictionary()
        """Those in memory: recently used, or watched by a page."""
        self._used: dict[str, tuple[Living, float]] = {}
        """The recently used ones and when, the latest last."""
        self._before: list[ref[Living]] = []
        """Those in memory at the last `drop_unused`."""
        self._lock = threading.Lock()

    def get(self, name: str) -> Living | None:
        """The sweep of that name. None if there is none."""
        with self._lock:
            if name not in sweep_names(self.out):
                return None
            living = self._open.get(name) or Living(SweepFolder(self.out / name))
            self._open[name] = living
            self._used.pop(name, None)
            self._used[name] = living, time.monotonic()
            while len(self._used) > _KEPT:
                self._used.pop(next(iter(self._used)))
            return living

    def drop_unused(self) -> bool:
        """Drop the sweeps not used for two minutes that no page watches. Returns whether memory was freed since the
        last call.
        """
        with self._lock:
            oldest = time.monotonic() - _UNUSED_SECONDS
            self._used = {name: (living, used) for name, (living, used) in self._used.items() if used >= oldest}
            is_freed = any(one() is None for one in self._before)
            self._before = [ref(one) for one in self._open.values()]
            return is_freed


def _groups(history: SweepHistory) -> list[dict[str, Any]]:
    """The trials by configuration with the mean of their best accuracies, in the order of the tables.

    Empty if each configuration has one trial. The first ones alone, since each update of a page has them.
    """
    if all(trial.started.group is None for trial in history.trials.values()):
        return []
    return [
        {"trials": [one.number for one in group.ranked()]}
        | ({"mean": group.mean, "mean_of": len(group.averaged)} if group.size > 1 else {})
        for group in history.ranked_groups()[:_MOST_GROUPS]
    ]


def _trial(trial: TrialHistory, reason: str) -> dict[str, Any]:
    best = trial.best_epoch()
    recipe = trial.started.config.get("recipe", {})
    spans: list[tuple[int, int | None]] = [*attempt_spans(trial)]
    accuracies = [(one.epoch, one.metrics.get("val_accuracy", 0.0)) for one in trial.epochs]
    if trial.has_worker:
        spans[-1] = (spans[-1][0], None)
    return {
        "number": trial.number,
        "title": trial.started.title,
        "state": trial.state,
        "is_over": trial.is_over,
        "reason": reason,
        "is_paused_by_person": trial.paused is not None and trial.paused.reason == "person",
        "epoch": trial.last_epoch,
        "epochs": trial.started.epochs,
        "best": best.metrics["val_accuracy"] if best else None,
        "lr": recipe.get("lr"),
        "curve": [[epoch, round(accuracy, 4)] for epoch, accuracy in accuracies if math.isfinite(accuracy)],
        "spans": spans,
    }
