"""Keeps the weights of a sweep's best trials and baselines, of its Pareto front, and of trials that other runs need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from fer_models import Recipe
from sweeps.run_kinds import Ensemble, kind_of
from sweeps.runs import open_sweep, sweep_names
from sweeps.trial.teachers import teachers_of
from tracking.errors import TrackingError
from tracking.metrics.front import pareto_front
from tracking.metrics.winner import winner_of
from tracking.record.cleaning import BestTrials, Removal, lasting, of_best_groups, removable, remove, states, weights
from tracking.record.events import Act, Event, TrialEnded
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.layout import WEIGHTS_NAME, SweepFolder

RUN_PREFIX = "run:"
"""Prefix that distinguishes a run's name from a path of weights."""

_SIGNS = (b'"ensemble"', WEIGHTS_NAME.encode(), RUN_PREFIX.encode(), b'"distill_sha256":[')
"""A journal that refers to another sweep's weights contains at least one of these."""


class KeptWeights:
    """Listens to a sweep, and deletes checkpoints that are no longer needed after a trial's end.

    A file is deleted after the journal has the trial's end. After a crash the next driver deletes it.
    `keep` is None for sweeps of earlier versions, which keep the weights of every trial.
    """

    def __init__(
        self, folder: SweepFolder, history: SweepHistory, keep: int | None, on_warning: Callable[[str], None]
    ) -> None:
        self._folder, self._history, self._on_warning = folder, history, on_warning
        self._best = BestTrials(keep) if keep is not None else None
        self._protected = self._of_sweep()
        over = [trial for trial in history.trials.values() if trial.is_over]
        for trial in over if self._best else ():
            self._best.add(trial)  # type: ignore[union-attr]
        if over:
            self._remove(removable(folder, history, keep, self._needed()))

    def __call__(self, event: Event, history: SweepHistory) -> None:
        """Handle an event of the director."""
        if isinstance(event, Act) and self._best:
            for change in event.lengthened:
                self._best.remove(change.trial)
        if not isinstance(event, TrialEnded) or not event.final:
            return
        trial = history.trials[event.trial]
        found = list(states(self._folder, trial)) if not trial.can_be_retried else []
        if self._best:
            before, self._protected = self._protected, self._of_sweep()
            fallen = {self._best.add(trial), *(before - self._protected)}
            for number in fallen:
                if number is not None and number not in self._best and history.trials[number].is_over:
                    found += self._unneeded(history.trials[number], self._best.keep)
        self._remove(found)

    def _unneeded(self, trial: TrialHistory, keep: int) -> list[Removal]:
        """The files of a trial that is not among the best."""
        found = list(lasting(self._folder, trial, keep))
        files = [] if trial.started.baseline else list(weights(self._folder, trial, keep))
        return found + (files if files and trial.number not in self._needed() else [])

    def _needed(self) -> set[int]:
        name = self._folder.root.name
        needed = {number for sweep, number in needed_weights(self._folder.root.parent) if sweep == name}
        if self._history.spec.get("prefer") and (winner := winner_of(self._folder, self._history)):
            needed |= {winner.best, *winner.ties}  # any of them may become the winner
        return needed | self._protected

    def _of_sweep(self) -> set[int]:
        """The trials that are on the Pareto front, or best by the rank of their groups."""
        best = of_best_groups(self._history, self._best.keep) if self._best else set()
        return best | on_front(self._history)

    def _remove(self, removals: list[Removal]) -> None:
        try:
            remove(removals)
        except TrackingError as error:
            self._on_warning(str(error))


def on_front(history: SweepHistory) -> set[int]:
    """The trials that are over and on the Pareto front. Empty for a sweep with one objective."""
    return {one.trial.number for one in pareto_front(history, over=True)}


def needed_weights(out: Path) -> dict[tuple[str, int], str]:
    """The trials in `out`, as (sweep, number), whose weights another run needs, and that run as text.

    Ensembles read the weights of their members for each prediction. An unfinished sweep may start further trials with
    the initial weights and teachers that it used so far.
    """
    needed: dict[tuple[str, int], str] = {}
    for name in sweep_names(out):
        with suppress(TrackingError, OSError):
            if not any(sign in SweepFolder(out / name).journal.read_bytes() for sign in _SIGNS):
                continue
            _, history = open_sweep(name, out)
            for reference in _members(history):
                needed[_sweep_and_number(reference)] = f"ensemble {name} uses it"
            for reference in () if history.finished else _starts(history):
                needed[_sweep_and_number(reference)] = f"sweep {name} needs it and is not finished"
    return needed


def _members(history: SweepHistory) -> Iterator[str]:
    for trial in history.trials.values():
        kind = kind_of(trial.started.config)
        yield from kind.members if isinstance(kind, Ensemble) else ()


def _starts(history: SweepHistory) -> Iterator[str]:
    """The runs, as NAME/NUMBER, whose weights a sweep's trials start from, or that are their teachers."""
    specs = [history.started.spec, *(driver.spec for driver in history.drivers)]
    for trial in history.trials.values():
        recipe = trial.started.config.get("recipe", {})
        if recipe.get("distill_sha256"):
            yield from (teacher.run for teacher in teachers_of(Recipe.model_validate(recipe)))
    used = [spec.get("settings", {}).get("transfer.weights") for spec in specs]
    used += [trial.started.config.get("transfer", {}).get("weights") for trial in history.trials.values()]
    for weights_of in {one for one in used if one}:
        path = Path(weights_of)
        if weights_of.startswith(RUN_PREFIX) and weights_of.rpartition("/")[2].isdecimal():
            yield weights_of.removeprefix(RUN_PREFIX)
        elif path.parts[-3:-2] == ("trials",) and path.parent.name.isdecimal() and len(path.parts) > 3:
            yield f"{path.parts[-4]}/{path.parent.name}"


def _sweep_and_number(reference: str) -> tuple[str, int]:
    name, _, number = reference.partition("/")
    return name, int(number)
