"""An overview of all sweeps of a folder: results so far, whether they run, and the time left.

Reading a journal takes about 10 ms. A digest of each journal is cached in one file in the folder of the sweeps, keyed
by the journal's size and time, so that only journals that have grown are read again.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from sweeps.errors import InputError
from sweeps.run_kinds import Ensemble, SvmHead, kind_of
from sweeps.runs import sweep_names
from sweeps.spec import recorded_spec
from sweeps.time_left import seconds_left
from sweeps.trial.messages import OBJECTIVE
from tracking.errors import TrackingError
from tracking.metrics.front import pareto_front
from tracking.metrics.groups import mean_interval
from tracking.metrics.scores import wilson_interval
from tracking.metrics.winner import winner_of
from tracking.record.files import write_bytes
from tracking.record.folder_lock import Holder, folder_holder
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder
from tracking.record.objectives import objectives_of
from tracking.record.predictions import read_predictions

CACHE_NAME = ".list.json"
State = Literal["running", "waiting", "paused", "stopped", "crashed", "finished", "unreadable"]
_DRIVEN: tuple[State, ...] = ("running", "waiting", "paused")


class Best(BaseModel):
    """The best validation accuracy of a sweep, of a group its mean, with its 95 % interval if that can be computed."""

    trial: int
    epoch: int
    value: float
    mean_of: int | None
    """Number of trials of the best group whose mean `value` is; None for a trial without a group."""
    nets: dict[str, float]
    """The runs whose weights a prediction needs, with their shares: itself, or the members of an ensemble. Empty for a
    support vector machine, which cannot be exported."""
    low: float | None = None
    high: float | None = None
    prefer: str | None = None
    """The preference by which the winner was chosen among the trials within noise of the most accurate one."""
    within_noise: tuple[int, ...] = ()
    """With `prefer`, the most accurate trial and those within noise of it."""


class Digest(BaseModel):
    """What the overview needs of a journal."""

    model_config = ConfigDict(frozen=True)

    space: str = ""
    dataset: str = ""
    synthetic: bool = False
    asked: int = 0
    begun: int | None = None
    """Trials, a group counted once; None in digests of earlier versions."""
    trials: dict[str, int] = {}
    """How many are in each state."""
    best: Best | None = None
    pareto: tuple[dict[str, float], ...] = ()
    """The trials on the front of several objectives, with their values; the most accurate first."""
    priority: int = 0
    weight: float = 1.0
    slot_seconds_left: float | None = None
    finished: bool = False
    stopped: str | None = None
    """Why its last driver stopped."""
    waits_for_person: bool = False
    """Whether a resume alone would train nothing, until a paused trial is unpaused."""
    held_by: str | None = None
    """Who paused the whole sweep; its driver waits."""
    held_ms: int = 0
    """When it was paused."""
    updated_ms: int = 0
    fault: str | None = None
    """Why the journal cannot be read."""


class Row(BaseModel):
    """The current state of one sweep."""

    name: str
    state: State
    owner: str
    slots: int
    """Number of running trials."""
    driver: Holder | None
    seconds_left: float | None
    why: str = ""
    """Who paused the whole sweep, when, and how it continues; or since when it waits, and for whom; else empty."""
    digest: Digest

    @property
    def shown_state(self) -> str:
        """Its state in texts, where `waiting` means a trial at a rung."""
        return "queued" if self.state == "waiting" else self.state

    @property
    def is_living(self) -> bool:
        """Whether a driver runs it."""
        return self.driver is not None and self.state in _DRIVEN


class _Entry(BaseModel):
    size: int
    mtime_ns: int
    digest: Digest


_CACHE: TypeAdapter[dict[str, _Entry]] = TypeAdapter(dict[str, _Entry])


def all_sweeps(out: Path) -> list[Row]:
    """Every sweep in `out`: running ones first, then the latest first."""
    kept = _read_cache(out / CACHE_NAME)
    entries = dict(_entries(out, kept))
    if entries != kept:
        with suppress(TrackingError, OSError):  # another user's folder: nothing is cached
            write_bytes(out / CACHE_NAME, _CACHE.dump_json(entries))
    rows = [row_of(out / name, entry.digest) for name, entry in entries.items()]
    rows += [row_of(path, Digest(fault="closed to other users")) for path in _closed_folders(out)]
    return sorted(rows, key=lambda row: (not row.is_living, -row.digest.updated_ms, row.name))


def sweep_row(folder: SweepFolder, history: SweepHistory) -> Row:
    """The row of one sweep, from its history."""
    return row_of(folder.root, digest_of(folder, history))


def digest_of(folder: SweepFolder, history: SweepHistory) -> Digest:
    """The digest of a sweep's history. Raises InputError if its spec cannot be read."""
    spec = recorded_spec(history)
    last = max((trial.epochs[-1].time_ms for trial in history.trials.values() if trial.epochs), default=0)
    ends = [event.time_ms for event in (history.finished, history.stopped, *history.drivers[-1:]) if event]
    return Digest(
        space=history.started.space,
        dataset=spec.dataset,
        synthetic=spec.synthetic,
        asked=spec.trials,
        begun=history.configurations,
        trials=history.states,
        best=_best(folder, history),
        pareto=tuple(_compromises(history)),
        priority=spec.priority,
        weight=spec.weight,
        slot_seconds_left=None if history.finished else seconds_left(history, spec, 1),
        finished=history.finished is not None,
        stopped=history.stopped.reason if history.stopped else None,
        waits_for_person=spec.waits_for_person(history),
        held_by=history.held.who if history.held else None,
        held_ms=history.held.asked_ms if history.held else 0,
        updated_ms=max(last, *ends, history.started.time_ms),
    )


