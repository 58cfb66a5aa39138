"""A net's predictions on its validation split, as stored in a trial's folder."""

from dataclasses import dataclass
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from tracking.record.history import TrialHistory
from tracking.record.layout import TrialFolder


@dataclass(frozen=True)
class Predictions:
    """Labels [n] and class probabilities [n, classes] after some epoch.

    `leaked` [n] marks faces that are also in the training split. None if this was not checked.
    """

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    epoch: int
    leaked: NDArray[np.bool_] | None = None

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """Which faces are predicted correctly, [n]."""
        return np.asarray(self.probabilities.argmax(axis=1) == self.labels)


def read_predictions(folder: TrialFolder, epoch: int) -> Predictions | None:
    """The predictions on disk if they are of `epoch`. None if they are of another epoch, absent or damaged."""
    try:
        with np.load(folder.val_probabilities) as kept:
            if int(kept["epoch"]) != epoch:
                return None
            leaked = kept["leaked"].astype(bool) if "leaked" in kept else None
            return Predictions(kept["labels"].astype(np.int64), kept["probabilities"].astype(np.float32), epoch, leaked)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None


def best_predictions(folder: TrialFolder, trial: TrialHistory) -> Predictions | None:
    """The predictions of a trial's best epoch. None if there is no such epoch, or they are not on disk."""
    best = trial.best_epoch()
    return read_predictions(folder, best.epoch) if best else None
