"""A sweep's Optuna study: proposes configurations and decides which trials to prune.

The study is rebuilt from the journal whenever a sweep continues, so it cannot be damaged or out of date. Trial numbers
are those of the journal. `study.log` is for the sampler and optuna-dashboard; the pruner keeps its rungs in memory.

The sampler learns only from trials that it drew. Baselines are compared at the pruner's rungs, but their settings are
not points of the search space, so the sampler must not count them among the best trials.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeps.errors import InputError
from sweeps.search.asha import Promoting, one_net
from sweeps.search.asked_trial import AskedTrial
from sweeps.search.drawn_as import as_redrawn, lesson_as_redrawn
from sweeps.search.groups import Groups
from sweeps.search.lessons import AS_IT_ENDED, STATES, Lessons
from sweeps.search.proposals import Proposal, Proposals, drawn_parameters
from sweeps.search.pruners import make_pruner
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
from tracking.record.history import last_redrawn
from tracking.record.objectives import Costs, costs_in, costs_of, value_at_rung

_TPE_NOTE = "tpe:relative_params:0"
"""Attribute in which TPE stores values of all known parameters, whether `suggest` uses them or not."""


class Study:
    """Combines the sampler and the pruner. Trials have the journal's numbers. Not thread-safe."""

    def __init__(self, log: Path, space: Space, seed: int, events: Iterable[Event] = ()) -> None:
        """Build the study at `log` from the journal's events, replacing an existing one."""
        self._space = space
        self._seed = seed
        self._open: dict[int, optuna.Trial | None] = {}  # None for a baseline
        self._whole: set[frozenset[str]] = set()  # parameter names of each successful draw
        self._curves: defaultdict[int, dict[int, float]] = defaultdict(dict)
        self._costs: defaultdict[int, dict[int, Costs]] = defaultdict(dict)  # by epoch
        self._owed: dict[int, str] = {}
        self._lessons = Lessons(only_values=space.sampler in ("gp", "nsgaii") or len(space.objectives) > 1)
        self._groups = Groups(self._close)
        self._proposals = Proposals(space, seed)
        self._nets: dict[int, str] = {}
        self._epochs: dict[int, int] = {}
        net_of = self._nets.__getitem__ if space.rungs == "net" else one_net
        events = list(events)
        self._pruner = make_pruner(
            space.pruner, _as_begun(space, events), derive_seed(seed, "pruner"), net_of, self._epochs.__getitem__
        )
        self._rungs = self._pruner if isinstance(self._pruner, Promoting) else None
        log.unlink(missing_ok=True)
        self._storage = SweepStorage(OwnLog(log), self._shown)
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=space.name,
            directions=[StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * (len(space.objectives) - 1)],
            sampler=optuna.samplers.RandomSampler(seed=seed % 2**32),
            pruner=optuna.pruners.NopPruner(),
        )
        self._redrawn = last_redrawn(events)
        for event in events:
            self._replay(event)

    def _replay(self, event: Event) -> None:
        match event:
            case SweepStarted():
                self._start_from(event)
            case TrialStarted(baseline=None) if event.params or not (event.wanted or event.is_further_member):
                self.enter(event)
                started = as_redrawn(event, self._redrawn)
                self._proposals.count(started or event)
                if started:
                    self.add_drawn(started)
                else:
                    self.add_undrawn(event.trial)
            case TrialStarted():
                self.enter(event)
                self.add_undrawn(event.trial)
            case EpochDone():
                reason = self.take(event.trial, event.epoch, event.metrics)
                self._owed.pop(event.trial, None)
                if reason:
                    self._owed[event.trial] = reason
            case TrialPaused(reason="rung"):
                self.wait(event.trial)
            case AttemptStarted():
                self.leave_rung(event.trial)
            case TrialPaused():
                self.hold(event.trial)
            case TrialUnpaused():
                self.promote(event.trial)
            case Act():
                for change in event.lengthened:
                    self.lengthen(change)
            case Verdict():
                self.finish(event.trial, AS_IT_ENDED[event.state])
            case TrialEnded(final=True):
                # Journals of format 1 do not record what the sampler learned: the current rule applies.
                told = event.told or self.lesson(event.trial, event.state, unfit=event.diverged)
                if event.drops_out:
                    self.drop_out(event.trial)
                self.finish(event.trial, told, event.best.get(f"best_{OBJECTIVE}"), event.best)

    def _start_from(self, sweep: SweepStarted) -> None:
        """Learn from trials of other sweeps. They have numbers below 0, as they are older than all others.

        The space may have been edited since; parameters keep one kind and one set of choices within a study.
        """
        lessons = [lesson_as_redrawn(self._space, recorded, self._seed) for recorded in sweep.lessons]
        self._proposals.start_from(sweep, sum(lesson is not None for lesson in lessons))
        for number, lesson in enumerate(lessons, start=-len(lessons)):
            if lesson:
                drawn = {name: json_to_distribution(text) for name, text in lesson.distributions.items()}
                self._lessons.learn(number, lesson.told, lesson.value, lesson.curve, lesson.params, drawn)

    def propose(self, number: int) -> Proposal:
        """Draw the configuration of trial `number`; random numbers depend only on the seed and the number.

        If `suggest` fails, the proposal has no configuration; the next number is another draw.
        """
        self._groups.close_begun()  # earlier groups that were pruned before they were complete
        trial = self._proposals.ask(self._study, number, self._groups.further, self._lessons.firsts)
        config, fault = None, None
        try:
            config = self._space.draw(AskedTrial(trial, self._proposals.known))
        except InputError as error:
            fault = str(error)
        self._enter(number, trial, whole=config is not None)
        # While it runs, TPE would also use parameters that it does not have, which no journal records.
        self._storage.set_trial_system_attr(trial._trial_id, _TPE_NOTE, "")
        distributions = {name: distribution_to_json(dist) for name, dist in trial.distributions.items()}
        return Proposal(config, dict(trial.params), distributions, fault)

    def _enter(self, number: int, trial: optuna.Trial, *, whole: bool) -> None:
        self._open[number] = trial
        if whole:
            self._whole.add(frozenset(trial.distributions))

    def add_drawn(self, started: TrialStarted) -> None:
        """Add a trial with the values from which it was drawn."""
        distributions = drawn_parameters([started])
        self._proposals.known |= distributions | self._proposals.known
        self._study.enqueue_trial(started.params)
        self._enter(started.trial, self._study.ask(fixed_distributions=distributions), whole=bool(started.config))

    def enter(self, started: TrialStarted) -> None:
        """Register a trial's net, length and group; to be called before the trial is added."""
        self._nets[started.trial], self._epochs[started.trial] = started.net, started.epochs
        self._groups.enter(started)

    def add_undrawn(self, number: int) -> None:
        """Add a baseline, or a trial that the space cannot draw. The pruner compares its values, the sampler ignores
        it.

        In `study.log` it is a failed trial from the start, so that the numbers there are those of the journal.
        """
        self._study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs={"baseline": True}))
        self._open[number] = None

    def take(self, number: int, epoch: int, metrics: Mapping[str, float]) -> str | None:
        """Add an epoch's metrics. Returns the reason to prune the trial, or None."""
        costs = costs_in(metrics, self._space.objectives)
        at_rung = value_at_rung(epoch, metrics, self._space.compared_by_loss)
        return self.report(number, epoch, metrics[OBJECTIVE], costs, at_rung)

    def report(
        self, number: int, epoch: int, value: float, costs: Costs = (), at_rung: float | None = None
    ) -> str | None:
        """Add an epoch's value and costs, and what is compared at a rung if that is not the value; as `take`."""
        if number not in self._open:
            return None  # already pruned; the report was sent before the verdict arrived
        if not self._groups.competes(number):
            return None
        self._curves[number][epoch] = value
        self._costs[number][epoch] = costs
        competes = value if at_rung is None else at_rung
        reason = self._pruner.report(number, epoch, competes, costs_of(self._costs[number].values()))
        if self.is_at_rung(number):
            self._teach(number, "pruned", None)  # most trials end here, and many wait long
        return reason

    def is_at_rung(self, number: int) -> bool:
        """Whether the trial is to wait now, until it is promoted."""
        return self._rungs is not None and self._rungs.is_at_rung(number)

    def wait(self, number: int) -> None:
        """Let a trial that is at a rung wait."""
        if self._rungs is not None:
            self._rungs.wait(number)

    def hold(self, number: int) -> None:
        """Exclude a waiting trial from promotion until it waits again, because a person paused it."""
        if self._rungs is not None:
            self._rungs.hold(number)

    def promote(self, number: int) -> None:
        """Continue a trial at its rung: it keeps its worker as the next one, or it waits and a person asked for it."""
        if self._rungs is not None:
            self._rungs.promote(number)

    def leave_rung(self, number: int) -> None:
        """End the waiting of a trial that continues or that is decided elsewhere."""
        if self._rungs is not None:
            self._rungs.leave(number)

    def drop_out(self, number: int) -> None:
        """Remove a trial that ended without a result from all rungs, so that another is promoted instead.

        A group counts by its first member, and is removed with any of its members.
        """
        if self._rungs is not None:
            self._rungs.go_back(self._groups.first_of(number), 0)

    def promotable(self, settled: float) -> list[int]:
        """The waiting trials to continue now, in order; see `Promoting.promotable`."""
        return self._rungs.promotable(settled) if self._rungs is not None else []

    def lengthen(self, change: Lengthened) -> None:
        """Forget the pending verdict of a trial that gets more epochs, and the rungs that it reaches again.

        The sampler keeps what it learned from a trial that was done, or from its group.
        """
        self._owed.pop(change.trial, None)
        self._epochs[change.trial] = change.epochs
        if self._groups.lengthen(change.trial):
            self._open.setdefault(change.trial, None)  # a further member is closed at its end, the first with its group
        if self._rungs is not None and change.trial in self._open:
            self._rungs.go_back(change.trial, change.epoch)

    def rank(self, number: int) -> tuple[int, int]:
        """The rank of a waiting trial at its rung, and the number of trials that reached the rung."""
        assert self._rungs is not None
        return self._rungs.rank(number)

    def owed_verdict(self, number: int) -> str | None:
        """The pruner's reason after the last recorded epoch, if the driver died before it wrote the verdict."""
        return self._owed.get(number)

    def lesson(self, number: int, state: str, *, unfit: bool) -> Told:
        """What the sampler learns from a trial that ended in `state`; `unfit` means that its settings are the cause.

        An unfit trial is learned as the worst. Otherwise a region that always diverges would look unexplored, and the
        sampler would propose it more and more often. Nothing is learned from an incomplete draw: its missing
        parameters would split TPE's joint model permanently.
        """
        if number not in self._open:
            return AS_IT_ENDED[state]  # as learned with the verdict
        trial = self._open[number]
        if trial is None:
            return "value" if state == "done" and number in self._groups else "nothing"
        if unfit:
            return "worst" if frozenset(trial.distributions) in self._whole else "nothing"
        return AS_IT_ENDED[state]

    def finish(
        self, number: int, told: Told, best: float | None = None, results: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        """Close a trial, once, and let the sampler learn from it; `best` is its value.

        `results` has the results of its best epoch, with `best_` before each name; it has the costs of a trial without
        epochs.
        """
        if number not in self._open:
            return
        if results and number not in self._costs:
            metrics = {name.removeprefix("best_"): value for name, value in results.items()}
            self._costs[number][0] = costs_in(metrics, self._space.objectives)
        if number in self._groups:
            self._groups.end(number, told, best)
        else:
            self._close(number, told, best)

    def _close(self, number: int, told: Told, best: float | None) -> None:
        self.leave_rung(number)
        self._teach(number, told, best)
        trial, curve, costs = self._open.pop(number), self._curves.pop(number, {}), self._costs_of(number)
        self._costs.pop(number, None)
        if trial is None:
            return
        is_known = told == "value" and best is not None and all(map(math.isfinite, (best, *costs)))
        if len(self._space.objectives) > 1:  # Optuna does not support intermediate values then
            state = TrialState.FAIL if told == "value" and not is_known else STATES[told]
            self._study.tell(trial, [best, *costs] if is_known and best is not None else None, state=state)
            return
        # TPE ranks pruned trials by their last epoch, those without epochs last.
        for epoch, accuracy in curve.items() if told != "worst" else ():
            trial.report(accuracy, epoch)
        self._study.tell(trial, best if told == "value" else None, state=STATES[told])

    def _teach(self, number: int, told: Told, best: float | None) -> None:
        """Replace what the sampler has learned from a trial."""
        self._lessons.forget(number)
        trial, curve = self._open[number], self._curves.get(number, {})
        if trial is not None and told != "nothing":
            drawn = trial.distributions
            costs = self._costs_of(number)
            self._lessons.learn(number, told, best, curve, trial.params, drawn, costs=costs, stored_as=trial.number)

    def _costs_of(self, number: int) -> Costs:
        epochs = self._costs.get(number)
        return costs_of(epochs.values()) if epochs else (math.nan,) * (len(self._space.objectives) - 1)

    def _shown(self) -> list[FrozenTrial]:
        """The trials to learn from, and running trials from which nothing was learned yet."""
        trials = [trial for number, trial in self._open.items() if trial and number not in self._lessons]
        return self._lessons.shown() + [self._storage.get_trial(trial._trial_id) for trial in trials]


def _as_begun(space: Space, events: Iterable[Event]) -> Space:
    """`space` with the epochs of the sweep's start: the pruner keeps its brackets if trials get more epochs."""
    started = next((event for event in events if isinstance(event, SweepStarted)), None)
    epochs = started.spec.get("max_epochs") if started else None
    return replace(space, max_epochs=epochs) if epochs else space
