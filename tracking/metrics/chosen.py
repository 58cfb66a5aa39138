"""The expected accuracy on new faces of the best of many trials. On the faces that selected it, it is biased upwards.

Legend: t trials, n faces, b resamples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tracking.errors import TrackingError
from tracking.metrics.groups import difference_of, right_answers
from tracking.metrics.scores import Interval, wilson_interval
from tracking.record.history import SweepHistory, TrialGroup
from tracking.record.layout import SweepFolder

_RESAMPLES = 1000
_DEVIATIONS_BEHIND = 5.0
"""A trial that is this many standard deviations behind the best is never the best of a resample."""

Right = NDArray[np.bool_] | NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """The best of a sweep's trials: its expected accuracy on new faces, and whether it beats the best baseline."""

    trial: int
    among: int
    accuracy: float
    """Accuracy on the faces by which it was selected."""
    expected: Interval
    """Expected accuracy on new faces."""
    baseline: str | None = None
    lead: Interval | None = None
    """Expected lead over the best baseline on new faces. None if the best is a baseline, or there is no baseline."""

    @property
    def beats_baseline(self) -> bool:
        """Whether chance and selection bias cannot explain the lead."""
        return self.lead is not None and self.lead.low > 0

    def __str__(self) -> str:
        expected, flattery = self.expected, 100 * (self.accuracy - self.expected.value)
        words = (
            f"expected accuracy on new faces, best of {self.among}: {expected.value:.1%} ({expected.low:.1%} to "
            f"{expected.high:.1%}); its val accuracy is {max(flattery, 0):.1f} points too high by selection"
        )
        if self.lead is None or self.beats_baseline:
            return words
        low, lead, high = (100 * points for points in (self.lead.low, self.lead.value, self.lead.high))
        return (
            f"{words}\nbaseline not beaten: the lead over {self.baseline} is within noise, {lead:+.1f} points "
            f"({low:+.1f} to {high:+.1f}) on new faces"
        )


def choice_of(folder: SweepFolder, history: SweepHistory) -> Choice | None:
    """The `Choice` of a sweep's trials or complete groups. None if the predictions of the best one are missing."""
    whole = [one for one in history.ranked_groups() if one.is_whole]
    ranked = [one for one in whole if one.confirms is not None] or whole
    first = right_answers(folder, ranked[0]) if ranked else None
    if first is None:
        return None
    rivals = [right_answers(folder, ranked[place]) for place in can_win([one.mean for one in ranked], len(first))[1:]]
    right = [first, *(one for one in rivals if one is not None and len(one) == len(first))]
    expected, accuracy = accuracy_when_chosen(right), float(first.mean())
    baselines = (one for one in (*ranked, *whole) if one.first.started.baseline and not history.is_short(one.first))
    baseline = next(baselines, None)  # a confirmed one, if there is one
    return Choice(
        ranked[0].ranked()[0].number,
        len(ranked),
        accuracy,
        expected,
        baseline.first.started.baseline if baseline else None,
        _lead(folder, ranked[0], baseline, accuracy - expected.value),
    )


def _lead(folder: SweepFolder, best: TrialGroup, baseline: TrialGroup | None, flattery: float) -> Interval | None:
    if baseline is None or best.first.started.baseline or (gap := difference_of(folder, best, baseline)) is None:
        return None
    return Interval(gap.value - flattery, gap.low - flattery, gap.high - flattery)


def can_win(accuracies: Sequence[float], faces: int) -> list[int]:
    """Indices of the trials that could be the best on other faces, best first."""
    order = sorted(range(len(accuracies)), key=lambda place: -accuracies[place])
    if not order:
        return []
    best = accuracies[order[0]]
    reach = _DEVIATIONS_BEHIND * math.sqrt(2 * max(best * (1 - best), 1 / faces) / faces)
    return [place for place in order if accuracies[place] >= best - reach]


def accuracy_when_chosen(right: Sequence[Right], seed: int = 0) -> Interval:
    """Expected accuracy on new faces of the trial that is selected as the best on these, with a 95 % interval.

    Faces are resampled with replacement. The best trial on the sampled faces is evaluated on those that were not
    sampled (the bootstrap bias correction of Tsamardinos et al. 2018). The interval is Wilson's about that mean, for
    the same number of faces.

    Args:
        right: for each trial, which faces [n] it predicts correctly at its best epoch.
        seed: of the resamples.

    Raises:
        TrackingError: no trials, no faces, or trials on different faces.
    """
    if not right or not len(right[0]) or len({len(one) for one in right}) != 1:
        raise TrackingError("the expected accuracy needs at least one trial, all evaluated on the same faces")
    answers = np.stack(right).astype(np.float32)
    rng, n = np.random.default_rng(seed), answers.shape[1]
    left_out = []
    for _ in range(_RESAMPLES // 100):
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=100).astype(np.float32)
        winners = (drawn @ answers.T).argmax(axis=1)
        out = drawn == 0
        some = out.any(axis=1)  # with few faces a resample may leave none out
        left_out.append((out * answers[winners])[some].sum(axis=1) / out[some].sum(axis=1))
    judged = np.concatenate(left_out)
    expected = float(judged.mean() if len(judged) else answers.mean(axis=1).max())
    around = wilson_interval(round(expected * n), n)
    shift = expected - around.value
    return Interval(expected, around.low + shift, around.high + shift)
