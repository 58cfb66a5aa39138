"""Cleans up old sweeps: deletes checkpoints that are no longer needed, and closes MLflow runs of dead drivers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.driver.kept_weights import needed_weights, on_front
from sweeps.errors import InputError
from sweeps.runs import sweep_folder, sweep_names
from sweeps.spec import recorded_spec
from tracking.errors import TrackingError
from tracking.metrics.winner import winner_of
from tracking.mlflow_sync.upkeep import DeadRun, close_runs, dead_runs, opened
from tracking.mlflow_sync.uri import resolve_tracking_uri
from tracking.mlflow_sync.weights import Copy, copies_of_weights, remove_copies
from tracking.record.cleaning import Removal, outranked, removable, remove
from tracking.record.folder_lock import folder_holder, hold_folder
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Cleanup:
    """What of one sweep can be deleted: files, MLflow's copies of weights, and runs to be closed.

    `kept` names files that other runs need, `spared` is the reason for skipping the sweep.
    """

    name: str
    files: tuple[Removal, ...] = ()
    copies: tuple[Copy, ...] = ()
    runs: tuple[DeadRun, ...] = ()
    kept: tuple[str, ...] = ()
    spared: str | None = None

    def lines(self) -> Iterator[str]:
        """One line of text per item."""
        if self.spared:
            yield f"{self.name}: {self.spared}"
        yield from (f"{self.name}: {line}" for line in self.kept)
        for file in self.files:
            yield f"{self.name}: {_place(file.path)} ({size_text(file.size_bytes)}): {file.reason}"
        for copy in self.copies:
            yield f"{self.name}: MLflow's copy of the weights of run '{copy.name}' ({size_text(copy.size_bytes)})"
        for run in self.runs:
            yield f"{self.name}: MLflow's run '{run.name}' is left RUNNING: {run.reason}"


def clean_up(
    names: Sequence[str],
    out: Path,
    tracking_uri: str | None,
    *,
    keep: int,
    act: bool,
    on_warning: Callable[[str], None],
) -> Iterator[Cleanup]:
    """Check the named sweeps, or all in `out`; with `act` delete files and close runs.

    A sweep with a driver, or with an unreadable journal, is skipped. Trials that a resume continues keep everything;
    baselines, and trials that other runs need, keep their weights. If the sweep's MLflow, or `tracking_uri`, does not
    answer, only files are checked.

    Raises:
        InputError: there is no sweep of that name.
        TrackingError: `keep` < 1, or a disk error.
    """
    folders = [sweep_folder(name, out) for name in names or sweep_names(out)]
    needed = needed_weights(out)
    with ExitStack() as stack:
        client = cache(lambda recorded: _client(stack, tracking_uri, out, recorded, on_warning))
        for folder in folders:
            mine = {number: why for (sweep, number), why in needed.items() if sweep == folder.root.name}
            try:
                history = SweepHistory.load(folder.journal)
                recorded = recorded_spec(history).tracking_uri
                mine |= dict.fromkeys(on_front(history), "it is on the Pareto front of the sweep's objectives")
                mine |= _preferred(folder, history)
            except (InputError, TrackingError) as error:
                yield Cleanup(folder.root.name, spared=f"{error}; skipped")
                continue
            yield _clean(folder, client(recorded), keep, mine, act=act)


def _preferred(folder: SweepFolder, history: SweepHistory) -> dict[int, str]:
    """The sweep's winner with --prefer, and why it is kept."""
    winner = winner_of(folder, history) if history.spec.get("prefer") else None
    return {winner.trial: f"it is the sweep's winner (--prefer {winner.prefer})"} if winner else {}


def _client(
    stack: ExitStack, asked: str | None, out: Path, recorded: str | None, on_warning: Callable[[str], None]
) -> MlflowClient | None:
    try:
        return stack.enter_context(opened(resolve_tracking_uri(asked, out, recorded)))
    except TrackingError as error:
        on_warning(f"{error}: only files are checked")
        return None


def size_text(size_bytes: int) -> str:
    """In MiB."""
    return f"{size_bytes / 2**20:,.1f} MiB"


def _clean(
    folder: SweepFolder, client: MlflowClient | None, keep: int, needed: Mapping[int, str], *, act: bool
) -> Cleanup:
    name, holder = folder.root.name, folder_holder(folder.root)
    if holder is not None:
        return Cleanup(name, spared=f"has a driver (host {holder.host}, pid {holder.pid}), skipped")
    with ExitStack() as stack:
        if act:
            stack.enter_context(hold_folder(folder.root))
        history = SweepHistory.load(folder.journal)
        files = removable(folder, history, keep, needed)
        others = set(removable(folder, history, keep)) - set(files)
        kept = [f"{_place(file.path)} stays: {needed[int(file.path.parent.name)]}" for file in others]
        runs = dead_runs(client, history) if client else []
        copies = copies_of_weights(client, history, outranked(history, keep, needed)) if client else []
        if act:
            remove(files)
            if client:
                remove_copies(client, copies)
                close_runs(client, runs)
    return Cleanup(name, tuple(files), tuple(copies), tuple(runs), tuple(sorted(kept)))


def _place(path: Path) -> str:
    return "/".join(path.parts[-3:])
