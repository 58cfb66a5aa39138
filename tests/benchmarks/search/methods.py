"""The methods that are compared, each through the public classes of its library."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import optuna

from sweeps.search.study import Study
from sweeps.space import Pruner, Rungs, Sampler
from tests.benchmarks.curves.space import SPACE, suggest
from tests.benchmarks.search.clock import Decision, End, Method
from tests.benchmarks.search.smac3 import SmacMethod
from tracking.record.events import OBJECTIVE, Event, TrialStarted


def parameters(trial: Any) -> dict[str, Any]:
    """Let the space draw from an Optuna trial, and return what was drawn."""
    suggest(trial)
    return dict(trial.params)


class OptunaMethod:
    """A study of Optuna as its documentation uses it: `should_prune` after each report."""

    def __init__(self, sampler: optuna.samplers.BaseSampler, pruner: optuna.pruners.BasePruner) -> None:
        self._study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        self._trials: dict[int, optuna.Trial] = {}

    def thaw(self) -> int | None:
        return None

    def propose(self, number: int) -> Mapping[str, Any] | None:
        self._trials[number] = self._study.ask()
        return parameters(self._trials[number])

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> Decision:
        self._trials[number].report(metrics[OBJECTIVE], epoch)
        return "stop" if self._trials[number].should_prune() else "go"

    def ended(self, number: int, curve: list[float], state: End) -> None:
        trial = self._trials.pop(number)
        if state == "done":
            self._study.tell(trial, max(curve))
        else:
            failed = optuna.trial.TrialState.FAIL
            self._study.tell(trial, state=failed if state == "failed" else optuna.trial.TrialState.PRUNED)


class RayMethod:
    """Ray's ASHAScheduler and OptunaSearch, at their defaults but for the length of a trial, as Tune calls them."""

    def __init__(self, seed: int, epochs: int) -> None:
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        self._search = OptunaSearch(space=lambda trial: suggest(trial) and None, metric="value", mode="max", seed=seed)
        self._scheduler = ASHAScheduler(metric="value", mode="max", max_t=epochs)
        self._result: dict[int, dict[str, Any]] = {}

    def thaw(self) -> int | None:
        return None

    def propose(self, number: int) -> Mapping[str, Any] | None:
        found = self._search.suggest(str(number))
        self._scheduler.on_trial_add(None, SimpleNamespace(trial_id=str(number)))
        assert found is not None
        return _flat(found)

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> Decision:
        result = {"training_iteration": epoch, "value": metrics[OBJECTIVE]}
        self._result[number] = result
        self._search.on_trial_result(str(number), result)
        action = self._scheduler.on_trial_result(None, SimpleNamespace(trial_id=str(number)), result)
        return "stop" if action == "STOP" else "go"

    def ended(self, number: int, curve: list[float], state: End) -> None:
        self._search.on_trial_complete(
            str(number), self._result.pop(number, None) if curve else None, state == "failed"
        )


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= _flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {prefix + name: value}
    return flat


