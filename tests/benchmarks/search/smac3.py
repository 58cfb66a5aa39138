"""SMAC3's multi-fidelity facade, asked and told by the simulated clock: `pip install smac`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from tests.benchmarks.curves.space import distributions
from tests.benchmarks.search.clock import Decision, End
from tracking.record.events import OBJECTIVE

_MOST_RUNS = 100_000
_WORST = 1.0
"""Cost of a run that diverged; cost is 1 - accuracy."""


class SmacMethod:
    """SMAC3 (Lindauer et al., 2109.09831) at its defaults: a random forest, and Hyperband with a third that continue.

    A configuration that SMAC3 asks for again with more epochs continues its run. SMAC3 itself would train it from the start.

    Parameters
    ----------
    first
        Number of random configurations before the forest proposes; without it SMAC3's own number, 10 per parameter.
    """

    def __init__(self, seed: int, epochs: int, first: int | None = None) -> None:
        from smac import MultiFidelityFacade, Scenario

        self._folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        scenario = Scenario(
            _space(distributions(), seed),
            output_directory=Path(self._folder.name),
            deterministic=True,
            n_trials=_MOST_RUNS,
            min_budget=1,
            max_budget=epochs,
            seed=seed,
        )
        self._smac = MultiFidelityFacade(
            scenario,
            lambda config, seed, budget: 0.0,  # never called: `ask` and `tell` are
            initial_design=MultiFidelityFacade.get_initial_design(scenario, n_configs=first),
            logging_level=False,
            overwrite=True,
        )
        self._asked: Any = None
        self._numbers: dict[Any, int] = {}
        self._running: dict[int, Any] = {}
        self._best: dict[int, float] = {}
        self._failed: set[int] = set()

    def thaw(self) -> int | None:
        while True:
            if self._asked is None:
                self._asked = self._smac.ask()
            number = self._numbers.get(self._asked.config)
            if number is None:
                return None
            self._running[number], self._asked = self._asked, None
            if number not in self._failed:
                return number
            self._tell(number, _WORST)

    def propose(self, number: int) -> Mapping[str, Any] | None:
        info, self._asked = self._asked, None
        self._numbers[info.config] = number
        self._running[number], self._best[number] = info, 0.0
        return {name: getattr(value, "item", lambda value=value: value)() for name, value in dict(info.config).items()}

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> Decision:
        self._best[number] = max(self._best[number], metrics[OBJECTIVE])
        if epoch < round(self._running[number].budget):
            return "go"
        self._tell(number, 1 - self._best[number])
        return "pause"

    def ended(self, number: int, curve: list[float], state: End) -> None:
        if number in self._running:
            self._failed.add(number)
            self._tell(number, _WORST)

    def _tell(self, number: int, cost: float) -> None:
        from smac.runhistory.dataclasses import TrialValue
        from smac.runhistory.enumerations import StatusType

        status = StatusType.CRASHED if number in self._failed else StatusType.SUCCESS
        self._smac.tell(self._running.pop(number), TrialValue(cost=cost, status=status), save=False)


def _space(parameters: Mapping[str, BaseDistribution], seed: int) -> Any:
    """The space as SMAC3 takes it: a parameter `NET.name` exists where `net` is that."""
    from ConfigSpace import Categorical, ConfigurationSpace, EqualsCondition, Float

    space = ConfigurationSpace(seed=seed)
    made = {}
    for name, distribution in parameters.items():
        if isinstance(distribution, CategoricalDistribution):
            made[name] = Categorical(name, list(distribution.choices))
        else:
            assert isinstance(distribution, FloatDistribution)
            made[name] = Float(name, (distribution.low, distribution.high), log=distribution.log)
    space.add(*made.values())
    space.add(*(EqualsCondition(made[name], made["net"], name.partition(".")[0]) for name in made if "." in name))
    return space
