"""When `--until-gain` ends simulated sweeps on FER-Curves, and what half as long again would have gained.

    python -m tests.benchmarks.search.until_gain [--sweeps 40] [--workers 1,4]

Sweeps run for three times T, in which random search trains 30 trials on one worker and 60 on 4. At each report the gain of
half as many trials again is estimated as in a real sweep. A sweep would stop when that is less than the points asked for.
What it would have gained in half as much time again is known, if it stops in the first 2 T.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np

from sweeps.search.expected_gain import LEAST_DONE, LEAST_TRIALS, gain_of_draws, gain_of_running
from sweeps.search.forecast import LEAST_EPOCHS, ends
from tests.benchmarks.curves.table import FER_CURVES, load
from tests.benchmarks.search.__main__ import budget
from tests.benchmarks.search.clock import Board, Sweep, board, simulate
from tests.benchmarks.search.methods import METHODS

POINTS = (1.0, 0.5, 0.2)
TIMES = 3
RUNGS = {"ours: qmc-tpe, promoting": (1, 4)}
"""After which epochs a trial waits and does not run."""


def gains(sweep: Sweep, table: Board, rungs: tuple[int, ...]) -> list[float]:
    """The expected gain after each report, in points; infinite before anything is said."""
    best: dict[int, float] = {}
    reached: dict[int, int] = {}
    complete: list[tuple[float, ...]] = []
    found = []
    for row, epoch, value in zip(sweep.configurations, sweep.epochs, sweep.values, strict=True):
        best[row], reached[row] = max(best.get(row, 0.0), value), epoch
        if epoch == table.epochs:
            complete.append(tuple(table.val[row].tolist()))
        if len(best) < LEAST_TRIALS or len(complete) < LEAST_DONE:
            found.append(np.inf)
            continue
        on = [one for one, t in reached.items() if LEAST_EPOCHS <= t < table.epochs and t not in rungs]
        on = [one for one in on if one not in sweep.pruned]
        samples = [
            ends(tuple(table.val[one, : reached[one]].tolist()), table.epochs, tuple(complete[-20:])) for one in on
        ]
        gain = gain_of_draws(list(best.values()), len(best) // 2) + gain_of_running(samples, max(best.values()))
        found.append(100 * gain)
    return found


def main() -> None:
    """Print one row per method, number of workers and points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=40)
    parser.add_argument("--workers", type=lambda text: [int(part) for part in text.split(",")], default=[1, 4])
    parser.add_argument("--only", default="", help="methods whose names have this")
    parser.add_argument("--table", type=Path, default=FER_CURVES)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    table = board(load(given.table))
    names = [name for name in ("ours: qmc-tpe, promoting", "ours: tpe, halving", "random") if given.only in name]
    for name in names:
        for workers in given.workers:
            until = budget(table, workers)
            found: defaultdict[float, list[tuple[float, float, float, float]]] = defaultdict(list)
            for seed in range(given.sweeps):
                sweep = simulate(METHODS[name](5_000 + seed, table.epochs), table, workers, TIMES * until)
                times, best = np.array(sweep.seconds), np.maximum.accumulate(sweep.values)
                gain = np.array(gains(sweep, table, RUNGS.get(name, ())))
                for points in POINTS:
                    stops = np.flatnonzero((gain < points) & (times < until * TIMES / 1.5))
                    if len(stops):
                        at = int(stops[0])
                        later = best[np.searchsorted(times, 1.5 * times[at]) - 1] - best[at]
                        begun = len(set(sweep.configurations[: at + 1]))
                        found[points].append((100 * later, times[at] / until, begun, 100 * (best[-1] - best[at])))
            for points in POINTS:
                rows = np.array(found[points]).reshape(-1, 4)
                print(
                    f"{name}, {workers} workers, {points:g} points: {len(rows)} of {given.sweeps} stopped, "
                    + _said(rows),
                    flush=True,
                )


def _said(rows: np.ndarray) -> str:
    if not len(rows):
        return "none"
    later, when, begun, end = rows.T
    return (
        f"after {np.median(when):.2f} T, {np.median(begun):.0f} trials (medians); half as long again gained mean {later.mean():.2f}, "
        f"median {np.median(later):.2f}, 90 % {np.quantile(later, 0.9):.2f}; until the end {end.mean():.2f}"
    )


if __name__ == "__main__":
    main()
