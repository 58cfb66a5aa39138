"""How far the promised accuracy of a sweep's winner is from what it reaches on new faces, on FER-Curves.

    python -m tests.benchmarks.search.flattery [--sweeps 200] [--trials 30]

In each sweep the faces that every run was judged on are divided anew into val and new faces, trials are drawn at
random, each stands at its best epoch, and the best of them on val is chosen.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.benchmarks.curves.table import FER_CURVES, load
from tracking.metrics.chosen import accuracy_when_chosen, can_win


@dataclass(frozen=True)
class Flattery:
    """Means over sweeps of accuracy said minus accuracy on new faces, and the share of intervals that hold.

    An interval holds where it and the interval of the accuracy on the new faces, which are as few, meet as two
    independent ones do in 95 % of cases: the difference is within the root of the sum of their squared halves.
    """

    naive: float
    promised: float
    covered: float


def flattery(sweeps: int, trials: int, table: Path = FER_CURVES) -> Flattery:
    """Simulate so many sweeps of so many trials."""
    curves = load(table)
    first, n = curves.firsts, curves.setting.val_faces
    faces = n + curves.setting.held_out_faces
    bits = np.unpackbits(curves.packed[first], axis=2, count=faces).astype(bool)
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
        found.append((reached[places[0]] - truth, expected.value - truth, abs(expected.value - truth) <= half))
    return Flattery(*(float(mean) for mean in np.mean(found, axis=0)))


def main() -> None:
    """Print the three numbers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sweeps", type=int, default=200)
    parser.add_argument("--trials", type=int, default=30)
    given = parser.parse_args()
    found = flattery(given.sweeps, given.trials)
    print(f"{given.sweeps} sweeps of {given.trials} trials, said minus reached on new faces, in points:")
    print(f"best val accuracy {100 * found.naive:+.2f}, expected when chosen {100 * found.promised:+.2f}")
    print(f"95 % intervals that hold: {found.covered:.1%}")


if __name__ == "__main__":
    main()
