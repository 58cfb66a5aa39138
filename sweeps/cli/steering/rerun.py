"""`python -m sweeps rerun RUN`: trains a trial again as recorded, and compares it with its record.

The new journal starts with the recorded configuration, seed, length and data. Then it is resumed as a sweep of one
trial, so it is checkpointed, recorded and sent to MLflow like any other.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fer_common.flags import flags
from sweeps.driver.environment import driver_started
from sweeps.errors import InputError
from sweeps.options import BUDGET, SHARED, RecordedOptions
from sweeps.runs import Run, refuse_made
from sweeps.spec import LONGEST_NAME, check_name
from sweeps.trial.messages import SYSTEM, EpochReport, Message, Task
from sweeps.trial.run_trial import run_trial
from tracking.record.events import EpochDone, SweepStarted
from tracking.record.files import write_json
from tracking.record.folder_lock import hold_folder
from tracking.record.history import SweepHistory
from tracking.record.journal import Journal
from tracking.record.layout import SweepFolder, TrialFolder
from tracking.record.objectives import LATENCY

_OF_THE_CLOCK = ("epoch_seconds", "images_per_second", LATENCY)
_ROWS_SHOWN = 20
_OF_TAG = "rerun.of"


@dataclass(frozen=True)
class Until:
    """Trains as `run_trial` does, and stops after the last recorded epoch of the original."""

    epoch: int

    def __call__(self, task: Task) -> Iterator[Message]:
        """Run the trial."""
        for message in run_trial(task):
            if isinstance(message, EpochReport) and self.epoch == message.epoch < task.epochs:
                write_json(TrialFolder(Path(task.folder)).verdict, {"state": "stopped", "reason": "as the original"})
            yield message


@dataclass(frozen=True)
class Difference:
    """A value that differs from the recorded one. `epoch` is 0 for values of the whole trial."""

    epoch: int
    metric: str
    recorded: float | str
    now: float | str


def begin(run: Run, name: str | None, out: Path) -> SweepFolder:
    """Write the new run's folder and journal, unless they exist already. Raises InputError."""
    _check(run)
    ending = f"-{run.trial.number}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    name = check_name(name or f"rerun-{run.sweep.root.name}"[: LONGEST_NAME - len(ending)] + ending)
    folder = SweepFolder(out / name)
    if folder.journal.exists():
        if SweepHistory.load(folder.journal).started.tags.get(_OF_TAG) != run.name:
            raise InputError(f"{folder.root} exists already and is no rerun of {run.name}: choose another --name")
        return folder
    config = folder.trial(0).config
    changes = {"name": name, "space": str(config.absolute()), "trials": 1, "max_epochs": run.trial.started.epochs,
               "baselines": {}, "baseline_epochs": (), "which_baselines": "none", "settings": {}, "runner": "inline",
               "sampler": "random", "pruner": "none", "max_concurrent": None, "learn_from": (), "prefer": None,
               "lanes": 1, "replicates": None, "folds": None, "fold_faces": (), "confirm": None,
               "data": run.spec.data_of(run.trial.started), "faces": run.spec.faces_of(run.trial.started),
               "fingerprint": run.raw_faces().fingerprint}  # fmt: skip
    limits = {name: RecordedOptions.model_fields[name].default for name, flag in flags(RecordedOptions).items()
              if flag.group in (BUDGET, SHARED)}  # fmt: skip
    spec = run.spec.model_copy(update=changes | limits)
    folder.create().trial(0).create()
    write_json(config, run.trial.started.config)
    started = run.trial.started.model_copy(
        update={
            "trial": 0,
            "baseline": None,
            "report_epochs": None,
            "params": {},
            "distributions": {},
            "wanted": None,
            "group": None,
            "fold": None,
        }
    )
    before = run.history.started
    opening = SweepStarted(
        sweep_id=uuid.uuid4().hex,
        name=name,
        space=before.space,
        tags=before.tags | {_OF_TAG: run.name},
        spec=spec.model_dump(mode="json"),
    )
    with hold_folder(folder.root), Journal.open(folder.journal) as journal:
        journal.append(opening, driver_started(spec, resumed=False), started)
    return folder


def _check(run: Run) -> None:
    refuse_made(run.name, [run.trial])
    if fork := run.history.fork_of(run.trial):
        raise InputError(
            f"{run.name}: continued from the state of trial {fork.source} after epoch {fork.epoch}, which is not "
            "kept; choose a trial that started from epoch 0"
        )
    if not run.trial.epochs:
        why = f" ({run.trial.reason})" if run.trial.reason else ""
        raise InputError(f"{run.name}: has no epoch to compare with{why}")


