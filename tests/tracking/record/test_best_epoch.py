"""Which epoch of a trial is its best."""

from __future__ import annotations

import math

import pytest

from tracking.record.best_epoch import KeepBest, best_epoch
from tracking.record.events import EpochDone

NAN = math.nan


@pytest.mark.parametrize(
    ("keep_best", "accuracies", "losses", "expected"),
    [
        ("val_accuracy", [0.3, 0.5, 0.5], [0.9, 0.7, 0.6], 2),
        ("val_loss", [0.3, 0.5, 0.4], [0.9, 0.7, 0.6], 3),
        ("val_loss", [0.3, 0.5, 0.4], [0.6, 0.7, 0.6], 1),
        ("val_loss", [0.3, 0.5], [NAN, 2.0], 2),
        ("val_loss", [0.3, 0.5], [NAN, NAN], 1),
        ("val_accuracy", [NAN, 0.1], [0.1, 2.0], 2),
        ("val_loss", [NAN, 0.1], [0.1, 2.0], 2),
        ("val_accuracy", [NAN], [0.1], None),
    ],
)
def test_the_best_epoch(
    keep_best: KeepBest, accuracies: list[float], losses: list[float], expected: int | None
) -> None:
    epochs = [
        EpochDone(trial=0, epoch=number, metrics={"val_accuracy": accuracy, "val_loss": loss})
        for number, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True), 1)
    ]
    for order in (epochs, epochs[::-1]):
        found = best_epoch(order, keep_best)
        assert (found.epoch if found else None) == expected
