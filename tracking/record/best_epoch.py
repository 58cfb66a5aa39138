"""Chooses the best epoch of a trial, whose weights and predictions are kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, Protocol, TypeVar

from tracking.record.events import OBJECTIVE

KeepBest = Literal["val_accuracy", "val_loss"]
"""The metric that selects a trial's best epoch."""


class EpochScores(Protocol):
    """An epoch's number and scores, as reported by a trial or as recorded in the journal."""

    @property
    def epoch(self) -> int:
        """Number of the epoch, from 1."""
        ...

    @property
    def metrics(self) -> Mapping[str, float]:
        """Its values by metric name."""
        ...


AnEpoch = TypeVar("AnEpoch", bound=EpochScores)


def best_epoch(epochs: Iterable[AnEpoch], keep_best: KeepBest = OBJECTIVE) -> AnEpoch | None:
    """The first epoch with the highest `val_accuracy`, or with the lowest `val_loss`.

    Epochs without a finite `val_accuracy` are left out. None if no other remains.
    """

    def merit(epoch: AnEpoch) -> float:
        if keep_best == OBJECTIVE:
            return epoch.metrics[OBJECTIVE]
        loss = epoch.metrics.get(keep_best, math.nan)
        return -math.inf if math.isnan(loss) else -loss

    scored = [epoch for epoch in epochs if math.isfinite(epoch.metrics.get(OBJECTIVE, math.nan))]
    return max(sorted(scored, key=lambda epoch: epoch.epoch), key=merit, default=None)
