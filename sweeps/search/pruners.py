"""Pruning rules, which receive the value of each epoch. Higher is better."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Protocol

import numpy as np

from sweeps.search.asha import Halving, NetOf, Promoting, one_net
from sweeps.space import Pruner, Space
from tracking.record.objectives import Costs

_MEDIAN_OF = 5
"""Number of completed trials that the median rule needs, as in Optuna."""

EpochsOf = Callable[[int], int]
"""Returns the number of epochs of a trial, if it is not pruned."""


class Rule(Protocol):
    """A pruning rule. It also receives the values of trials that are never pruned, such as baselines.

    `costs` are the sweep's other objectives; lower is better.
    """

    def report(self, trial: int, epoch: int, value: float, costs: Costs = ()) -> str | None:
        """Add a trial's value after an epoch. Returns the reason to prune it, or None."""
        ...


def make_pruner(
    kind: Pruner, space: Space, seed: int, net_of: NetOf = one_net, epochs_of: EpochsOf | None = None
) -> Rule:
    """The rule of that name, with the space's first rung and reduction factor; compares trials of the same net.

    Without `epochs_of` each trial has the space's `max_epochs`.
    """
    first, factor, max_epochs = space.first_rung, space.kept_one_in, space.max_epochs
    match kind:
        case "halving":
            return Halving(first, factor, net_of=net_of)
        case "promoting":
            return Promoting(first, factor, net_of, space.later_kept_one_in)
        case "hyperband":
            return Hyperband(first, factor, max_epochs, seed, net_of)
        case "median":
            return Median(first, epochs_of or (lambda _: max_epochs), net_of)
        case "one-epoch":
            # Egele et al. (2023): one epoch is enough to select the trials to continue.
            return Halving(first, factor**2, rungs=1, net_of=net_of)
        case "none":
            return Never()


class Never:
    """Prunes no trial."""

    def report(self, trial: int, epoch: int, value: float, costs: Costs = ()) -> str | None:
        """None."""
        return None


class Hyperband:
    """Halving in several brackets (Li et al. 2018). The first rung of each is `reduction_factor` times as late as that
    of the bracket before. A trial's bracket is drawn by its number, with Hyperband's probabilities."""

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
    """Prunes a trial whose best value is below the median of its net's completed trials at the same epoch."""

    def __init__(self, first_rung_epochs: int, epochs_of: EpochsOf, net_of: NetOf = one_net) -> None:
        self._first_rung_epochs, self._epochs_of, self._net_of = first_rung_epochs, epochs_of, net_of
        self._curves: defaultdict[int, dict[int, float]] = defaultdict(dict)
        self._completed: defaultdict[str, dict[int, dict[int, float]]] = defaultdict(dict)  # by net, then by trial

    def report(self, trial: int, epoch: int, value: float, costs: Costs = ()) -> str | None:
        """Add a trial's value after an epoch. Returns the reason to prune it, or None."""
        curve = self._curves[trial]
        curve[epoch] = value
        completed = self._completed[self._net_of(trial)]
        if epoch >= self._epochs_of(trial):
            completed[trial] = curve.copy()  # it may get more epochs
            return None
        rivals = [other[epoch] for other in completed.values() if epoch in other]
        if epoch < self._first_rung_epochs or len(rivals) < _MEDIAN_OF:
            return None
        best, cut = max(curve.values()), median(rivals)
        return (
            f"stopped at epoch {epoch}: best {best:.4f} under the median {cut:.4f} of {len(rivals)}"
            if best < cut
            else None
        )
