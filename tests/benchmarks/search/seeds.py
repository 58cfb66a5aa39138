"""Recorded curves with further seeds: a sweep can then train near a good configuration more than once.

The table has two further seeds of 50 configurations. They are used first. All others are a recorded curve, of those 50 the
mean of its three, shifted by one random number per seed: as much as two recorded seeds differ.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.benchmarks.curves.table import Curves
from tests.benchmarks.search.clock import Board, Floats

_LEARNS = 0.27
"""Val accuracy above which a net no longer predicts one class for all faces; below it seeds do not differ."""


def with_seeds(table: Board, curves: Curves, seeds: int) -> Board:
    """The board with every configuration `seeds` times; the recorded run is the nearest of them, and taken first."""
    deviation, slope = _spread(curves)
    generator = np.random.default_rng(0)
    copies = [table]
    for repeat in range(1, seeds):
        val, loss, held_out = table.val.copy(), table.val_loss.copy(), table.held_out.copy()
        for row, run in enumerate(table.runs):
            runs = np.flatnonzero(curves.numbers == curves.numbers[run])
            recorded = runs[curves.repeats[runs] == repeat]
            some = recorded if len(recorded) else runs
            val[row], loss[row], held_out[row] = (
                _mean(curves.series[name][some]) for name in ("val_accuracy", "val_loss", "held_out_accuracy")
            )
            if not len(recorded):
                shift = np.where(val[row] > _LEARNS, generator.normal(0, deviation), 0)
                val[row] += shift
                held_out[row] += shift
                loss[row] += slope * shift
        copies.append(replace(table, val=val, val_loss=loss, held_out=held_out))
    names = ("val", "val_loss", "held_out", "seconds", "parameters", "points", "runs")
    return replace(table, **{name: np.concatenate([getattr(copy, name) for copy in copies]) for name in names})


def _mean(series: Floats) -> Floats:
    """[runs, e] to [e]; NaN where every run had diverged."""
    present = ~np.isnan(series)
    return np.where(present.any(0), np.where(present, series, 0).sum(0) / np.maximum(present.sum(0), 1), np.nan)


def _spread(curves: Curves) -> tuple[float, float]:
    """The standard deviation of the final val accuracy between seeds, and how much val loss changes with it.

    From the two further seeds: the first run was selected for its accuracy.
    """
    pairs = []
    for number in np.unique(curves.numbers[curves.repeats > 0]):
        of = curves.numbers == number
        one, other = (int(np.flatnonzero(of & (curves.repeats == repeat))[0]) for repeat in (1, 2))
        accuracy, loss = (curves.series[name][[one, other], -1] for name in ("val_accuracy", "val_loss"))
        if (accuracy > _LEARNS).all():
            pairs.append((accuracy[0] - accuracy[1], loss[0] - loss[1]))
    differences = np.array(pairs)
    deviation = np.sqrt((differences[:, 0] ** 2).mean() / 2)
    return float(deviation), float((differences.prod(1)).sum() / (differences[:, 0] ** 2).sum())
