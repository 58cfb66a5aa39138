"""Asynchronous successive halving (Li et al. 2020), rung by rung to the letter what `SuccessiveHalvingPruner` of Optuna
decides, which looks through all trials at each report: here a rung's values lie sorted."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import defaultdict


class Halving:
    """Higher is better. Every trial that ever reached a rung competes there, whatever became of it."""

    def __init__(self, first_rung_epochs: int, reduction_factor: int, rungs: float = math.inf) -> None:
        self._first_rung_epochs = first_rung_epochs
        self._reduction_factor = reduction_factor
        self._most_rungs = rungs
        self._rungs: defaultdict[int, list[float]] = defaultdict(list)
        self._reached: defaultdict[int, int] = defaultdict(int)

    def report(self, trial: int, epoch: int, value: float) -> str | None:
        """Enter a trial's value after an epoch; why it is to be given up, or None."""
        while self._reached[trial] < self._most_rungs and epoch >= self._next_rung(trial):
            if math.isnan(value):
                return f"stopped at epoch {epoch}: not a number"
            rung = self._rungs[self._reached[trial]]
            insort(rung, value)
            self._reached[trial] += 1
            cut = rung[-max(len(rung) // self._reduction_factor, 1)]
            if value < cut:
                rank = 1 + len(rung) - bisect_right(rung, value)
                return f"stopped at epoch {epoch}: {value:.4f} under the cut {cut:.4f}, rank {rank} of {len(rung)}"
        return None

    def _next_rung(self, trial: int) -> int:
        rung: int = self._first_rung_epochs * self._reduction_factor ** self._reached[trial]
        return rung
