"""Rungs of promoting halving, compared on the recorded curves without a sampler: thousands of sweeps in minutes.

    python -m tests.benchmarks.search.rungs [--repeats 200] [--half 0|1]

Each sweep trains the configurations in a random order, the same for all rungs. `--half` takes one of two fixed halves of the
configurations: rungs are chosen on the one and shown on the other. "Best" is the mean of the best val accuracy at 13 times
from T/16 to T, evenly spread on a log scale; T is that of `tests.benchmarks.search`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.search.asha import Promoting
from sweeps.space import Space
from tests.benchmarks.curves.space import SPACE
from tests.benchmarks.curves.table import FER_CURVES, load
from tests.benchmarks.search.__main__ import budget
from tests.benchmarks.search.clock import Board, Decision, board, simulate
from tests.benchmarks.search.measures import best_so_far, interval
from tests.benchmarks.search.methods import End
from tracking.record.objectives import value_at_rung

_EARLIER = replace(SPACE, first_rung_epochs=2, later_factor=4, loss_epochs=0)
RUNGS: dict[str, Space] = {
    "none: random search": replace(SPACE, first_rung_epochs=10),
    "2, 8; one in 4; accuracy (earlier)": _EARLIER,
    "1, 4; one in 4; accuracy": replace(_EARLIER, first_rung_epochs=1),
    "1, 4; one in 4, then 2; accuracy": replace(SPACE, loss_epochs=0),
    "1, 4; one in 4; loss first": replace(SPACE, later_factor=4),
    "1, 4; one in 4, then 2; loss first (default)": SPACE,
    "1, 8; one in 8; loss first": replace(SPACE, reduction_factor=8),
}


class Drawn:
    """Random configurations of the table, paused and promoted at the rungs of a space."""

    def __init__(self, space: Space, params: list[Mapping[str, Any]], epochs: int) -> None:
        self._space, self._params, self._epochs = space, params, epochs
        self._rungs = Promoting(space.first_rung, space.kept_one_in, later_factor=space.later_kept_one_in)

    def thaw(self) -> int | None:
        number = next(iter(self._rungs.promotable(0)), None)
        if number is not None:
            self._rungs.leave(number)
        return number

    def propose(self, number: int) -> Mapping[str, Any] | None:
        return self._params[number]

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> Decision:
        if self._rungs.report(number, epoch, value_at_rung(epoch, metrics, self._space.compared_by_loss)):
            return "stop"
        if epoch == self._epochs or not self._rungs.is_at_rung(number):
            return "go"
        self._rungs.wait(number)
        return "pause"

    def ended(self, number: int, curve: list[float], state: End) -> None:
        if state == "failed":
            self._rungs.go_back(number, 0)


def half(table: Board, which: int) -> Board:
    """Every second configuration of a fixed random order."""
    return table.part(np.random.default_rng(7).permutation(len(table.val))[which::2])


def means(
    table: Board, params: list[Mapping[str, Any]], space: Space, workers: int, repeats: int
) -> NDArray[np.float64]:
    """The mean of the best val accuracy over time of each sweep, in percent."""
    until = budget(table, workers)
    found = []
    for seed in range(repeats):
        order = np.random.default_rng(seed).permutation(len(table.val))
        sweep = simulate(Drawn(space, [params[place] for place in order], table.epochs), table, workers, until)
        found.append(100 * best_so_far(sweep, until * np.geomspace(1 / 16, 1, 13)).mean())
    return np.array(found)


def main() -> None:
    """Print one row per number of workers and rungs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--half", type=int, choices=(0, 1))
    parser.add_argument("--table", type=Path, default=FER_CURVES)
    given = parser.parse_args()
    curves = load(given.table)
    table = board(curves) if given.half is None else half(board(curves), given.half)
    params: list[Mapping[str, Any]] = [curves.params[run] for run in table.runs]
    for workers in (1, 4, 16):
        earlier = means(table, params, _EARLIER, workers, given.repeats)
        for name, space in RUNGS.items():
            best = means(table, params, space, workers, given.repeats)
            more, low, high = interval(np.mean, (best - earlier).tolist())
            print(f"{workers:2} {name:46} {best.mean():.2f} %  {more:+.2f} ({low:+.2f} to {high:+.2f})", flush=True)


if __name__ == "__main__":
    main()
