"""What a set of simulated sweeps comes to: times to a target, regret, wrong prunings, with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.search.clock import Board, Sweep

RESAMPLES = 2000

GRID = np.linspace(0, 1, 101)
"""Where curves over time are kept, as shares of the time that all sweeps run."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """One sweep, measured against a target accuracy."""

    seconds: float
    """Until a trial's val accuracy reached the target; infinite where none did."""
    epochs: float
    best_val: float
    held_out: float
    """Accuracy on the held-out faces of the epoch with the best val accuracy."""
    wrong_prunings: int
    """Pruned trials that would have beaten the sweep's best."""
    pruned: int
    trials: int


def outcome(sweep: Sweep, table: Board, target: float, until: float) -> Outcome:
    """Measure a sweep up to `until` seconds."""
    count = int(np.searchsorted(sweep.seconds, until, side="right"))
    values = np.array(sweep.values[:count])
    reached = np.flatnonzero(np.array(sweep.values) >= target)
    first = int(reached[0]) if len(reached) else None
    best = int(values.argmax()) if count else None
    final = np.nanmax(table.val[sweep.pruned], axis=1) if sweep.pruned else np.array([])
    best_val = float(values.max()) if count else 0.0
    return Outcome(
        seconds=math.inf if first is None else sweep.seconds[first],
        epochs=math.inf if first is None else first + 1,
        best_val=best_val,
        held_out=0.0 if best is None else float(table.held_out[sweep.configurations[best], sweep.epochs[best] - 1]),
        wrong_prunings=int((final > best_val).sum()),
        pruned=len(sweep.pruned),
        trials=sweep.started,
    )


def best_so_far(sweep: Sweep, at: Floats) -> Floats:
    """The best val accuracy at each of these seconds; 0 before the first epoch ends."""
    best = np.concatenate(([0.0], np.maximum.accumulate(np.array(sweep.values or [0.0]))))
    return best[np.searchsorted(np.array(sweep.seconds), at, side="right")]


def interval(statistic: Callable[..., float], *samples: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """A statistic of independent samples, and its 95 % bootstrap interval."""
    arrays = [np.array(sample, dtype=float) for sample in samples]
    rng = np.random.default_rng(seed)
    drawn = [statistic(*(array[rng.integers(0, len(array), len(array))] for array in arrays)) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, (0.025, 0.975), method="nearest")
    return statistic(*arrays), float(low), float(high)
