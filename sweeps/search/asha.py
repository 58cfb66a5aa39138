"""Asynchronous successive halving (Li et al. 2020), stopping and promoting. The values of a rung are kept sorted.

With several objectives the trials of a rung are ranked by non-dominated front, within a front by the room around them
(Schmucker et al. 2021): accurate ones and cheap ones continue, and those between.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable

from tracking.metrics.pareto import Merit, best_first
from tracking.record.objectives import Costs, merit_of

NetOf = Callable[[int], str]
"""The net of a trial, within which it competes."""

_Rung = tuple[int, str]
"""Epochs, and net."""


def one_net(_: int) -> str:
    """All trials compete with each other."""
    return ""


class Halving:
    """Stops a trial at once that is not among the best of its rung, as Optuna's `SuccessiveHalvingPruner` does.

    Higher is better. Every trial that ever reached a rung competes there with those of its net, whatever became of it.
    """

    def __init__(
        self, first_rung_epochs: int, reduction_factor: int, rungs: float = math.inf, net_of: NetOf = one_net
    ) -> None:
        self._first_rung_epochs = first_rung_epochs
        self._reduction_factor = reduction_factor
        self._most_rungs = rungs
        self._net_of = net_of
        self._rungs: defaultdict[tuple[str, int], list[Merit]] = defaultdict(list)
        self._reached: defaultdict[int, int] = defaultdict(int)

    def report(self, trial: int, epoch: int, value: float, costs: Costs = ()) -> str | None:
        """Enter a trial's value after an epoch; why it is to be given up, or None."""
        while self._reached[trial] < self._most_rungs and epoch >= self._next_rung(trial):
            if math.isnan(value):
                return f"stopped at epoch {epoch}: not a number"
            rung = self._rungs[self._net_of(trial), self._reached[trial]]
            merit = merit_of(value, costs)
            insort(rung, merit)
            self._reached[trial] += 1
            order = best_first(rung)
            kept, rank = max(len(rung) // self._reduction_factor, 1), 1 + order.index(bisect_left(rung, merit))
            if rank > kept:
                under = "" if costs else f"{value:.4f} under the cut {-rung[order[kept - 1]][0]:.4f}, "
                return f"stopped at epoch {epoch}: {under}rank {rank} of {len(rung)}"
        return None

    def _next_rung(self, trial: int) -> int:
        rung: int = self._first_rung_epochs * self._reduction_factor ** self._reached[trial]
        return rung


class Promoting:
    """Pauses every trial at its rung, and continues those that come to be among the best of their net that reached it.

    A trial that is poor for its rung thus costs no more than the rung, and one that is early is not promoted for lack
    of rivals. Higher is better; of equal trials the lower number is ranked first. `go_back` to epoch 0 takes a trial
    that has failed out of the competition: it would hold the place of one that can be complete.
    """

    def __init__(self, first_rung_epochs: int, reduction_factor: int, net_of: NetOf = one_net) -> None:
        self._first_rung_epochs = first_rung_epochs
        self._reduction_factor = reduction_factor
        self._net_of = net_of
        self._rungs: defaultdict[_Rung, list[tuple[Merit, int]]] = defaultdict(list)  # (merit, trial), sorted
        self._at: dict[int, int] = {}  # trial → its last rung
        self._waiting: dict[int, int] = {}  # trial → the rung where it waits

    def report(self, trial: int, epoch: int, value: float, costs: Costs = ()) -> str | None:
        """Enter a trial's value after an epoch; why it is to be given up, or None."""
        self._at.pop(trial, None)
        if not self._is_rung(epoch):
            return None
        if math.isnan(value):
            return f"stopped at epoch {epoch}: not a number"
        insort(self._rungs[epoch, self._net_of(trial)], (merit_of(value, costs), trial))
        self._at[trial] = epoch
        return None

    def is_at_rung(self, trial: int) -> bool:
        """Whether the trial is to pause: it has reached a rung, and was not yet paused or continued there."""
        return trial in self._at and trial not in self._waiting

    def wait(self, trial: int) -> None:
        """Have a trial that is at a rung wait for its promotion."""
        self._waiting[trial] = self._at[trial]

    def hold(self, trial: int) -> None:
        """Have a trial that waits not be promoted; it is at its rung as before it waited."""
        self._waiting.pop(trial, None)

    def promote(self, trial: int) -> None:
        """Have a trial wait no longer if it waits."""
        if trial in self._waiting:
            self.leave(trial)

    def leave(self, trial: int) -> None:
        """Have a trial wait no longer; its value stays at the rung."""
        self._waiting.pop(trial, None)
        self._at.pop(trial, None)

    def go_back(self, trial: int, epoch: int) -> None:
        """Have a trial reach the rungs after `epoch` again."""
        if trial in self._at and self._at[trial] > epoch:
            self.leave(trial)
        for rung in self._rungs:
            if rung[0] > epoch:
                self._rungs[rung] = [entry for entry in self._rungs[rung] if entry[1] != trial]

    def rank(self, trial: int) -> tuple[int, int]:
        """The place of a trial at its rung, and how many trials reached the rung."""
        order = _trials(self._rungs[self._at[trial], self._net_of(trial)])
        return 1 + order.index(trial), len(order)

    def promotable(self, settled: float) -> list[int]:
        """The trials to continue now, those of the highest rung first, and of several nets the best of each first.

        At a rung of at most `settled` epochs no further trial will arrive from outside. There the best trials are
        continued although they are fewer than the reduction factor, so that a sweep ends with complete trials.
        """
        found: list[tuple[int, int, str, int]] = []
        moving = set[str]()  # nets of which a trial continues below
        for epoch, net in sorted(self._rungs):
            rung = self._rungs[epoch, net]
            is_settled = epoch <= settled and net not in moving
            share = len(rung) / self._reduction_factor
            quota = math.ceil(share) if is_settled else int(share)
            ready = [
                (-epoch, place, net, trial)
                for place, trial in enumerate(_trials(rung)[:quota])
                if self._waiting.get(trial) == epoch
            ]
            moving |= {net} if ready else set()
            found += ready
        return [trial for _, _, _, trial in sorted(found)]

    def _is_rung(self, epoch: int) -> bool:
        rung = self._first_rung_epochs
        while rung < epoch:
            rung *= self._reduction_factor
        return rung == epoch


def _trials(rung: list[tuple[Merit, int]]) -> list[int]:
    """The trials of a rung, the best first."""
    return [rung[place][1] for place in best_first([merit for merit, _ in rung])]