def _best(folder: SweepFolder, history: SweepHistory) -> Best | None:
    ranked = history.ranked_groups()
    if not ranked:
        return None
    winner = winner_of(folder, history) if history.spec.get("prefer") else None
    trial = history.trials[winner.trial] if winner else ranked[0].ranked()[0]
    group = history.group_of(trial) if winner else ranked[0]
    best = trial.best_epoch()
    if best is None:
        return None
    match kind_of(trial.started.config):
        case Ensemble(members=members):
            nets = members
        case SvmHead():
            nets = {}
        case _:
            nets = {f"{folder.root.name}/{trial.number}": 1.0}
    found = Best(trial=trial.number, epoch=best.epoch, value=best.metrics[OBJECTIVE], mean_of=None, nets=nets)
    if winner and winner.ties:
        found.prefer, found.within_noise = winner.prefer, (winner.best, *winner.ties)
    interval = None
    if group.size > 1:
        found.value, found.mean_of = group.mean, len(group.averaged)
        interval = mean_interval(list(group.done.values()))
    elif answers := read_predictions(folder.trial(trial.number), best.epoch):
        interval = wilson_interval(int(answers.is_right.sum()), len(answers.labels))
    return found.model_copy(update={"low": interval.low, "high": interval.high}) if interval else found


def _compromises(history: SweepHistory) -> Iterator[dict[str, float]]:
    for one in pareto_front(history):
        values = dict(zip(objectives_of(history.spec), one.values, strict=True))
        yield {"trial": one.trial.number} | values


def _entries(out: Path, kept: dict[str, _Entry]) -> Iterator[tuple[str, _Entry]]:
    for name in sweep_names(out):
        folder = SweepFolder(out / name)
        with suppress(FileNotFoundError):
            found = folder.journal.stat()
            entry = kept.get(name)
            if entry is None or (entry.size, entry.mtime_ns) != (found.st_size, found.st_mtime_ns):
                entry = _Entry(size=found.st_size, mtime_ns=found.st_mtime_ns, digest=_read(folder))
            yield name, entry


def _closed_folders(out: Path) -> Iterator[Path]:
    """Folders of other users' sweeps, which only they may enter."""
    with suppress(OSError):
        yield from (path for path in out.iterdir() if path.is_dir() and not os.access(path, os.X_OK))


def _read(folder: SweepFolder) -> Digest:
    try:
        return digest_of(folder, SweepHistory.load(folder.journal))
    except (TrackingError, InputError) as error:
        return Digest(fault=str(error))


def row_of(root: Path, digest: Digest) -> Row:
    """The row of the sweep in a folder, from its digest and from whether it has a driver now."""
    holder = None
    with suppress(OSError):
        holder = folder_holder(root)
    slots = digest.trials.get("running", 0) if holder else 0
    state = _state(digest, holder is not None, slots)
    left = digest.slot_seconds_left
    return Row(
        name=root.name,
        state=state,
        owner=_owner(root),
        slots=slots,
        driver=holder,
        seconds_left=left / slots if state == "running" and left is not None and slots else None,
        why=_why(root.name, state, holder, digest) if holder else "",
        digest=digest,
    )


def _state(digest: Digest, is_held: bool, slots: int) -> State:
    if digest.fault:
        return "unreadable"
    if digest.finished:
        return "finished"
    if is_held and digest.held_by:
        return "paused"
    if is_held:
        nothing_left = digest.slot_seconds_left == 0  # its driver draws the last pictures and the report
        return "running" if slots or nothing_left else "waiting"
    if digest.waits_for_person:
        return "paused"
    return "crashed" if digest.stopped is None else "stopped"


def _why(name: str, state: State, driver: Holder, digest: Digest) -> str:
    if digest.held_by:
        return pause_text(name, digest.held_by, digest.held_ms)
    if state == "waiting" and driver.waits_for:
        since = datetime.fromisoformat(driver.waits_since).astimezone()
        return f"queued since {since:%Y-%m-%d %H:%M} for {driver.waits_for}; on {driver.host}, pid {driver.pid}"
    return ""


def pause_text(name: str, who: str, when_ms: int) -> str:
    """Who paused a sweep, when, and the command that continues it."""
    return f"paused by {who} at {time.strftime('%Y-%m-%d %H:%M', time.localtime(when_ms / 1000))}; unpause {name}"


def _owner(root: Path) -> str:
    try:
        found = root.stat().st_uid
    except OSError:
        return ""
    try:
        return pwd.getpwuid(found).pw_name
    except KeyError:
        return str(found)


def _read_cache(path: Path) -> dict[str, _Entry]:
    try:
        return _CACHE.validate_json(path.read_bytes())
    except (OSError, ValidationError):  # missing, or written by another version
        return {}
