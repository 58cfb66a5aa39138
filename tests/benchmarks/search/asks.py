"""What a proposal costs in a sweep of many trials, beside Optuna's TPE in memory with the same trials.

    python -m tests.benchmarks.search.asks [--trials 10000] [--asks 40] [--busy 2]

The methods take turns, so that each meets the same load. `--busy` adds processes that only compute. Of a journal of
simulated trials ours is rebuilt as for a resume, and Optuna gets the same trials as its own.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import Process
from pathlib import Path

import numpy as np
import optuna

from sweeps.search.proposals import drawn_parameters
from sweeps.search.study import Study
from sweeps.space import Sampler, Space
from tests.benchmarks.curves.space import SPACE as WIDE
from tests.benchmarks.many_trials import many_trials
from tests.benchmarks.simulated import SPACE
from tracking.record.events import OBJECTIVE, Event, TrialEnded, TrialStarted
from tracking.record.journal import read

Ask = Callable[[], object]


def ours(space: Space, sampler: Sampler, events: Sequence[Event], folder: Path) -> Ask:
    """One proposal of a sweep; the trial then counts as failed, so that all asks read equally many."""
    study = Study(folder / f"{sampler}.log", replace(space, sampler=sampler), 0, events)
    numbers = iter(range(sum(isinstance(one, TrialStarted) for one in events), 10**9))

    def ask() -> None:
        number = next(numbers)
        study.propose(number)
        study.finish(number, "nothing")

    return ask


def optunas(space: Space, sampler: optuna.samplers.BaseSampler, events: Sequence[Event]) -> Ask:
    """One trial of a study in memory, all of whose parameters are asked for."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    ended = {one.trial: one.best.get(f"best_{OBJECTIVE}") for one in events if isinstance(one, TrialEnded)}
    drawn = [one for one in events if isinstance(one, TrialStarted) and ended.get(one.trial) is not None]
    study.add_trials(
        [
            optuna.trial.create_trial(
                params=dict(one.params), distributions=drawn_parameters([one]), value=ended[one.trial]
            )
            for one in drawn
        ]
    )

    def ask() -> None:
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)

    return ask


def measure(asks: dict[str, Ask], rounds: int) -> dict[str, np.ndarray]:
    """Name -> [rounds, 2] seconds of wall and of processor time, after two rounds that are not counted."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in asks}
    for _ in range(rounds + 2):
        for name, ask in asks.items():
            wall, own = time.perf_counter(), time.process_time()
            ask()
            found[name].append((time.perf_counter() - wall, time.process_time() - own))
    return {name: np.array(turns[2:]) for name, turns in found.items()}


def main() -> None:
    """Print one table per space."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--asks", type=int, default=40, help="per method")
    parser.add_argument("--busy", type=int, default=0, help="processes that compute meanwhile")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for title, space in (("5 parameters", SPACE), ("14 of 15 parameters", WIDE)):
        with tempfile.TemporaryDirectory() as folder:
            events = list(read(many_trials(Path(folder), given.trials, space=space).journal))
            asks = {
                "ours, a TPE proposal": ours(space, "tpe", events, Path(folder)),
                "ours, default: one in 4 by TPE": ours(space, "qmc-tpe", events, Path(folder)),
                "Optuna, joint model as ours": optunas(
                    space, optuna.samplers.TPESampler(seed=0, multivariate=True, group=True), events
                ),
                "Optuna, its default": optunas(space, optuna.samplers.TPESampler(seed=0), events),
            }
            busy = [Process(target=_compute, daemon=True) for _ in range(given.busy)]
            for process in busy:
                process.start()
            found = measure(asks, given.asks)
            for process in busy:
                process.terminate()
        print(f"\n{title}, {given.trials:,} trials, {given.busy} busy processes beside, n = {given.asks}")
        print(f"{'':34}{'wall, ms: median (10th to 90th percentile)':>44}{'mean processor, ms':>20}{'ratio':>7}")
        peer = found["Optuna, its default"][:, 1].mean()
        for name, turns in found.items():
            wall, own = 1e3 * turns[:, 0], 1e3 * turns[:, 1].mean()
            low, middle, high = np.percentile(wall, [10, 50, 90])
            text = f"{middle:.1f} ({low:.1f} to {high:.1f})"
            print(f"{name:34}{text:>44}{own:>20.1f}{own / 1e3 / peer:>7.3f}")


def _compute() -> None:
    while True:
        sum(range(10_000))


if __name__ == "__main__":
    main()