def differences(original: Run, again: Run) -> list[Difference]:
    """What differs, to the last bit: scalars, curves, predictions and weights. Measured times are ignored."""
    recorded = {done.epoch: done for done in original.trial.epochs}
    found = [
        one for done in again.trial.epochs if done.epoch in recorded for one in _of_epoch(recorded[done.epoch], done)
    ]
    if again.trial.last_epoch < original.trial.last_epoch:
        found.append(Difference(0, "epochs", original.trial.last_epoch, again.trial.last_epoch))
    return [*found, *_of_predictions(original, again), *_of_weights(original, again)]


def _of_epoch(recorded: EpochDone, now: EpochDone) -> Iterator[Difference]:
    for name in sorted(recorded.metrics.keys() | now.metrics.keys()):
        before, after = recorded.metrics.get(name, np.nan), now.metrics.get(name, np.nan)
        if name not in _OF_THE_CLOCK and not name.startswith(SYSTEM) and not np.array_equal(before, after, True):
            yield Difference(now.epoch, name, before, after)
    for was, now_is in zip(recorded.iterations, now.iterations, strict=False):
        if not np.array_equal(was, now_is, equal_nan=True):
            yield Difference(now.epoch, f"train_loss at iteration {was[0]}", was[1], now_is[1])
            return


def _of_predictions(original: Run, again: Run) -> Iterator[Difference]:
    before, after = original.kept_predictions(), again.kept_predictions()
    if before is None or after is None or np.array_equal(before.probabilities, after.probabilities):
        return
    same_shape = before.probabilities.shape == after.probabilities.shape
    gap = np.abs(before.probabilities - after.probabilities).max() if same_shape else np.inf
    yield Difference(after.epoch, "probabilities on val", "kept", f"differ by up to {gap:.2g}")


def _of_weights(original: Run, again: Run) -> Iterator[Difference]:
    from fer_models.training.tensor_file import read_tensors

    if not (original.files.best.is_file() and again.files.best.is_file()):
        return
    (before, _), (after, _) = read_tensors(original.files.best), read_tensors(again.files.best)
    changed = [name for name in before if name not in after or not before[name].equal(after[name])]
    if changed or before.keys() != after.keys():
        yield Difference(0, "weights", f"{len(before)} tensors", f"{len(changed)} differ")


def other_versions(original: Run, again: Run) -> list[str]:
    """Versions, code, host and GPUs that differ between the two runs, one text each."""
    before, after = original.history.drivers[-1], again.history.drivers[-1]
    pairs = {name: (before.versions.get(name, "none"), now) for name, now in after.versions.items()}
    pairs |= {"code": (before.git_commit or "", after.git_commit or ""), "host": (before.host, after.host),
              "GPUs": (before.gpus or "", after.gpus or "")}  # fmt: skip
    return [f"{name}: {one or 'not known'} then, {other or 'not known'} now" for name, (one, other) in pairs.items()
            if one != other]  # fmt: skip


def table_of(found: list[Difference], original: Run, again: Run) -> Table:
    """The first 20 differences."""
    table = Table(title=Text(f"{original.name} recorded, {again.name} now"), header_style="bold")
    for heading in ("epoch", "metric", "recorded", "now"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for one in found[:_ROWS_SHOWN]:
        table.add_row(str(one.epoch or ""), one.metric, _text(one.recorded), _text(one.now))
    if len(found) > _ROWS_SHOWN:
        table.caption = f"the first {_ROWS_SHOWN} of {len(found)} differences"
    return table


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else repr(value)


def as_json(original: Run, again: Run) -> str:
    """What differs, in values and in versions; nothing where the trials are equal."""
    found = differences(original, again)
    return json.dumps(
        {
            "original": original.name,
            "rerun": again.name,
            "equal": not found,
            "differences": [asdict(one) for one in found],
            "versions": other_versions(original, again),
        }
    )


def say_whether_equal(original: Run, again: Run, console: Console) -> int:
    """Print the result of the comparison; return 0 if all is equal, 1 otherwise."""
    found, versions = differences(original, again), other_versions(original, again)
    if found:
        console.print(table_of(found, original, again))
        why = (
            f"not the same machine and versions: {'; '.join(versions)}"
            if versions
            else "machine and versions are equal"
        )
        console.print(f"{again.name} differs from {original.name}; {why}")
        return 1
    count = original.trial.last_epoch
    compared = [f"scores and losses of {count} epoch{'' if count == 1 else 's'}"]
    compared += ["predictions"] if original.kept_predictions() else []
    compared += ["weights"] if original.files.best.is_file() else []
    other = f", although {'; '.join(versions)}" if versions else ", on the same machine and versions"
    console.print(f"{again.name} equals {original.name} to the last bit: {', '.join(compared)}{other}")
    return 0
