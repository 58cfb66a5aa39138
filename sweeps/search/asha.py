"""Asynchronous successive halving (Li et al. 2020), as a stopping and as a promoting rule. Rungs are kept sorted.

With several objectives the trials of a rung are ranked by non-dominated front, and within a front by crowding distance
(Schmucker et al. 2021), so that accurate trials, cheap trials and some between continue.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable

from tracking.metrics.pareto import Merit, best_first
from tracking.record.objectives import Costs, merit_of

NetOf = Callable[[int], str]
"""Returns the net of a trial; a trial is compared only with trials of the same net."""

_Rung = tuple[int, str]
"""Epochs and net of a rung."""


def one_net(_: int) -> str:
    """The same net for all trials, so that all are compared."""
    return ""


class Halving:
    """Stops a trial immediately if it is not among the best of its rung, as Optuna's `SuccessiveHalvingPruner` does.

    Higher is better. A trial is compared with all trials of its net that ever reached the rung, whatever their state.
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
        """Add a trial's value after an epoch. Returns the reason to prune it, or None."""
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
    """Lets every trial wait at its rung, and continues those that are among the best of their net at that rung.

    A poor trial costs no more than the rung, and an early trial is not promoted just because there are few others.
    One in `reduction_factor` passes the first rung, one in `later_factor` each later rung. Higher is better; of
    equal trials the lower number ranks first. `go_back` to epoch 0 removes a failed trial from all rungs, so that
    it does not take the place of a trial that can be completed.
    """

    def __init__(
        self,
        first_rung_epochs: int,
        reduction_factor: int,
        net_of: NetOf = one_net,
        later_factor: int | None = None,
    ) -> None:
        self._first_rung_epochs = first_rung_epochs
        self._reduction_factor = reduction_factor
        self._later_factor = later_factor or reduction_factor
        self._net_of = net_of
        self._rungs: defaultdict[_Rung, list[tuple[Merit, int]]] = defaultdict(list)  # (merit, trial), sorted
        self._at: dict[int, int] = {}  # trial → its last rung
        self._waiting: dict[int, int] = {}  # trial → the rung where it waits
        self._held: set[int] = set()  # trials that were paused at their rung for another reason

    def report(self, trial: int, epoch: int, value: float, costs: Costs = ()) -> str | None:
        """Add a trial's value after an epoch. Returns the reason to prune it, or None."""
        self.leave(trial)
        if not self._is_rung(epoch):
            return None
        if math.isnan(value):
            return f"stopped at epoch {epoch}: not a number"
        insort(self._rungs[epoch, self._net_of(trial)], (merit_of(value, costs), trial))
        self._at[trial] = epoch
        return None

    def is_at_rung(self, trial: int) -> bool:
        """Whether the trial is to wait now: it has reached a rung and has not waited there yet."""
        return trial in self._at and trial not in self._waiting

    def wait(self, trial: int) -> None:
        """Let a trial that is at a rung wait for its promotion."""
        self._waiting[trial] = self._at[trial]
        self._held.discard(trial)

    def hold(self, trial: int) -> None:
        """Take a waiting trial out of promotion; it is at its rung as before it waited."""
        self._waiting.pop(trial, None)
        if trial in self._at:
            self._held.add(trial)

    def promote(self, trial: int) -> None:
        """Let a trial pass its rung, unless it is held there: then it waits again."""
        if trial not in self._held:
            self.leave(trial)

    def leave(self, trial: int) -> None:
        """End the waiting of a trial; its value stays at the rung."""
        self._held.discard(trial)
        self._waiting.pop(trial, None)
        self._at.pop(trial, None)

    def go_back(self, trial: int, epoch: int) -> None:
        """Remove a trial from the rungs after `epoch`; it reaches them again."""
        if trial in self._at and self._at[trial] > epoch:
            self.leave(trial)
        for rung in self._rungs:
            if rung[0] > epoch:
                self._rungs[rung] = [entry for entry in self._rungs[rung] if entry[1] != trial]

    def rank(self, trial: int) -> tuple[int, int]:
        """The rank of a trial at its rung, and the number of trials that reached the rung."""
        order = _trials(self._rungs[self._at[trial], self._net_of(trial)])
        return 1 + order.index(trial), len(order)

    def promotable(self, settled: float) -> list[int]:
        """The trials to continue now: those of the highest rung first, and at a rung the best of each net first.

        Rungs of at most `settled` epochs get no more new trials. There the best trials continue even if they are fewer
        than the reduction factor, so that a sweep ends with complete trials.
        """
        found: list[tuple[int, int, str, int]] = []
        moving = set[str]()  # nets of which a trial still runs below this rung
        for epoch, net in sorted(self._rungs):
            rung = self._rungs[epoch, net]
            is_settled = epoch <= settled and net not in moving
            factor = self._reduction_factor if epoch == self._first_rung_epochs else self._later_factor
            share = len(rung) / factor
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
    """The trials of a rung, best first."""
    return [rung[place][1] for place in best_first([merit for merit, _ in rung])]
