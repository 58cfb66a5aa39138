"""What old sweeps leave: checkpoints that nobody will read again, and runs that dead drivers left RUNNING in MLflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.runs import open_sweep, sweep_names
from sweeps.spec import recorded_spec
from tracking.errors import TrackingError
from tracking.mlflow_sync.upkeep import DeadRun, close_runs, dead_runs, opened
from tracking.mlflow_sync.uri import resolve_tracking_uri
from tracking.record.cleaning import Removal, removable, remove
from tracking.record.folder_lock import folder_holder, hold_folder
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Leavings:
    """What of one sweep can go: files, and runs to be closed. `spared` says why nothing was looked at."""

    name: str
    files: tuple[Removal, ...] = ()
    runs: tuple[DeadRun, ...] = ()
    spared: str | None = None

    def lines(self) -> Iterator[str]:
        """A line each, for a person."""
        if self.spared:
            yield f"{self.name}: {self.spared}"
        for file in self.files:
            place = "/".join(file.path.parts[-3:])
            yield f"{self.name}: {place} ({size_text(file.size_bytes)}): {file.reason}"
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
) -> Iterator[Leavings]:
    """Look through sweeps, all in `out` where none is named; with `act` what is found is removed and closed.

    A sweep that somebody works on is spared, as are trials that a resume takes up and members of ensembles. Without
    the MLflow that a sweep's records are in, or `tracking_uri` instead, only files are looked at.

    Raises:
        InputError: no sweep of such a name.
        TrackingError: `keep` < 1, or the disk refused.
    """
    found = [open_sweep(name, out) for name in names or sweep_names(out)]
    members = ensemble_members(out)
    with ExitStack() as stack:
        client = cache(lambda recorded: _client(stack, tracking_uri, out, recorded, on_warning))
        for folder, history in found:
            its_client = client(recorded_spec(history).tracking_uri)
            yield _clean(folder, its_client, keep, members.get(folder.root.name, set()), act=act)


def _client(
    stack: ExitStack, asked: str | None, out: Path, recorded: str | None, on_warning: Callable[[str], None]
) -> MlflowClient | None:
    try:
        return stack.enter_context(opened(resolve_tracking_uri(asked, out, recorded)))
    except TrackingError as error:
        on_warning(f"{error}: only files are looked at")
        return None


def ensemble_members(out: Path) -> dict[str, set[int]]:
    """Which trials of which sweeps answer in ensembles, whose weights are read whenever the ensemble is asked."""
    members: dict[str, set[int]] = {}
    for name in sweep_names(out):
        for trial in open_sweep(name, out)[1].trials.values():
            for member in trial.started.config.get("ensemble", {}).get("members", {}):
                sweep, _, number = member.partition("/")
                members.setdefault(sweep, set()).add(int(number))
    return members


def size_text(size_bytes: int) -> str:
    """In MiB."""
    return f"{size_bytes / 2**20:,.1f} MiB"


def _clean(folder: SweepFolder, client: MlflowClient | None, keep: int, members: set[int], *, act: bool) -> Leavings:
    name, holder = folder.root.name, folder_holder(folder.root)
    if holder is not None:
        return Leavings(name, spared=f"is being worked on (host {holder.host}, pid {holder.pid}), left alone")
    with ExitStack() as stack:
        if act:
            stack.enter_context(hold_folder(folder.root))
        history = SweepHistory.load(folder.journal)
        files = removable(folder, history, keep, members)
        runs = dead_runs(client, history) if client else []
        if act:
            remove(files)
            if client:
                close_runs(client, runs)
    return Leavings(name, tuple(files), tuple(runs))