class OneEpoch:
    """i-Epoch (Egele et al., 2307.15422) over random draws: `batch` trials train for one epoch, then the best `keep` of
    them to their end; then the next batch. Workers that wait for the last of a batch start the next one."""

    def __init__(self, seed: int, batch: int = 50, keep: int = 3) -> None:
        self._draws = OptunaMethod(optuna.samplers.RandomSampler(seed=seed), optuna.pruners.NopPruner())
        self._batch, self._keep = batch, keep
        self._firsts: dict[int, dict[int, float | None]] = {}
        self._ready: list[int] = []

    def thaw(self) -> int | None:
        return self._ready.pop(0) if self._ready else None

    def propose(self, number: int) -> Mapping[str, Any] | None:
        return self._draws.propose(number)

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> Decision:
        if epoch > 1:
            return "go"
        self._first(number, metrics[OBJECTIVE])
        return "pause"

    def ended(self, number: int, curve: list[float], state: End) -> None:
        if not curve:
            self._first(number, None)

    def _first(self, number: int, value: float | None) -> None:
        firsts = self._firsts.setdefault(number // self._batch, {})
        firsts[number] = value
        if len(firsts) == self._batch:
            scored = [one for one in firsts if firsts[one] is not None]
            self._ready += sorted(scored, key=lambda one: -(firsts[one] or 0))[: self._keep]


class OurMethod:
    """This project's study, as the director asks it."""

    def __init__(
        self,
        seed: int,
        epochs: int,
        sampler: Sampler = "tpe",
        pruner: Pruner = "halving",
        events: Iterable[Event] = (),
        priors: Mapping[str, Any] = MappingProxyType({}),
        rungs: Rungs = "all",
        **more: Any,
    ) -> None:
        self._epochs = epochs
        self._folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        space = replace(SPACE, sampler=sampler, pruner=pruner, priors=priors, rungs=rungs, **more)
        self._study = Study(Path(self._folder.name) / "study.log", space, seed, events)

    def thaw(self) -> int | None:
        number = next(iter(self._study.promotable(0)), None)
        if number is not None:
            self._study.leave_rung(number)
        return number

    def propose(self, number: int) -> Mapping[str, Any] | None:
        proposal = self._study.propose(number)
        assert proposal.config
        net = {"name": proposal.config.net.name}
        self._study.enter(TrialStarted(trial=number, config_id="", config={"net": net}, seed=0, epochs=self._epochs))
        return proposal.params

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> Decision:
        if self._study.take(number, epoch, metrics):
            return "stop"
        if epoch < self._epochs and self._study.is_at_rung(number):
            self._study.wait(number)
            return "pause"
        return "go"

    def ended(self, number: int, curve: list[float], state: End) -> None:
        told = self._study.lesson(number, state, unfit=state == "failed")
        self._study.finish(number, told, max(curve, default=None))


def _optuna(
    pruner: Callable[[int], optuna.pruners.BasePruner], sampler: str = "TPESampler"
) -> Callable[[int, int], Method]:
    return lambda seed, epochs: OptunaMethod(getattr(optuna.samplers, sampler)(seed=seed), pruner(epochs))


METHODS: dict[str, Callable[[int, int], Method]] = {
    "random": _optuna(lambda _: optuna.pruners.NopPruner(), "RandomSampler"),
    "one epoch (i-Epoch)": lambda seed, _: OneEpoch(seed),
    "Ray ASHA + OptunaSearch": RayMethod,
    "Optuna TPE, no pruner": _optuna(lambda _: optuna.pruners.NopPruner()),
    "Optuna TPE, median": _optuna(lambda _: optuna.pruners.MedianPruner()),
    "Optuna TPE, percentile 25": _optuna(lambda _: optuna.pruners.PercentilePruner(25.0)),
    "Optuna TPE, SuccessiveHalving": _optuna(lambda _: optuna.pruners.SuccessiveHalvingPruner()),
    "Optuna TPE, Hyperband": _optuna(lambda epochs: optuna.pruners.HyperbandPruner(max_resource=epochs)),
    "SMAC3, multi-fidelity": SmacMethod,
    "SMAC3, multi-fidelity, 30 random first": partial(SmacMethod, first=30),
    "ours: tpe, halving": OurMethod,
    "ours: random, halving": lambda seed, epochs: OurMethod(seed, epochs, "random"),
    "ours: qmc, one-epoch": lambda seed, epochs: OurMethod(seed, epochs, "qmc", "one-epoch"),
    "ours: tpe, one-epoch": lambda seed, epochs: OurMethod(seed, epochs, "tpe", "one-epoch"),
    "ours: qmc-tpe, promoting": lambda seed, epochs: OurMethod(seed, epochs, "qmc-tpe", "promoting"),
    "ours: qmc-tpe, promoting, within the net": lambda seed, epochs: OurMethod(
        seed, epochs, "qmc-tpe", "promoting", rungs="net"
    ),
    "ours: tpe, promoting": lambda seed, epochs: OurMethod(seed, epochs, "tpe", "promoting"),
    "ours: qmc, promoting": lambda seed, epochs: OurMethod(seed, epochs, "qmc", "promoting"),
    **{
        f"ours: {sampler}, promoting, by accuracy": partial(
            OurMethod, sampler=sampler, pruner="promoting", loss_epochs=0, later_factor=4
        )
        for sampler in ("qmc-tpe", "tpe", "qmc")
    },
    **{
        f"ours: {sampler}, promoting, from epoch 2": partial(
            OurMethod, sampler=sampler, pruner="promoting", first_rung_epochs=2, loss_epochs=0, later_factor=4
        )
        for sampler in ("qmc-tpe", "qmc")
    },
    "ours: tpe, hyperband": lambda seed, epochs: OurMethod(seed, epochs, "tpe", "hyperband"),
    "ours: tpe, median": lambda seed, epochs: OurMethod(seed, epochs, "tpe", "median"),
}
"""Name -> maker of the method from a seed and the length of a trial."""

DEFAULT = "ours: qmc-tpe, promoting"

HEADLINE = (
    "random",
    "one epoch (i-Epoch)",
    "Ray ASHA + OptunaSearch",
    "Optuna TPE, no pruner",
    "Optuna TPE, median",
    "Optuna TPE, SuccessiveHalving",
    "Optuna TPE, Hyperband",
    DEFAULT,
    "ours: qmc, promoting",
)
"""The default, its first stage alone, and what is in use elsewhere."""


def chosen(texts: Sequence[str]) -> list[str]:
    """The methods with one of these names; of a text that is no name, those that have it. By default the headline's."""
    names = [name for text in texts for name in METHODS if name == text or (text not in METHODS and text in name)]
    return list(dict.fromkeys(names)) if texts else list(HEADLINE)
