"""Sweeps of so many trials that a page, a table or a search must cope with them; written in seconds."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.options import Options
from sweeps.planning.hardware import find_hardware
from sweeps.planning.plan import make_plan
from sweeps.space import Space
from sweeps.sweep import run_plan
from tests.benchmarks.simulated import SPACE, SimulatedRunner, learning
from tracking.record.events import DriverStarted, EpochDone, Event, SweepEnded, SweepStarted, TrialStarted, now_ms
from tracking.record.journal import Journal, read
from tracking.record.layout import SweepFolder
from tracking.tracker import NoTracker

_SIMULATED, _SLOTS, _EPOCHS = 40, 8, 8


def many_trials(out: Path, trials: int, name: str = "many", space: Space = SPACE) -> SweepFolder:
    """A sweep of so many trials, those of a simulated one repeated; the last one is running."""
    model = out / "model"
    options = Options(trials=_SIMULATED, epochs=_EPOCHS, out=model, name=name, runner="inline", seed=0, figures=False)
    run_plan(
        make_plan(space, options, find_hardware), body=learning, runner=SimulatedRunner(_SLOTS), tracker=NoTracker()
    )
    events = [event for event in read(SweepFolder(model / name).journal) if not isinstance(event, SweepEnded)]
    shutil.move(model / name, out / name)
    folder = SweepFolder(out / name)
    folder.journal.unlink()
    with Journal.open(folder.journal) as journal:
        journal.append(*_repeated(events, trials))
    return folder


def _repeated(events: Sequence[Event], trials: int) -> Iterator[Event]:
    """The trials of a sweep again and again, each time later and with other accuracies; the last one has no end."""
    generator, opening = np.random.default_rng(0), [one for one in events if not hasattr(one, "trial")]
    length = events[-1].time_ms - events[0].time_ms + 1
    began = now_ms() - length * (trials // _SIMULATED + 1)
    for event in opening:
        if isinstance(event, SweepStarted | DriverStarted):
            event = event.model_copy(update={"spec": event.spec | {"trials": trials}})
        yield event.model_copy(update={"time_ms": began})
    for round_ in itertools.count():
        first, later = round_ * _SIMULATED, began - events[0].time_ms + round_ * length
        lift = generator.normal(0, 0.02, _SIMULATED)
        for event in events:
            old = getattr(event, "trial", None)
            if old is None or first + old >= trials:
                continue
            new: dict[str, Any] = {"trial": first + old, "time_ms": event.time_ms + later}
            if isinstance(event, EpochDone):
                accuracy = max(0.0, event.metrics["val_accuracy"] + float(lift[old]))
                new["metrics"] = event.metrics | {"val_accuracy": accuracy}
            if first + old < trials - 1 or isinstance(event, TrialStarted):
                yield event.model_copy(update=new)
        if first + _SIMULATED >= trials:
            return
