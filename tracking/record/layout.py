"""The layout of a sweep's files: one folder per sweep, one folder per trial."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from tracking.errors import TrackingError

JOURNAL_NAME = "journal.jsonl"
WEIGHTS_NAME = "best.safetensors"


class _At:
    """A path relative to the folder of a trial or a sweep."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: "TrialFolder | SweepFolder", _: type) -> Path:
        return folder.root / self._name


@dataclass(frozen=True)
class TrialFolder:
    """The files of one trial, `trials/NNNN/`."""

    root: Path

    config = _At("config.json")
    """The trial's configuration."""
    best = _At(WEIGHTS_NAME)
    """Weights at the best epoch."""
    svm = _At("svm.safetensors")
    """The support vector machine that replaces the net's last layer, in runs that have one."""
    last = _At("last.safetensors")
    """The full training state after the last epoch."""
    previous = _At("previous.safetensors")
    """The state one epoch before `last`, used if `last` is damaged. Deleted at the trial's end."""
    curves = _At("curves.png")
    """Picture of the learning curves."""
    confusion_matrix_png = _At("confusion_matrix.png")
    """Picture of the confusion matrix at the best epoch."""
    confusion_matrix_json = _At("confusion_matrix.json")
    """The counts of the confusion matrix."""
    scores = _At("scores.json")
    """Every score at the best epoch, on all faces and leak-free."""
    val_probabilities = _At("val_probabilities.npz")
    """Class probabilities on the validation split at the best epoch."""
    test_probabilities = _At("test/probabilities.npz")
    """Class probabilities on the test split at the best epoch."""
    verdict = _At("verdict.json")
    """The driver's request to a worker to end its trial."""

    @property
    def lasting(self) -> "TrialFolder":
        """The state after the last epoch that a longer run has too, with its best epoch's predictions and weights."""
        return TrialFolder(self.root / "lasting")

    @property
    def test(self) -> "TrialFolder":
        """The results of a test: predictions, scores and pictures, under the same names as here."""
        return TrialFolder(self.root / "test")

    def create(self) -> "TrialFolder":
        """Make the folder if it is absent and return it.

        Raises:
            TrackingError: it cannot be made.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise TrackingError(f"cannot make the trial's folder {self.root}: {error.strerror}") from error
        return self


@dataclass(frozen=True)
class SweepFolder:
    """The files of one sweep."""

    root: Path

    journal = _At(JOURNAL_NAME)
    """The append-only record from which everything else can be rebuilt."""
    spec = _At("spec.json")
    """The sweep's recorded options."""
    study_log = _At("study.log")
    """Optuna's own journal."""
    lock = _At("lock")
    """The driver's lock; names the driver and its start time."""
    trials = _At("trials")
    """Folder of the trials' folders."""
    figures = _At("figures")
    """Folder of pictures and pages of the whole sweep; copied to MLflow at the sweep's end."""
    report = _At("figures/report.html")
    """The sweep's page."""
    inbox = _At("inbox")
    """Folder of acts that the driver has not read yet."""
    forks = _At("forks")
    """Folder of states from which forked trials will continue, one folder per act."""

    def lengthened(self, number: int) -> TrialFolder:
        """Folder of the state that a trial continues from since it was given more epochs."""
        return TrialFolder(self.forks / f"{number:04d}")

    def trial(self, number: int) -> TrialFolder:
        """Files of trial `number`."""
        return TrialFolder(self.trials / f"{number:04d}")

    def check_owner(self, way_out: str) -> None:
        """Raise TrackingError if the folder belongs to another user, who could not read what this one writes."""
        owner, own = self.root.stat().st_uid, os.geteuid()
        if owner != own:
            raise TrackingError(f"{self.root} belongs to user id {owner}, not to you ({own}): {way_out}")

    def create(self) -> "SweepFolder":
        """Create the folder, closed to other users, or check that an existing one is safe to use.

        Raises:
            TrackingError: it cannot be created, belongs to another user, or other users can write to it.
        """
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self.root.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise TrackingError(f"cannot make the sweep's folder {self.root}: {error.strerror}") from error
        self.check_owner("choose another --out")
        if self.root.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise TrackingError(f"{self.root} can be written by other users: chmod go-w {self.root}, or choose another")
        return self
