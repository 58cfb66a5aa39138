"""When a trial is given up, by rules that see each epoch's value. Higher is better."""

from __future__ import annotations

from collections import defaultdict
from statistics import median
from typing import Protocol

import numpy as np

from sweeps.search.asha import Halving, NetOf, Promoting, one_net
from sweeps.space import Pruner, Space
from tracking.record.objectives import Costs

_MEDIAN_OF = 5
"""Completed trials before the median of them decides anything, as in Optuna."""


class Rule(Protocol):
    """What decides; the values of trials that are spared, such as baselines, are entered too.

    `costs` are the other objectives of the sweep, to be low.
    """

    def report(self, trial: int, epoch: int, value: float, costs: Costs = ()) -> str | None:
        """Enter a trial's value after an epoch; why it is to be given up, or None."""
        ...


def make_pruner(kind: Pruner, space: Space, seed: int, net_of: NetOf = one_net) -> Rule:
    """The rule of that name with the space's first rung and reduction factor; trials compete within their net."""
    first, factor, max_epochs = space.first_rung_epochs, space.kept_one_in, space.max_epochs
    match kind:
        case "halving":
            return Halving(first, factor, net_of=net_of)
        case "promoting":
            return Promoting(first, factor, net_of)
        case "hyperband":
            return Hyperband(first, factor, max_epochs, seed, net_of)
        case "median":
            return Median(first, max_epochs, net_of)
        case "one-epoch":
            # Egele et al. (2023): one epoch is enough to tell which trials are worth training on.
            return Halving(first, factor**2, rungs=1, net_of=net_of)
        case "none":
            return Never()


class Never:
    """No trial is given up."""

    def report(self, trial: int, epoch: int, value: float, costs: Costs = ()) -> str | None:
        """None."""
        return None


class Hyperband:
    """Halving in several brackets (Li et al. 2018), each of which begins `reduction_factor` times as late as the one
    before. A trial's bracket is drawn by its number, in the shares that Hyperband gives them."""

    def __init__(
        self, first_rung_epochs: int, reduction_factor: int, max_epochs: int, seed: int, net_of: NetOf = one_net
    ) -> None:
        count, rung = 0, first_rung_epochs
        while rung <= max_epochs:
            count, rung = count + 1, rung * reduction_factor
        self._brackets = [
            Halving(first_rung_epochs * reduction_factor**s, reduction_factor, net_of=net_of)
            for s in range(max(count, 1))
        ]
        # Bracket s starts n = (count / (count - s)) * factor ** (count - 1 - s) trials.
        shares = [len(self._brackets) / (s + 1) * reduction_factor**s for s in range(len(self._brackets))][::-1]
        self._shares = np.array(shares) / sum(shares)
        self._seed = seed

    def report(self, trial: int, epoch: int, value: float, costs: Costs = ()) -> str | None:
        """As `Halving` within the trial's bracket."""
        bracket = int(np.random.default_rng([self._seed, trial]).choice(len(self._brackets), p=self._shares))
        reason = self._brackets[bracket].report(trial, epoch, value, costs)
        return f"{reason} of bracket {bracket + 1}" if reason else None


class Median:
    """A trial is given up whose best value is under the median of its net's completed trials at the same epoch."""

    def __init__(self, first_rung_epochs: int, max_epochs: int, net_of: NetOf = one_net) -> None:
        self._first_rung_epochs, self._max_epochs, self._net_of = first_rung_epochs, max_epochs, net_of
        self._curves: defaultdict[int, dict[int, float]] = defaultdict(dict)
        self._completed: defaultdict[str, list[dict[int, float]]] = defaultdict(list)

    def report(self, trial: int, epoch: int, value: float, costs: Costs = ()) -> str | None:
        """Enter a trial's value after an epoch; why it is to be given up, or None."""
        curve = self._curves[trial]
        curve[epoch] = value
        if epoch >= self._max_epochs:
            self._completed[self._net_of(trial)].append(self._curves.pop(trial))
            return None
        rivals = [other[epoch] for other in self._completed[self._net_of(trial)] if epoch in other]
        if epoch < self._first_rung_epochs or len(rivals) < _MEDIAN_OF:
            return None
        best, cut = max(curve.values()), median(rivals)
        return (
            f"stopped at epoch {epoch}: best {best:.4f} under the median {cut:.4f} of {len(rivals)}"
            if best < cut
            else None
        )
