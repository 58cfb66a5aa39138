"""Which checkpoints of a sweep nobody will read again, and taking them away."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracking.errors import TrackingError
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.layout import SweepFolder


@dataclass(frozen=True)
class Removal:
    """A file that can go, its size, and why."""

    path: Path
    size_bytes: int
    reason: str


def removable(folder: SweepFolder, history: SweepHistory, keep: int, also: Collection[int] = ()) -> list[Removal]:
    """The checkpoints that can go, by trial; nothing is touched. Hold the folder, or somebody may be writing them.

    The state to go on from goes once a trial is over. Weights of a trial's best epoch stay for the best `keep` trials
    by `val_accuracy`, for the trials `also`, and for every trial that is not over.

    Raises:
        TrackingError: `keep` < 1.
    """
    if keep < 1:
        raise TrackingError(f"keep {keep}: expected 1 at least, or the sweep would have no net left")
    ranks = _ranks(history)
    return [
        Removal(path, path.stat().st_size, reason)
        for number, trial in sorted(history.trials.items())
        for path, reason in _of_trial(folder, trial, ranks, len(ranks) if number in also else keep)
        if path.is_file()
    ]


def remove(removals: Sequence[Removal]) -> int:
    """Delete the files; returns how many bytes that freed.

    Raises:
        TrackingError: the disk refused one; those before it are gone.
    """
    freed = 0
    for removal in removals:
        try:
            removal.path.unlink(missing_ok=True)
        except OSError as error:
            raise TrackingError(f"cannot remove {removal.path}: {error.strerror}; {freed} bytes were freed") from error
        freed += removal.size_bytes
    return freed


def _ranks(history: SweepHistory) -> dict[int, int]:
    scored = [(best.metrics["val_accuracy"], trial.number) for trial in history.trials.values()
              if (best := trial.best_epoch())]  # fmt: skip
    ordered = sorted(scored, key=lambda pair: (-pair[0], pair[1]))
    return {number: rank for rank, (_, number) in enumerate(ordered, start=1)}


def _of_trial(folder: SweepFolder, trial: TrialHistory, ranks: dict[int, int], keep: int) -> Iterator[tuple[Path, str]]:
    if not trial.is_over:
        return
    files = folder.trial(trial.number)
    for state in (files.last, files.previous):
        yield state, f"trial {trial.number} is {trial.state}: nothing goes on from it"
    rank = ranks.get(trial.number)
    if rank is None:
        yield files.best, f"trial {trial.number} has no finished epoch"
    elif rank > keep:
        yield files.best, f"trial {trial.number} is number {rank} of {len(ranks)} by val_accuracy; {keep} are kept"
