"""Results of groups: the mean with its interval, and whether a group can still win."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

import numpy as np
from numpy.typing import NDArray

from tracking.metrics.scores import Interval, paired_difference_interval
from tracking.record.history import SweepHistory, TrialGroup
from tracking.record.layout import SweepFolder
from tracking.record.objectives import objectives_of
from tracking.record.predictions import best_predictions

_CONFIDENCE = 0.95


def mean_interval(values: Sequence[float]) -> Interval | None:
    """The mean of accuracies with its 95 % interval by Student's t, within 0 to 1; None for fewer than two values.

    The training sets of folds overlap, so the interval of their mean is somewhat too narrow.
    """
    if len(values) < 2:
        return None
    from scipy.stats import t

    mean, n = fmean(values), len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    reach = float(t.ppf((1 + _CONFIDENCE) / 2, n - 1)) * deviation / math.sqrt(n)
    return Interval(mean, max(mean - reach, 0.0), min(mean + reach, 1.0))


def right_answers(folder: SweepFolder, group: TrialGroup) -> NDArray[np.float64] | None:
    """For each validation face [n], the share of the group's members that predict it correctly.

    The members of folds are concatenated: together they have all faces of train and val, each predicted by the member
    that was not trained on it. None if the group is not complete, or a member's predictions are missing.
    """
    if not group.is_whole:
        return None
    members = [trial for _, trial in sorted(group.members.items())]
    found = [best_predictions(folder.trial(trial.number), trial) for trial in members]
    right = [one.is_right.astype(np.float64) for one in found if one]
    if len(right) < len(members):
        return None
    if group.first.started.fold is not None:
        return np.concatenate(right)
    return np.mean(right, axis=0) if len({len(one) for one in right}) == 1 else None


def difference_of(folder: SweepFolder, a: TrialGroup, b: TrialGroup) -> Interval | None:
    """The accuracy of `a` minus that of `b`, paired by face. None if predictions are missing, or of other faces."""
    mine, theirs = right_answers(folder, a), right_answers(folder, b)
    if mine is None or theirs is None or len(mine) != len(theirs):
        return None
    return difference_of_shares(mine, theirs)


def difference_of_shares(a: NDArray[np.float64], b: NDArray[np.float64]) -> Interval:
    """The mean of `a` minus that of `b`, paired by face [n], with its interval."""
    if np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all():
        return paired_difference_interval(np.ones(len(a), np.int64), a.astype(np.int64), b.astype(np.int64))
    gap = a - b
    reach = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2) * float(gap.std(ddof=1)) / math.sqrt(len(gap))
    return Interval(float(gap.mean()), float(gap.mean()) - reach, float(gap.mean()) + reach)


def why_lost(history: SweepHistory, group: TrialGroup) -> str | None:
    """Why the group's mean can no longer become the best, by a 95 % prediction from its members so far. None if it can.

    The spread among members is estimated from complete groups. Folds differ in difficulty, so a group is compared with
    the best one fold by fold. Without a complete group, or without an estimate of the spread, every group can still
    win. With several objectives a group wins if it is on the Pareto front, from which only a group that costs no more
    can keep it.
    """
    whole = [one for one in history.groups() if one.size == group.size and one.is_whole and one.confirms is None]
    done = group.done
    if not whole or not done or len(done) == group.size or group.first.started.baseline:
        return None
    rivals = _no_costlier(history, group, whole)
    if not rivals:
        return None
    best = max(rivals, key=lambda one: one.mean)
    on_folds = group.first.started.fold is not None
    spread, freedom = _spread(whole, on_folds)
    if freedom < 1:
        return None
    from scipy.stats import t

    lead = fmean(value - (best.done[member] if on_folds else best.mean) for member, value in done.items())
    size, count = group.size, len(done)
    # The other members vary about a mean that is estimated from `count` members.
    deviation = spread * (size - count) / size * math.sqrt(1 / (size - count) + 1 / count)
    most = lead + float(t.ppf((1 + _CONFIDENCE) / 2, freedom)) * deviation
    if most >= 0:
        return None
    return (
        f"its group can no longer win: {count} of {size} done, mean {fmean(done.values()):.4f}, at best "
        f"{-100 * most:.1f} points under {best.mean:.4f}, the mean of trial {best.first.number}"
    )


def _no_costlier(history: SweepHistory, group: TrialGroup, others: Sequence[TrialGroup]) -> list[TrialGroup]:
    """Those of the others that cost at most as much as the group in each objective; none if a cost is unknown (NaN)."""
    objectives = objectives_of(history.spec)
    own = group.first.costs(objectives)
    return [one for one in others if all(map(operator.le, one.first.costs(objectives), own))]


def _spread(whole: Sequence[TrialGroup], on_folds: bool) -> tuple[float, int]:
    """The standard deviation that `why_lost` needs, and its degrees of freedom.

    It is that of members about the mean of their group. For folds it is that of the difference between two groups,
    without the effect that a fold has on all groups.
    """
    size = whole[0].size
    columns = [fmean(one.done[member] - one.mean for one in whole) if on_folds else 0.0 for member in range(size)]
    squares = sum((one.done[member] - one.mean - columns[member]) ** 2 for one in whole for member in range(size))
    freedom = (len(whole) - on_folds) * (size - 1)
    return (math.sqrt((2 if on_folds else 1) * squares / freedom) if freedom else 0.0), freedom


def why_given_up(history: SweepHistory, group: TrialGroup) -> str | None:
    """Why no further member of the group is trained. None while it continues; a confirmation always continues."""
    if group.size == 1 or group.confirms is not None:
        return None
    for one in group.members.values():
        if one.verdict or (one.is_over and one.state != "done"):
            state = one.verdict.state if one.verdict else one.state
            return f"trial {one.number} of its group is {state}: {one.reason}"
    return why_lost(history, group)


def to_confirm(history: SweepHistory, count: int) -> list[TrialGroup]:
    """The best `count` configurations with a finished trial, which `--confirm` trains again.

    Forks are not among them: their settings, trained from the start, would be another trial.
    """
    ranked = [one for one in history.ranked_groups() if one.confirms is None and one.done]
    return [one for one in ranked if history.fork_of(one.first) is None][:count]


@dataclass(frozen=True)
class Confirmation:
    """The accuracy of the best configuration under new seeds, and that by which it was selected."""

    trial: int
    """The trial that is confirmed."""
    first: float
    """The accuracy by which it was selected."""
    confirmed: Interval
    """The mean under new seeds."""
    among: int
    best_at_first: float
    """The best accuracy of all trials before the confirmation."""

    def __str__(self) -> str:
        """One sentence."""
        gap = 100 * (self.best_at_first - self.confirmed.value)
        interval = f"{self.confirmed.low:.1%} to {self.confirmed.high:.1%}"
        return (
            f"winner of {self.among} confirmed: trial {self.trial}, {self.confirmed.value:.2%} ({interval}) under new "
            f"seeds, {self.first:.2%} when it was selected; the best of all had {self.best_at_first:.2%} before, "
            f"{abs(gap):.1f} points {'more' if gap > 0 else 'less'}"
        )


def confirmation_of(history: SweepHistory) -> Confirmation | None:
    """The best of the confirmed configurations. None before one of them is complete."""
    ranked = history.ranked_groups()
    confirmed = [one for one in ranked if one.confirms is not None and one.is_whole]
    interval = mean_interval(list(confirmed[0].done.values())) if confirmed else None
    if interval is None:
        return None
    number = confirmed[0].confirms
    source = next(one for one in ranked if number in {trial.number for trial in one.members.values()})
    best = max(one.mean for one in ranked if one.confirms is None)
    return Confirmation(source.first.number, source.mean, interval, len(confirmed), best)


def next_member(history: SweepHistory, *, after_first: bool = False) -> tuple[TrialGroup, int] | None:
    """The group of which a further member is to be started, and the member's index. None if there is none.

    With `after_first` the other members of a group start when its first member is done. Otherwise groups start one
    after the other, so only the last one can lack members, and one that was given up before a member was retried.
    """
    grouped = [one for one in history.groups() if one.size > 1]
    for group in grouped if after_first else [one for one in grouped if one is grouped[-1] or one.was_retried]:
        is_due = (
            not after_first
            or group.confirms is not None
            or group.first.started.baseline
            or group.first.state == "done"  # also with the result of an equal trial, without an accuracy of its own
        )
        if len(group.members) < group.size and is_due and not why_given_up(history, group):
            return group, len(group.members)
    return None
