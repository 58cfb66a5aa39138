"""What a sweep loses if each proposal is drawn when the trial before it starts, and not when its own slot is free.

    python -m tests.benchmarks.search.asked_ahead [--repeats 100] [--workers 4]

Such a proposal knows nothing of what is reported in between. Both kinds of sweeps have the default sampler and pruner, the
same seeds, and the T and the target of `tests.benchmarks.search`.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.curves.table import FER_CURVES, load
from tests.benchmarks.search.__main__ import budget, target
from tests.benchmarks.search.clock import board, simulate
from tests.benchmarks.search.measures import best_so_far, interval
from tests.benchmarks.search.methods import OurMethod

SHARES = (0.25, 0.5, 1.0)
"""Of T: when the best val accuracies are compared."""


class AskedInTurn(OurMethod):
    """The default sampler and pruner, and the seconds of the processor that its proposals took."""

    def __init__(self, seed: int, epochs: int) -> None:
        super().__init__(seed, epochs, "qmc-tpe", "promoting")
        self.took: list[float] = []

    def propose(self, number: int) -> Mapping[str, Any] | None:
        began = time.process_time()
        found = super().propose(number)
        self.took.append(time.process_time() - began)
        return found


class AskedAhead(AskedInTurn):
    """The same, with the next proposal drawn together with each one."""

    _next: Mapping[str, Any] | None = None

    def propose(self, number: int) -> Mapping[str, Any] | None:
        now = self._next or super().propose(number)
        self._next = super().propose(number + 1)
        return now


def main() -> None:
    """Print both kinds of sweeps, and their differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--table", type=Path, default=FER_CURVES)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    table = board(load(given.table))
    until, aim = budget(table, given.workers), target(table, given.workers)
    times: dict[str, list[float]] = {}
    bests: dict[str, list[list[float]]] = {}
    took: list[float] = []
    for name, make in (("in turn", AskedInTurn), ("ahead", AskedAhead)):
        times[name], bests[name] = [], []
        for seed in range(given.repeats):
            method = make(7_000 + seed, table.epochs)
            sweep = simulate(method, table, given.workers, until)
            reached = np.flatnonzero(np.array(sweep.values) >= aim)
            times[name].append(sweep.seconds[int(reached[0])] / until if len(reached) else 1.0)
            bests[name].append((100 * best_so_far(sweep, until * np.array(SHARES))).tolist())
            took += method.took
        print(f"{name}: {np.mean(times[name]):.3f} T, best {np.mean(bests[name], axis=0).round(2)} %", flush=True)
    print(
        f"ahead - in turn, n = {given.repeats}, {given.workers} workers: time {_gap(times['ahead'], times['in turn'])} T"
    )
    for place, share in enumerate(SHARES):
        ahead, in_turn = ([one[place] for one in bests[name]] for name in ("ahead", "in turn"))
        print(f"best at {share:g} T: {_gap(ahead, in_turn)} points")
    print(f"a proposal took {1e3 * np.median(took):.1f} ms of the processor (median), {1e3 * np.mean(took):.1f} (mean)")


def _gap(ones: list[float], others: list[float]) -> str:
    mean, low, high = interval(np.mean, (np.array(ones) - np.array(others)).tolist())
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


if __name__ == "__main__":
    main()
