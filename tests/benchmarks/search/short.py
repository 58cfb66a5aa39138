"""Sweeps as short as the live ones, simulated: ours and Ray's ASHA with OptunaSearch until either reaches the other's best.

    python -m tests.benchmarks.search.short [--repeats 60] [--epochs 50] [--only TEXT]

Both run on one worker for as long as `--epochs` epochs take on average. "Time" is the mean time to the best accuracy that
Ray's sweep of the same repeat ends with, ours divided by its own; a sweep that never reaches it counts with all its time.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.curves.table import FER_CURVES, load
from tests.benchmarks.search.clock import Board, Sweep, board, simulate
from tests.benchmarks.search.measures import interval
from tests.benchmarks.search.methods import METHODS, chosen

RAY = "Ray ASHA + OptunaSearch"
OURS = (
    "ours: qmc-tpe, promoting",
    "ours: qmc-tpe, promoting, by accuracy",
    "ours: qmc-tpe, promoting, from epoch 2",
)


def reached(sweep: Sweep, accuracy: float, limit: float) -> float:
    """Seconds until a sweep reached an accuracy; `limit` if it never did."""
    return next((at for at, value in zip(sweep.seconds, sweep.values, strict=True) if value >= accuracy), limit)


def sweeps(name: str, table: Board, until: float, repeats: int) -> list[Sweep]:
    """So many sweeps of a method on one worker, which differ in their seeds."""
    return [simulate(METHODS[name](5_000 + seed, table.epochs), table, 1, until) for seed in range(repeats)]


def row(name: str, ours: list[Sweep], rays: list[Sweep], until: float) -> str:
    """A method beside Ray's sweeps."""
    aims = [max(ray.values) for ray in rays]
    took = [reached(mine, aim, until) for mine, aim in zip(ours, aims, strict=True)]
    theirs = [reached(ray, aim, until) for ray, aim in zip(rays, aims, strict=True)]
    best = [100 * max(mine.values) for mine in ours]
    pairs: NDArray[np.float64] = np.array([took, theirs]).T
    ratios = [
        pairs[drawn].mean(axis=0) for drawn in np.random.default_rng(0).integers(0, len(pairs), (2000, len(pairs)))
    ]
    low, high = np.quantile([mine / ray for mine, ray in ratios], (0.025, 0.975))
    ahead, low_ahead, high_ahead = interval(np.mean, [mine - 100 * aim for mine, aim in zip(best, aims, strict=True)])
    return (
        f"{name:40} time {np.mean(took) / np.mean(theirs):.2f} ({low:.2f}–{high:.2f}), "
        f"not reached {np.mean([at >= until for at in took]):.0%}, best {np.mean(best):.1f} %, "
        f"{ahead:+.1f} ({low_ahead:+.1f} to {high_ahead:+.1f}) points"
    )


def main() -> None:
    """Print one row per method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument(
        "--only", action="append", default=[], help="the method of this name, or those that have it; repeatable"
    )
    parser.add_argument("--table", type=Path, default=FER_CURVES)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    table = board(load(given.table))
    until = given.epochs * float(table.seconds.mean())
    rays = sweeps(RAY, table, until, given.repeats)
    print(
        f"{given.repeats} pairs of {until:.0f} s; {RAY} ends at {100 * np.mean([max(one.values) for one in rays]):.1f} %"
    )
    for name in chosen(given.only) if given.only else OURS:
        print(row(name, sweeps(name, table, until, given.repeats), rays, until), flush=True)


if __name__ == "__main__":
    main()
