"""Finds the checkpoints of a sweep that are no longer needed, and deletes them."""

import heapq
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tracking.errors import TrackingError
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.layout import SweepFolder, TrialFolder


@dataclass(frozen=True)
class Removal:
    """A file that can be deleted, the bytes that this frees (0 if MLflow has a hard link to it), and the reason."""

    path: Path
    size_bytes: int
    reason: str


class BestTrials:
    """The best `keep` of the finished trials added so far, by `val_accuracy`; among equal ones, the earlier.

    Raises:
        TrackingError: `keep` < 1.
    """

    def __init__(self, keep: int) -> None:
        if keep < 1:
            raise TrackingError(f"keep {keep}: expected 1 at least, or the sweep would have no net left")
        self.keep = keep
        self._best: list[tuple[float, int]] = []

    def __contains__(self, number: int) -> bool:
        """Whether a trial is among them."""
        return any(entry[1] == -number for entry in self._best)

    def remove(self, number: int) -> None:
        """Remove a trial, which will end again later."""
        self._best = [entry for entry in self._best if entry[1] != -number]
        heapq.heapify(self._best)

    def add(self, trial: TrialHistory) -> int | None:
        """Add a trial. Returns the trial that is no longer among the best, possibly the same one, or None."""
        if trial.best_accuracy is None:
            return trial.number
        entry = (trial.best_accuracy, -trial.number)
        if len(self._best) < self.keep:
            heapq.heappush(self._best, entry)
            return None
        return -heapq.heappushpop(self._best, entry)[1]


def removable(
    folder: SweepFolder, history: SweepHistory, keep: int | None, needed: Collection[int] = ()
) -> list[Removal]:
    """The checkpoints that can be deleted, by trial. Nothing is deleted.

    Hold the folder's lock: a driver may be writing them. The checkpoint from which a trial continues can be deleted
    once the trial is over; that of a failed trial, once it is trained again. Weights of the best epoch are kept for the
    best `keep` trials (None: for all), also by the rank of their groups, for baselines, for the trials in `needed`, and
    for every trial that is not over.
    The checkpoint that `extend --epochs` needs is kept for the best `keep` trials that are done.

    Raises:
        TrackingError: `keep` < 1.
    """
    fallen = _fallen(history, keep)
    dropped = set(outranked(history, keep, needed))
    failed = {trial.number for trial in history.to_retry}
    return [
        removal
        for number, trial in sorted(history.trials.items())
        if trial.is_over
        for removal in (
            *(states(folder, trial) if number not in failed else ()),
            *(lasting(folder, trial, keep) if number in fallen else ()),
            *(weights(folder, trial, keep) if number in dropped else ()),
        )
    ]


def outranked(history: SweepHistory, keep: int | None, needed: Collection[int] = ()) -> list[int]:
    """The trials whose weights need not be kept, by number. Raises TrackingError for `keep` < 1."""
    return sorted(
        number
        for number in _fallen(history, keep)
        if number not in needed and not history.trials[number].started.baseline
    )


def _fallen(history: SweepHistory, keep: int | None) -> set[int]:
    """The trials that are over and not among the best `keep`."""
    if keep is None:
        return set()
    best = BestTrials(keep)
    fallen = {best.add(trial) for _, trial in sorted(history.trials.items()) if trial.is_over}
    return {number for number in fallen if number is not None} - of_best_groups(history, keep)


def of_best_groups(history: SweepHistory, keep: int) -> set[int]:
    """The trials that are over and are, or may become, among the best `keep` by the rank of their groups.

    They need not be among the best by their own accuracy: trials that confirm a winner under new seeds are often worse
    than trials that were selected. Empty for a sweep without groups.
    """
    if not any(history.spec.get(option) for option in ("folds", "replicates", "confirm")):
        return set()
    groups = [group for group in history.groups() if group.accuracies]
    so_far = sorted(groups, key=lambda group: -group.mean)
    confirming = [group for group in groups if group.confirms is not None and not group.is_whole]
    return {
        trial.number
        for some, most in ((history.ranked_groups(), keep), (so_far, keep), (confirming, None))
        for trial in [trial for group in some for trial in group.ranked() if trial.is_over][:most]
    }


def states(folder: SweepFolder, trial: TrialHistory) -> Iterator[Removal]:
    """The checkpoints of a trial without a worker; of one that is done, except what `extend --epochs` needs."""
    files = folder.trial(trial.number)
    kept = () if trial.state == "done" else _lasting_files(files)
    for path in (files.last, files.previous, *kept):
        yield from _removal(path, f"trial {trial.number} is {trial.state}: nothing continues from it")


def lasting(folder: SweepFolder, trial: TrialHistory, keep: int | None) -> Iterator[Removal]:
    """The checkpoint that `extend --epochs` would need, for a trial that is not among the best."""
    for path in _lasting_files(folder.trial(trial.number)):
        yield from _removal(path, f"trial {trial.number} is not among the best {keep} by val_accuracy: not extended")


def _lasting_files(files: TrialFolder) -> tuple[Path, ...]:
    kept = files.lasting
    return kept.last, kept.best, kept.val_probabilities


def weights(folder: SweepFolder, trial: TrialHistory, keep: int | None) -> Iterator[Removal]:
    """The weights of a trial in `outranked`."""
    reason = f"trial {trial.number} is not among the best {keep} by val_accuracy, nor a baseline"
    yield from _removal(folder.trial(trial.number).best, reason)


def remove(removals: Sequence[Removal]) -> int:
    """Delete the files; return the number of bytes freed.

    Raises:
        TrackingError: a disk error; the files before it are already deleted.
    """
    freed = 0
    for removal in removals:
        try:
            removal.path.unlink(missing_ok=True)
        except OSError as error:
            raise TrackingError(f"cannot remove {removal.path}: {error.strerror}; {freed} bytes were freed") from error
        freed += removal.size_bytes
    for folder in {removal.path.parent for removal in removals}:
        with suppress(OSError):  # not empty, as the trial's own folder
            folder.rmdir()
    return freed


def _removal(path: Path, reason: str) -> Iterator[Removal]:
    if path.is_file():
        found = path.stat()
        yield Removal(path, found.st_size if found.st_nlink == 1 else 0, reason)
