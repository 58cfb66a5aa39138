"""A sweep's Optuna study: proposes configurations, and decides when to give a trial up.

The study has no state of its own: it is rebuilt from the journal whenever a sweep continues, so it cannot be torn
or out of date, and trial numbers are the journal's. `study.log` is for the sampler and
optuna-dashboard; the pruner keeps its rungs in memory.

The sampler learns only from trials that it drew. A baseline competes at the pruner's rungs, but its settings are not
a point of the search space: among the best trials it would only hide those that are.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps.config import TrialConfig
from sweeps.errors import InputError
from sweeps.search.asha import Promoting
from sweeps.search.asked_trial import AskedTrial
from sweeps.search.pruners import make_pruner
from sweeps.search.samplers import PriorSampler, grid_points, is_turn_of_priors, make_sampler, turns_of_priors
from sweeps.search.seeds import derive_seed
from sweeps.search.study_storage import OwnLog, SweepStorage
from sweeps.space import Space
from sweeps.trial.messages import OBJECTIVE
from tracking.record.events import (
    Act,
    AttemptStarted,
    EpochDone,
    Event,
    Lengthened,
    SweepStarted,
    Told,
    TrialEnded,
    TrialPaused,
    TrialStarted,
    TrialUnpaused,
    Verdict,
)

optuna.logging.set_verbosity(optuna.logging.WARNING)

_TPE_NOTE = "tpe:relative_params:0"
"""Where TPE stores values of all known parameters with a trial, whether `suggest` asks for them or not."""

_BEST_SHOWN, _LATEST_SHOWN = 50, 250
"""How many trials the sampler learns from: its cost grows with their number, and TPE takes 25 for good at most."""

_Place = tuple[int, float, float]

_LESSONS: dict[str, Told] = {"done": "value", "pruned": "pruned", "failed": "nothing", "stopped": "nothing"}
_TOLD = {
    "value": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "worst": TrialState.PRUNED,
    "nothing": TrialState.FAIL,
}


def random_trials(seed: int, known: Mapping[str, BaseDistribution] = MappingProxyType({})) -> Iterator[AskedTrial]:
    """Random trials for `suggest`, to inspect a space before a sweep.

    `known` are the parameters of a sweep that is resumed.
    """
    storage = JournalStorage(OwnLog(Path(os.devnull)))  # takes what a sweep's takes, and no more
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=seed % 2**32))
    seen = dict(known)
    while True:
        yield AskedTrial(study.ask(), seen)


def drawn_parameters(starts: Iterable[TrialStarted]) -> dict[str, BaseDistribution]:
    """The parameters of the drawn trials, each as first seen."""
    known: dict[str, BaseDistribution] = {}
    for started in starts:
        for name, text in started.distributions.items():
            known.setdefault(name, json_to_distribution(text))
    return known


@dataclass(frozen=True)
class Proposal:
    """A configuration and, for the study's rebuilding, the values and distributions it was drawn from.

    `config` is None where `suggest` did not make one; `fault` says why.
    """

    config: TrialConfig | None
    params: dict[str, Any]
    distributions: dict[str, str]
    fault: str | None = None


@dataclass
class _Group:
    """Trials of one configuration, known by the first, that the sampler has yet to learn of."""

    first: int
    size: int
    started: set[int] = field(default_factory=set)
    ended: dict[int, tuple[Told, float | None]] = field(default_factory=dict)
    is_closed: bool = False
    is_told: bool = False


class Study:
    """Wraps the sampler and the pruner; trials have the journal's numbers. Not thread-safe."""

    def __init__(self, log: Path, space: Space, seed: int, events: Iterable[Event] = ()) -> None:
        """Build the study at `log` from the journal's events, replacing what is there."""
        self._space = space
        self._seed = seed
        self._open: dict[int, optuna.Trial | None] = {}  # None for a baseline
        self._known: dict[str, BaseDistribution] = {}
        self._whole: set[frozenset[str]] = set()  # the names of parameters that draws came to a configuration with
        self._curves: defaultdict[int, dict[int, float]] = defaultdict(dict)
        self._owed: dict[int, str] = {}
        self._lessons: dict[int, FrozenTrial] = {}  # what the sampler learns of each trial, the latest last
        self._ranked: list[tuple[_Place, int]] = []  # the same trials, the best first
        self._groups: dict[int, _Group] = {}  # by each trial of a group
        self._confirming: set[int] = set()
        self._further = 0  # members of groups beside the first of each
        self._least = math.inf  # of the values that the sampler was told
        self._pruner = make_pruner(space.pruner, space, derive_seed(seed, "pruner"))
        self._rungs = self._pruner if isinstance(self._pruner, Promoting) else None
        self._grid = grid_points(space) if space.sampler == "grid" else []
        np.random.default_rng(derive_seed(seed, "grid")).shuffle(self._grid)
        self._proposed = 0  # the point of the grid, or the offer, that is next
        self._offers: list[dict[str, Any]] = []
        self._taught = 0  # how many trials of other sweeps the sampler learns from
        log.unlink(missing_ok=True)
        self._storage = SweepStorage(OwnLog(log), self._shown)
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=space.name,
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(seed=seed % 2**32),
            pruner=optuna.pruners.NopPruner(),
        )
        for event in events:
            self._replay(event)

    def _replay(self, event: Event) -> None:
        match event:
            case SweepStarted():
                self._start_from(event)
            case TrialStarted(baseline=None) if event.params or not (event.wanted or event.is_further_member):
                self.enter(event)
                self.add_drawn(event)
                self._proposed += event.wanted is None
            case TrialStarted():
                self.enter(event)
                self.add_undrawn(event.trial)
            case EpochDone():
                reason = self.report(event.trial, event.epoch, event.metrics[OBJECTIVE])
                self._owed.pop(event.trial, None)
                if reason:
                    self._owed[event.trial] = reason
            case TrialPaused(reason="rung"):
                self.wait(event.trial)
            case AttemptStarted() | TrialPaused() | TrialUnpaused():
                self.leave_rung(event.trial)
            case Act():
                for change in event.lengthened:
                    self.lengthen(change)
            case Verdict():
                self.finish(event.trial, _LESSONS[event.state])
            case TrialEnded(final=True):
                # Journals of format 1 do not say what the sampler was told; it is told what it would be today.
                told = event.told or self.lesson(event.trial, event.state, unfit=event.diverged)
                if event.drops_out:
                    self.drop_out(event.trial)
                self.finish(event.trial, told, event.best.get(f"best_{OBJECTIVE}"))

    def _start_from(self, sweep: SweepStarted) -> None:
        """Learn what was taken from other sweeps. Their trials have numbers below 0: they are older than all others.

        The seed is another one, as a sweep of the same space and seed would draw again what was taken from the first.
        """
        sources = [lesson.source for lesson in sweep.lessons] + [offer.source for offer in sweep.offers]
        if sources:
            self._seed = derive_seed(self._seed, "from", *sources)
        self._offers = [offer.params for offer in sweep.offers]
        self._taught = len(sweep.lessons)
        for number, lesson in enumerate(sweep.lessons, start=-self._taught):
            drawn = {name: json_to_distribution(text) for name, text in lesson.distributions.items()}
            self._learn(number, lesson.told, lesson.value, lesson.curve, lesson.params, drawn)

    def propose(self, number: int) -> Proposal:
        """Draw trial `number`'s configuration; the sampler's randomness depends on the seed and the number alone.

        A draw that `suggest` cannot make is a proposal without a configuration; the next number is another draw.
        """
        self._close_groups()  # those before that were given up, incomplete
        drawn = max(self._proposed - len(self._offers), 0)
        near_priors = turns_of_priors(drawn) if self._space.priors else 0
        self._study.sampler = make_sampler(
            self._space.sampler, self._seed, number, self._known, self._further, self._taught, near_priors
        )
        if self._space.priors and self._proposed >= len(self._offers) and is_turn_of_priors(drawn):
            seed = derive_seed(self._seed, "priors", number)
            self._study.sampler = PriorSampler(self._space.expected, self._study.sampler, seed)
        if self._grid:
            self._study.enqueue_trial(self._grid[self._proposed % len(self._grid)])
        elif self._proposed < len(self._offers):
            self._study.enqueue_trial(self._offers[self._proposed])
        self._proposed += 1
        trial, config, fault = self._study.ask(), None, None
        try:
            config = self._space.draw(AskedTrial(trial, self._known))
        except InputError as error:
            fault = str(error)
        self._enter(number, trial, whole=config is not None)
        # While it runs, TPE would take parameters that it does not have for its own, which no journal tells of.
        self._storage.set_trial_system_attr(trial._trial_id, _TPE_NOTE, "")
        distributions = {name: distribution_to_json(dist) for name, dist in trial.distributions.items()}
        return Proposal(config, dict(trial.params), distributions, fault)

    def _enter(self, number: int, trial: optuna.Trial, *, whole: bool) -> None:
        self._open[number] = trial
        if whole:
            self._whole.add(frozenset(trial.distributions))

    def add_drawn(self, started: TrialStarted) -> None:
        """Enter a trial with the values that it was drawn with."""
        distributions = drawn_parameters([started])
        self._known |= distributions | self._known
        self._study.enqueue_trial(started.params)
        self._enter(started.trial, self._study.ask(fixed_distributions=distributions), whole=bool(started.config))

    def enter(self, started: TrialStarted) -> None:
        """Register a trial's group; call it before the trial is added.

        The sampler learns of a group once: the mean of its members, when all that were started are over and no
        further one will be, which is so when it is whole, or its first member is over and another group has begun.
        """
        place = started.group
        self._further += started.is_further_member
        if place is None:
            return
        if place.confirms is not None:
            self._confirming.add(started.trial)
            return
        group = self._groups.get(place.first)
        if group is None:
            self._close_groups()
            group = _Group(place.first, place.size)
        group.started.add(started.trial)
        group.is_closed |= len(group.started) == group.size
        self._groups[started.trial] = group

    def _close_groups(self) -> None:
        for group in list(self._groups.values()):
            group.is_closed |= group.first in group.ended
            self._settle(group)

    def add_undrawn(self, number: int) -> None:
        """Enter a baseline, or a trial that the space cannot draw: its values compete at the pruner's rungs, and the
        sampler never sees it.

        In `study.log` it is a failed trial from the start, so that the numbers there stay the journal's.
        """
        self._study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs={"baseline": True}))
        self._open[number] = None

    def report(self, number: int, epoch: int, value: float) -> str | None:
        """Enter an epoch's value; the reason to give the trial up, or None."""
        if number not in self._open:
            return None  # given up already; a report that crossed the verdict
        group = self._groups.get(number)
        if number in self._confirming or (group and (number != group.first or number in group.ended)):
            return None  # a group competes with its first member, a confirmation not at all
        self._curves[number][epoch] = value
        reason = self._pruner.report(number, epoch, value)
        if self.is_at_rung(number):
            self._teach(number, "pruned", None)  # most trials end here, and many wait for long
        return reason

    def is_at_rung(self, number: int) -> bool:
        """Whether the trial is to pause now, until it is promoted."""
        return self._rungs is not None and self._rungs.is_at_rung(number)

    def wait(self, number: int) -> None:
        """Have a trial that is at a rung wait."""
        if self._rungs is not None:
            self._rungs.wait(number)

    def leave_rung(self, number: int) -> None:
        """Have a trial wait for no promotion, as it continues, or somebody else decides on it."""
        if self._rungs is not None:
            self._rungs.leave(number)

    def drop_out(self, number: int) -> None:
        """Have a trial that ended without a result compete at no rung, so that another is promoted in its place.

        A group competes with its first member, and is given up with any of its members.
        """
        group = self._groups.get(number)
        if self._rungs is not None:
            self._rungs.go_back(group.first if group else number, 0)

    def promotable(self, settled: float) -> list[int]:
        """The waiting trials to continue now, the first ones first; as `Promoting.promotable`."""
        return self._rungs.promotable(settled) if self._rungs is not None else []

    def lengthen(self, change: Lengthened) -> None:
        """Forget a verdict that is owed to a trial which gets more epochs, and the rungs that it reaches again.

        The sampler keeps what it learned of a trial that was done.
        """
        self._owed.pop(change.trial, None)
        if self._rungs is not None and change.trial in self._open:
            self._rungs.go_back(change.trial, change.epoch)

    def rank(self, number: int) -> tuple[int, int]:
        """The place of a waiting trial at its rung, and how many trials reached the rung."""
        assert self._rungs is not None
        return self._rungs.rank(number)

    def owed_verdict(self, number: int) -> str | None:
        """The pruner's reason after the journal's last epoch, where the driver died before it wrote its verdict."""
        return self._owed.get(number)

    def lesson(self, number: int, state: str, *, unfit: bool) -> Told:
        """What the sampler learns of a trial that ended in `state`; `unfit` says that its settings are to blame.

        An unfit one is the worst: if the sampler learned nothing of it, a region that always diverges would look
        unexplored, and the sampler would go there ever more often. A draw that was broken off half way teaches nothing:
        parameters that others have and it lacks would split TPE's joint model of them for good.
        """
        if number not in self._open:
            return _LESSONS[state]  # as the sampler learned with the verdict
        trial = self._open[number]
        if trial is None:
            return "value" if state == "done" and number in self._groups else "nothing"
        if unfit:
            return "worst" if frozenset(trial.distributions) in self._whole else "nothing"
        return _LESSONS[state]

    def finish(self, number: int, told: Told, best: float | None = None) -> None:
        """Close a trial, once, and tell the sampler about it; `best` is its value."""
        if number not in self._open:
            return
        group = self._groups.get(number)
        if group is None:
            self._close(number, told, best)
            return
        if number in group.ended:
            return
        group.ended[number] = told, best
        if number != group.first:
            self._close(number, "nothing", None)
        self._settle(group)

    def _settle(self, group: _Group) -> None:
        """Teach the sampler a group that is over, once."""
        if not group.is_closed or group.started - group.ended.keys() or group.is_told:
            return
        group.is_told = True
        told, best = group.ended[group.first]
        values = [value for lesson, value in group.ended.values() if lesson == "value" and value is not None]
        self._close(group.first, told, fmean(values) if told == "value" and values else best)

    def _close(self, number: int, told: Told, best: float | None) -> None:
        self.leave_rung(number)
        self._teach(number, told, best)
        trial, curve = self._open.pop(number), self._curves.pop(number, {})
        if trial is None:
            return
        # TPE ranks pruned trials by their last epoch, and one that has none below all others.
        for epoch, accuracy in curve.items() if told != "worst" else ():
            trial.report(accuracy, epoch)
        self._study.tell(trial, best if told == "value" else None, state=_TOLD[told])

    def _teach(self, number: int, told: Told, best: float | None) -> None:
        """Replace what the sampler has learned of a trial."""
        if old := self._lessons.pop(number, None):
            self._ranked.pop(bisect_left(self._ranked, (_place(old), number)))
        trial, curve = self._open[number], self._curves.get(number, {})
        if trial is not None and told != "nothing":
            self._learn(number, told, best, curve, trial.params, trial.distributions)

    def _learn(
        self,
        number: int,
        told: Told,
        best: float | None,
        curve: Mapping[int, float],
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
    ) -> None:
        value, state = best if told == "value" else None, _TOLD[told]
        if self._space.sampler == "gp" and told in ("pruned", "worst"):
            value, state = self._as_value(told, curve), TrialState.COMPLETE
        if value is not None:
            self._least = min(self._least, value)
        lesson = create_trial(
            state=state,
            value=value,
            params=dict(params),
            distributions=dict(distributions),
            intermediate_values={} if told == "worst" else dict(curve),
        )
        own = self._open.get(number)
        lesson.number = own.number if own else number
        self._lessons[number] = lesson
        insort(self._ranked, (_place(lesson), number))

    def _shown(self) -> list[FrozenTrial]:
        """The best and the latest of the trials to learn from, and those that run and have taught nothing yet."""
        best = [number for _, number in self._ranked[:_BEST_SHOWN]]
        latest = islice(reversed(self._lessons), _LATEST_SHOWN)
        lessons = [self._lessons[number] for number in sorted({*best, *latest})]
        trials = [trial for number, trial in self._open.items() if trial and number not in self._lessons]
        return lessons + [self._storage.get_trial(trial._trial_id) for trial in trials]

    def _as_value(self, told: Told, curve: Mapping[int, float]) -> float:
        """The value of a trial without a final value, for a sampler that learns only from values."""
        least = self._least if math.isfinite(self._least) else 0.0
        return max(curve.values(), default=least) if told == "pruned" else least


def _place(trial: FrozenTrial) -> _Place:
    """Orders trials as TPE does, the best first: complete ones, then those that came furthest."""
    if trial.value is not None:
        return 0, -trial.value, 0.0
    if not trial.intermediate_values:
        return 2, 0.0, 0.0
    step, value = max(trial.intermediate_values.items())
    return 1, -step, -value
