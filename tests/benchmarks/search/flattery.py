"""How far the promised accuracy of a sweep's winner is from what it reaches on new faces, on FER-Curves.

    python -m tests.benchmarks.search.flattery [--sweeps 200] [--trials 30]

In each sweep the faces that every run was judged on are divided anew into val and new faces, trials are drawn at
random, each stands at its best epoch, and the best of them on val is chosen.

Then a baseline joins each sweep: a configuration of the best tenth of the table. A sweep chooses worse if the trial that
it takes is below the baseline on the new faces, and takes either the best on val, or that only where the baseline
counts as beaten.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.curves.table import FER_CURVES, load
from tracking.metrics.chosen import accuracy_when_chosen, can_win
from tracking.metrics.groups import difference_of_shares


@dataclass(frozen=True)
class Flattery:
    """Means over sweeps of accuracy said minus accuracy on new faces, and the share of intervals that hold.

    An interval holds where it and the interval of the accuracy on the new faces, which are as few, meet as two
    independent ones do in 95 % of cases: the difference is within the root of the sum of their squared halves.
    """

    naive: float
    promised: float
    covered: float
    worse: float
    """The share of sweeps that choose worse than the baseline, by val accuracy alone."""
    worse_if_beaten: float
    """The same, where the baseline is taken unless it counts as beaten."""


def flattery(sweeps: int, trials: int, table: Path = FER_CURVES) -> Flattery:
    """Simulate so many sweeps of so many trials."""
    curves = load(table)
    first, n = curves.firsts, curves.setting.val_faces
    faces = n + curves.setting.held_out_faces
    bits = np.unpackbits(curves.packed[first], axis=2, count=faces).astype(bool)
    known = np.nanmax(curves.series["val_accuracy"][first], axis=1, initial=0.0)
    strong = np.argsort(-known)[: len(first) // 10]
    found = []
    for sweep in range(sweeps):
        rng = np.random.default_rng(sweep)
        shuffled = rng.permutation(faces)
        val, new = shuffled[:n], shuffled[n:]
        drawn = rng.permutation(len(first))[:trials]
        answers = bits[drawn][:, :, val]
        accuracy = answers.mean(axis=2)
        epochs = accuracy.argmax(axis=1)
        reached = accuracy.max(axis=1)
        places = can_win(reached.tolist(), n)
        expected = accuracy_when_chosen([answers[place, epochs[place]] for place in places], seed=sweep)
        truth = float(bits[drawn[places[0]], epochs[places[0]], new].mean())
        half = math.hypot((expected.high - expected.low) / 2, 1.96 * math.sqrt(truth * (1 - truth) / len(new)))
        baseline = rng.choice(np.setdiff1d(strong, drawn))
        worse = _chooses_worse(bits[[*drawn, baseline]], val, new, seed=sweep)
        found.append((reached[places[0]] - truth, expected.value - truth, abs(expected.value - truth) <= half, *worse))
    return Flattery(*(float(mean) for mean in np.mean(found, axis=0)))


def _chooses_worse(bits: NDArray[np.bool_], val: NDArray[np.int64], new: NDArray[np.int64], seed: int) -> list[bool]:
    """Whether the best on val, and what the rule for baselines takes, is below the last run [runs, epochs, faces]."""
    accuracy = bits[:, :, val].mean(axis=2)
    at = [bits[run, epoch] for run, epoch in enumerate(accuracy.argmax(axis=1))]
    reached = [float(run[val].mean()) for run in at]
    places = can_win(reached, len(val))
    best, baseline = at[places[0]], at[-1]
    if best is baseline:
        return [False, False]
    flattered = reached[places[0]] - accuracy_when_chosen([at[place][val] for place in places], seed=seed).value
    is_beaten = difference_of_shares(best[val].astype(float), baseline[val].astype(float)).low - flattered > 0
    is_worse = bool(best[new].mean() < baseline[new].mean())
    return [is_worse, is_worse and is_beaten]


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sweeps", type=int, default=200)
    parser.add_argument("--trials", type=int, default=30)
    given = parser.parse_args()
    found = flattery(given.sweeps, given.trials)
    print(f"{given.sweeps} sweeps of {given.trials} trials, said minus reached on new faces, in points:")
    print(f"best val accuracy {100 * found.naive:+.2f}, expected when chosen {100 * found.promised:+.2f}")
    print(f"95 % intervals that hold: {found.covered:.1%}")
    print(
        f"chose worse than a baseline of the best tenth: {found.worse:.1%} by val accuracy, "
        f"{found.worse_if_beaten:.1%} where the baseline counted as beaten"
    )


if __name__ == "__main__":
    main()
