"""How well the end of a trial is forecast from its first epochs, on FER-Curves.

    python -m tests.benchmarks.search.forecasts [--sweeps 40] [--method TEXT]

Whole sweeps are simulated for T on one worker. Whenever a trial reports its 2nd, 3rd or 4th epoch its end is forecast
from what the sweep has seen until then. Trials that are pruned or wait then are judged by their whole recorded curve. The
constants of the forecast were chosen on every second configuration; the others are judged. Beside it are the
last value (the best so far) and the mean gain of the sweep's complete trials, with its normal interval.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sweeps.search.forecast import ends
from tests.benchmarks.curves.table import FER_CURVES, load
from tests.benchmarks.search.__main__ import budget
from tests.benchmarks.search.clock import Board, Sweep, board, simulate
from tests.benchmarks.search.measures import interval
from tests.benchmarks.search.methods import METHODS

EPOCHS = (2, 3, 4)
_NORMAL_80 = 1.2816
Curve = tuple[float, ...]
Floats = NDArray[np.float64]


def moments(sweep: Sweep, table: Board) -> Iterator[tuple[int, Curve, tuple[Curve, ...]]]:
    """Configuration, curve so far and complete curves so far, at each report of one of the `EPOCHS`."""
    complete: list[Curve] = []
    for row, epoch in zip(sweep.configurations, sweep.epochs, strict=True):
        curve = tuple(table.val[row].tolist())
        if epoch in EPOCHS and row % 2 and not np.isnan(table.val[row]).any():
            yield row, curve[:epoch], tuple(complete[-20:])
        if epoch == table.epochs:
            complete.append(curve)


def methods(curve: Curve, epochs: int, complete: Sequence[Curve]) -> dict[str, tuple[float, float, float]]:
    """Low, middle and high of each way to forecast."""
    best, t = max(curve), len(curve)
    gains = np.array([max(other) - max(other[:t]) for other in complete] or [0.0])
    middle, half = best + gains.mean(), _NORMAL_80 * gains.std(ddof=1) if len(gains) > 1 else 0.0
    low, value, high = np.quantile(ends(curve, epochs, tuple(complete)), (0.1, 0.5, 0.9)).tolist()
    return {
        "last value": (best, best, best),
        "mean gain": (middle - half, middle, middle + half),
        "forecast": (low, value, high),
    }


def main() -> None:
    """Print one row per epoch, kind of trial and way to forecast."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=40)
    parser.add_argument("--method", default="ours: qmc-tpe, promoting", help="how the sweeps search")
    parser.add_argument("--table", type=Path, default=FER_CURVES)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    table = board(load(given.table))
    found: defaultdict[tuple[int, str, str], list[tuple[bool, float, float]]] = defaultdict(list)
    took = []
    for seed in range(given.sweeps):
        sweep = simulate(METHODS[given.method](3_000 + seed, table.epochs), table, 1, budget(table, 1))
        for row, curve, complete in moments(sweep, table):
            end, kind = float(table.val[row].max()), "learns" if max(curve) > 0.26 else "at chance"
            began = time.perf_counter()
            said = methods(curve, table.epochs, complete)
            took.append(time.perf_counter() - began)
            for name, (low, value, high) in said.items():
                held = low - 1e-9 <= end <= high + 1e-9
                found[len(curve), kind, name].append((held, 100 * abs(value - end), 100 * (high - low)))
    for (epoch, kind, name), rows in sorted(found.items()):
        held, error, width = np.array(rows).T
        print(
            f"{epoch} of {table.epochs}, {kind:9} {name:10} n {len(rows):4}: 80 % interval held "
            f"{_said(100 * held, 0)} %, error {_said(error, 2)} points, width {width.mean():.1f}",
            flush=True,
        )
    print(f"a forecast took {1e3 * np.median(took):.1f} ms (median), {1e3 * np.quantile(took, 0.95):.1f} (95 %)")


def _said(values: Floats, digits: int) -> str:
    mean, low, high = interval(np.mean, values.tolist())
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    main()
