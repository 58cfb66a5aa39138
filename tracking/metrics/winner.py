"""The winner of a sweep: the best trial, or the cheapest of those that are within noise of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from tracking.metrics.chosen import can_win
from tracking.metrics.groups import difference_of_shares, right_answers
from tracking.record.history import SweepHistory, TrialGroup
from tracking.record.layout import SweepFolder
from tracking.record.parameters import parameters_of

Preference = Literal["smaller", "faster"]
"""What decides among the trials within noise of the best: fewest parameters, or fewest seconds per epoch."""

_NAMED = 8


@dataclass(frozen=True)
class Winner:
    """The trial that a sweep's name refers to, and those within noise of the best, best first.

    `costs` are parameters or seconds per epoch, depending on the preference; infinite if unknown.
    """

    trial: int
    best: int
    ties: tuple[int, ...] = ()
    prefer: Preference | None = None
    costs: Mapping[int, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """One sentence; empty if no other trial is within noise."""
        if not self.ties:
            return ""
        more = f" and {len(self.ties) - _NAMED} more" if len(self.ties) > _NAMED else ""
        words = f"within noise of the best, trial {self.best}: trial {', '.join(map(str, self.ties[:_NAMED]))}{more}"
        if self.prefer is None:
            return words
        cost = _cost(self.prefer, self.costs[self.trial])
        if self.trial != self.best:
            cost += f", the best {_cost(self.prefer, self.costs[self.best])}"
        return f"{words}; --prefer {self.prefer}: trial {self.trial} is the sweep's winner ({cost})"


def winner_of(folder: SweepFolder, history: SweepHistory) -> Winner | None:
    """The winner among the finished trials, by the sweep's option `prefer`. None before the first is finished.

    A trial is within noise if it did not fail and the 95 % interval of the best one's lead over it, paired by face,
    includes 0. Only trials whose weights are kept can be preferred to the best, and none if the cost of the best is
    unknown. Of equally cheap ones the better one wins.
    """
    groups = _over(history)
    if not groups:
        return None
    tied = _within_noise(folder, groups)
    best = groups[0].ranked()[0].number
    ties = tuple(one.ranked()[0].number for one in tied)
    prefer: Preference | None = history.spec.get("prefer")
    if prefer is None:
        return Winner(best, best, ties)
    costs = {one.ranked()[0].number: _cost_of(folder, one, prefer) for one in (groups[0], *tied)}
    cheaper = [number for number in ties if costs[number] < costs[best] < math.inf]
    kept = [number for number in cheaper if folder.trial(number).best.is_file()]
    return Winner(min(kept, key=costs.__getitem__, default=best), best, ties, prefer, costs)


def _over(history: SweepHistory) -> list[TrialGroup]:
    """The complete groups that are over, best first; only confirmed ones if there are any."""
    ranked = [
        one for one in history.ranked_groups() if one.is_whole and all(trial.is_over for trial in one.members.values())
    ]
    confirmed = [one for one in ranked if one.confirms is not None]
    return confirmed or ranked


def _within_noise(folder: SweepFolder, groups: list[TrialGroup]) -> list[TrialGroup]:
    first = right_answers(folder, groups[0])
    if first is None:
        return []
    found = []
    for place in can_win([one.mean for one in groups], len(first))[1:]:
        if groups[place].first.state == "failed":  # its net is that of the epochs before it diverged
            continue
        right = right_answers(folder, groups[place])
        if right is not None and len(right) == len(first) and difference_of_shares(first, right).low <= 0:
            found.append(groups[place])
    return found


def _cost_of(folder: SweepFolder, group: TrialGroup, prefer: Preference) -> float:
    if prefer == "smaller":
        counts = (parameters_of(folder.trial(trial.number), trial) for trial in group.members.values())
        return next(filter(None, counts), math.inf)
    seconds = [
        epoch.metrics["epoch_seconds"]
        for trial in group.members.values()
        for epoch in trial.epochs
        if "epoch_seconds" in epoch.metrics
    ]
    return median(seconds) if seconds else math.inf


def _cost(prefer: Preference, value: float) -> str:
    if math.isinf(value):
        return f"its {'parameters' if prefer == 'smaller' else 'seconds per epoch'} are not known"
    return f"{value:,.0f} parameters" if prefer == "smaller" else f"{value:.3g} s per epoch"
