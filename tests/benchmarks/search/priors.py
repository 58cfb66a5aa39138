"""What priors gain where they are right, and cost where they are wrong, on FER-Curves.

    python -m tests.benchmarks.search.priors [--repeats 40] [--workers 1]

Each sweep runs until a val accuracy reaches the target of the other benchmark, or T is over. The right priors are the
medians of the ten best configurations for learning rate, weight decay and momentum; the wrong ones are at the ends of the
ranges that are farther from those.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

import numpy as np
from optuna.distributions import FloatDistribution

from sweeps.space import Pruner, Sampler
from tests.benchmarks.curves.table import FER_CURVES, load
from tests.benchmarks.search.__main__ import budget, target
from tests.benchmarks.search.clock import board, simulate
from tests.benchmarks.search.measures import interval
from tests.benchmarks.search.methods import OurMethod

NAMES = ("lr", "weight_decay", "momentum")
BEST = 10
METHODS: tuple[tuple[Sampler, Pruner], ...] = (("tpe", "halving"), ("qmc-tpe", "promoting"))


def main() -> None:
    """Print one row per method and kind of prior."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--table", type=Path, default=FER_CURVES)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    curves = load(given.table)
    table = board(curves)
    best = np.argsort(-np.nanmax(table.val, axis=1, initial=0.0))[:BEST]
    right = {name: float(np.median([curves.params[table.runs[one]][name] for one in best])) for name in NAMES}
    wrong = {name: _farther_end(table.space[name], value) for name, value in right.items()}
    until, aim = budget(table, given.workers), target(table, given.workers, 200)
    print(f"right {right}, wrong {wrong}; target {aim:.2%}, T {until:.0f} s, {given.workers} workers", flush=True)
    for sampler, pruner in METHODS:
        alone: list[float] = []
        for kind, priors in (("none", {}), ("right", right), ("wrong", wrong)):
            shares = []
            for seed in range(given.repeats):
                method = OurMethod(2_000 + seed, table.epochs, sampler, pruner, priors=priors)
                sweep = simulate(method, table, given.workers, until, aim)
                reached = bool(sweep.values) and max(sweep.values) >= aim
                shares.append(sweep.seconds[-1] / until if reached else 1.0)
            alone = alone or shares
            mean, low, high = interval(np.mean, shares)
            gap, least, most = interval(np.mean, [one - other for one, other in zip(shares, alone, strict=True)])
            print(
                f"{sampler}, {pruner}: {kind:5} priors: {mean:.2f} T ({low:.2f} to {high:.2f}), "
                f"to none {gap:+.2f} ({least:+.2f} to {most:+.2f})",
                flush=True,
            )


def _farther_end(distribution: object, value: float) -> float:
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    middle = (low * high) ** 0.5 if distribution.log else (low + high) / 2
    return low if value > middle else high


if __name__ == "__main__":
    main()
