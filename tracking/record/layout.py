"""The layout of a sweep's files: one folder per sweep, one folder per trial."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from tracking.errors import TrackingError

JOURNAL_NAME = "journal.jsonl"
WEIGHTS_NAME = "best.safetensors"


@dataclass(frozen=True)
class TrialFolder:
    """The files of one trial, `trials/NNNN/`."""

    root: Path

    @property
    def config(self) -> Path:
        """The trial's configuration."""
        return self.root / "config.json"

    @property
    def best(self) -> Path:
        """Weights at the best epoch."""
        return self.root / WEIGHTS_NAME

    @property
    def svm(self) -> Path:
        """The support vector machine that replaces the net's last layer, in runs that have one."""
        return self.root / "svm.safetensors"

    @property
    def last(self) -> Path:
        """Everything needed to continue after the last epoch."""
        return self.root / "last.safetensors"

    @property
    def previous(self) -> Path:
        """The state one epoch before `last`, used if `last` is damaged; deleted at the trial's end."""
        return self.root / "previous.safetensors"

    @property
    def lasting(self) -> "TrialFolder":
        """The state after the last epoch that a longer run has too, with its best epoch's predictions and weights."""
        return TrialFolder(self.root / "lasting")

    @property
    def curves(self) -> Path:
        """Picture of the learning curves."""
        return self.root / "curves.png"

    @property
    def confusion_matrix_png(self) -> Path:
        """Picture of the confusion matrix at the best epoch."""
        return self.root / "confusion_matrix.png"

    @property
    def confusion_matrix_json(self) -> Path:
        """Counts behind the confusion matrix."""
        return self.root / "confusion_matrix.json"

    @property
    def scores(self) -> Path:
        """Every score at the best epoch, in full and leak-free."""
        return self.root / "scores.json"

    @property
    def val_probabilities(self) -> Path:
        """Class probabilities on the validation split at the best epoch."""
        return self.root / "val_probabilities.npz"

    @property
    def test(self) -> "TrialFolder":
        """The results of a test: predictions, scores and pictures, under the same names as here."""
        return TrialFolder(self.root / "test")

    @property
    def test_probabilities(self) -> Path:
        """Class probabilities on the test split at the best epoch."""
        return self.test.root / "probabilities.npz"

    @property
    def verdict(self) -> Path:
        """The driver's request to a running worker to finish its trial."""
        return self.root / "verdict.json"

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

    @property
    def journal(self) -> Path:
        """The append-only record that everything else can be rebuilt from."""
        return self.root / JOURNAL_NAME

    @property
    def spec(self) -> Path:
        """The sweep's recorded options."""
        return self.root / "spec.json"

    @property
    def study_log(self) -> Path:
        """Optuna's own journal."""
        return self.root / "study.log"

    @property
    def lock(self) -> Path:
        """Held by the driver; names it and the time."""
        return self.root / "lock"

    @property
    def trials(self) -> Path:
        """Folder of the trials' folders."""
        return self.root / "trials"

    @property
    def figures(self) -> Path:
        """Folder of pictures and pages of the whole sweep; MLflow gets its content at the sweep's end."""
        return self.root / "figures"

    @property
    def report(self) -> Path:
        """The sweep's page."""
        return self.figures / "report.html"

    @property
    def inbox(self) -> Path:
        """Folder of acts that the driver has not read yet."""
        return self.root / "inbox"

    @property
    def forks(self) -> Path:
        """Folder of states that trials to be started continue from, one folder per act."""
        return self.root / "forks"

    def lengthened(self, number: int) -> TrialFolder:
        """Folder of the state that a trial continues from since it was given more epochs."""
        return TrialFolder(self.forks / f"{number:04d}")

    def trial(self, number: int) -> TrialFolder:
        """Files of trial `number`."""
        return TrialFolder(self.trials / f"{number:04d}")

    def create(self) -> "SweepFolder":
        """Make the folder, closed to other users, or check that an existing one is safe to continue with.

        Raises:
            TrackingError: it cannot be made, belongs to another user, or others can write to it.
        """
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self.root.mkdir(mode=0o700, exist_ok=True)
            found = self.root.stat()
        except OSError as error:
            raise TrackingError(f"cannot make the sweep's folder {self.root}: {error.strerror}") from error
        if found.st_uid != os.geteuid():
            raise TrackingError(
                f"{self.root} belongs to user id {found.st_uid}, not to you ({os.geteuid()}): choose another --out"
            )
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise TrackingError(f"{self.root} can be written by other users: chmod go-w {self.root}, or choose another")
        return self
