"""The one Optuna study of a sweep: what to try next, and when to give a trial up.

Nothing lives here alone: the study is laid anew from the journal whenever a sweep goes on, so that a torn,
foreign or half-told study cannot exist, and trial numbers are the journal's. `study.log` is for the sampler and
optuna-dashboard; the pruner keeps its rungs in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.trial import TrialState

from sweeps.config import TrialConfig
from sweeps.halving import Halving
from sweeps.messages import OBJECTIVE
from sweeps.space import Space
from tracking.events import EpochDone, Event, TrialEnded, TrialStarted, Verdict

optuna.logging.set_verbosity(optuna.logging.WARNING)

_LEAST_TRIALS = 4
"""Fewer tell nothing of what matters."""

_TOLD = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any values that have a stable text; the same parts give the same seed everywhere."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def draw_at_random(space: Space, seed: int, count: int) -> list[TrialConfig]:
    """Configurations from anywhere in a space, for looking at it before a sweep."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed % 2**32))
    return [space.draw(study.ask()) for _ in range(count)]


@dataclass(frozen=True)
class Proposal:
    """A configuration and, for the study's rebuilding, the values and distributions it was drawn from."""

    config: TrialConfig
    params: dict[str, Any]
    distributions: dict[str, str]


class _OwnLog(BaseJournalBackend):
    """Writes what `JournalFileBackend` reads, for one storage that never reads another's.

    Without its lock and its fsync at each of an epoch's operations: one driver holds the sweep's folder, and what a
    crash tears is laid anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = 0
        self._unread: list[str] = []

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        with self._path.open("a") as file:
            file.writelines(line + "\n" for line in lines)
        self._written += len(lines)
        self._unread += lines

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        del self._unread[: log_number_from - self._written + len(self._unread)]
        yield from map(json.loads, self._unread)


class Study:
    """Asks the sampler and the pruner; knows trials by the journal's numbers. Not thread-safe."""

    def __init__(self, log: Path, space: Space, seed: int, history: Iterable[Event] = ()) -> None:
        """Lay the study at `log` from the journal's events, replacing what is there."""
        self._space = space
        self._seed = seed
        self._open: dict[int, optuna.Trial] = {}
        self._owed: dict[int, str] = {}
        self._halving = Halving(space.first_rung_epochs, space.reduction_factor)
        log.unlink(missing_ok=True)
        self._study = optuna.create_study(
            storage=JournalStorage(_OwnLog(log)),
            study_name=space.name,
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(seed=seed % 2**32),
            pruner=optuna.pruners.NopPruner(),
        )
        for event in history:
            self._replay(event)

    def _replay(self, event: Event) -> None:
        match event:
            case TrialStarted():
                distributions = {name: json_to_distribution(text) for name, text in event.distributions.items()}
                self._study.enqueue_trial(event.params)
                self._open[event.trial] = self._study.ask(fixed_distributions=distributions)
            case EpochDone():
                reason = self.report(event.trial, event.epoch, event.metrics[OBJECTIVE])
                self._owed.pop(event.trial, None)
                if reason:
                    self._owed[event.trial] = reason
            case Verdict():
                self.finish(event.trial, event.state, None)
            case TrialEnded(final=True):
                self.finish(event.trial, event.state, event.best.get(f"best_{OBJECTIVE}"))

    def propose(self, number: int) -> Proposal:
        """Draw trial `number`'s configuration; the sampler's randomness depends on the seed and the number alone."""
        with warnings.catch_warnings():
            # `group` is what keeps TPE's joint model usable beside conditional parameters and baselines.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = optuna.samplers.TPESampler(
                seed=derive_seed(self._seed, "sampler", number) % 2**32, multivariate=True, group=True
            )
        trial = self._study.ask()
        self._open[number] = trial
        config = self._space.draw(trial)
        distributions = {name: distribution_to_json(dist) for name, dist in trial.distributions.items()}
        return Proposal(config, dict(trial.params), distributions)

    def add_baseline(self, number: int, config: TrialConfig) -> Proposal:
        """Enter a baseline: its values compete at the pruner's rungs, its settings lie outside the sampler's space."""
        self._open[number] = self._study.ask(fixed_distributions={})
        return Proposal(config, {}, {})

    def report(self, number: int, epoch: int, value: float) -> str | None:
        """Enter an epoch's value; the reason to give the trial up, or None."""
        trial = self._open.get(number)
        if trial is None:
            return None  # given up already; a report that crossed the verdict
        trial.report(value, epoch)
        return self._halving.report(number, epoch, value)

    def owed_verdict(self, number: int) -> str | None:
        """The pruner's reason after the journal's last epoch, where the driver died before it wrote its verdict."""
        return self._owed.get(number)

    def finish(self, number: int, state: str, best: float | None) -> None:
        """Close a trial, once; failed and stopped ones teach the sampler nothing."""
        if trial := self._open.pop(number, None):
            told = _TOLD.get(state, TrialState.FAIL)
            self._study.tell(trial, best if told is TrialState.COMPLETE else None, state=told)


def importances(log: Path) -> dict[str, float]:
    """How much of the objective's spread among finished trials each setting explains (fANOVA), most first.

    Empty where there is no study, or too few trials to tell.
    """
    storage = JournalStorage(JournalFileBackend(str(log)))
    studies = optuna.get_all_study_names(storage) if log.exists() else []
    if not studies:
        return {}
    study = optuna.load_study(study_name=studies[0], storage=storage)
    if sum(bool(trial.params) for trial in study.get_trials(states=(TrialState.COMPLETE,))) < _LEAST_TRIALS:
        return {}
    with contextlib.suppress(ValueError, RuntimeError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(optuna.importance.get_param_importances(study))
    return {}
