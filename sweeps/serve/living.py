"""Sweeps as their journals grow: what a page shows of one, and which trials changed since it last looked."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sweeps.cli.overview import sweep_row
from sweeps.runs import sweep_names
from sweeps.search.forecast import Forecast, forecasts
from tracking.record.events import Act, Event, SweepStarted
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.journal import read_from
from tracking.record.layout import SweepFolder
from tracking.record.spans import attempt_spans

_KEPT = 32
"""Sweeps whose histories stay in memory."""


class Living:
    """One sweep's history, brought up to date by what its journal gained. `version` grows with it."""

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder
        self.version = 0
        self._offset = 0
        self._history: SweepHistory | None = None
        self._changed: dict[int, int] = {}
        self._lock = threading.Lock()

    def state(self, since: int = 0) -> dict[str, Any]:
        """The sweep now, and its trials that changed after version `since`. Raises TrackingError."""
        with self._lock:
            self._read()
            history = self._history
            if history is None:
                return {"version": 0, "trials": [], "summary": None}
            row = sweep_row(self.folder, history)
            changed = [history.trials[number] for number, version in self._changed.items() if version > since]
            # Of all others that wait only rank and forecast change, as others report: their curves are not sent again.
            waiting = [one for n, one in history.trials.items() if one.waits_at_rung and self._changed[n] <= since]
            reasons = history.reasons([*changed, *waiting])
            ends = forecasts(history, [*changed, *waiting])
            summary = row.model_dump(mode="json") | {
                "asked": row.digest.asked,
                "classes": history.started.spec.get("classes", []),
                "set": {name: history.spec.get(name) for name in ("max_concurrent", "priority", "weight")},
                "synthetic": bool(history.started.spec.get("synthetic")),
            }
            return {
                "version": self.version,
                "summary": summary,
                "trials": [
                    *(_trial(one, reasons[one.number]) | _forecast(one, ends) for one in changed),
                    *({"number": one.number, "reason": reasons[one.number]} | _forecast(one, ends) for one in waiting),
                ],
            }

    def _read(self) -> None:
        if self._offset > self.folder.journal.stat().st_size:
            self._offset, self._history = 0, None  # another journal under that name
        while True:
            events, offset = read_from(self.folder.journal, self._offset)
            if offset == self._offset:
                return
            self._offset = offset
            self.version += 1
            for event in events:
                if isinstance(event, SweepStarted):
                    self._history = SweepHistory(event)
                elif self._history is not None:
                    self._history.apply(event)
                    self._changed |= dict.fromkeys(_changed_by(event, self._history), self.version)


def _changed_by(event: Event, history: SweepHistory) -> Iterable[int]:
    """The trials that are shown otherwise from an event on."""
    match event:
        case Act(verb="pause" | "unpause" | "extend"):
            return history.trials
        case _:
            number = getattr(event, "trial", None)
            return [] if number is None else [number]


class AllLiving:
    """The sweeps of a folder by name; a name is looked up among those that are there, and never becomes a path."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._known: dict[str, Living] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Living | None:
        """The sweep of that name; None where there is none."""
        with self._lock:
            if name not in sweep_names(self.out):
                return None
            living = self._known.pop(name, None) or Living(SweepFolder(self.out / name))
            self._known[name] = living  # the last used are last
            while len(self._known) > _KEPT:
                self._known.pop(next(iter(self._known)))
            return living


def _forecast(trial: TrialHistory, ends: dict[int, Forecast | None]) -> dict[str, Any]:
    """Where it ends if it continues; None where it is over, or has too few epochs."""
    end = ends.get(trial.number)
    return {"forecast": None if end is None else asdict(end) | {"text": str(end)}}


def _trial(trial: TrialHistory, reason: str) -> dict[str, Any]:
    best = trial.best_epoch()
    recipe = trial.started.config.get("recipe", {})
    spans: list[tuple[int, int | None]] = [*attempt_spans(trial)]
    if trial.state == "running":
        spans[-1] = (spans[-1][0], None)
    return {
        "number": trial.number,
        "title": trial.started.title,
        "state": trial.state,
        "reason": reason,
        "epoch": trial.last_epoch,
        "epochs": trial.started.epochs,
        "best": best.metrics["val_accuracy"] if best else None,
        "lr": recipe.get("lr"),
        "curve": [[one.epoch, round(one.metrics.get("val_accuracy", 0.0), 4)] for one in trial.epochs],
        "spans": spans,
    }
