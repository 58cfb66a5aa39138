"""What a sweep gains by learning from another one, on FER-Curves.

    python -m tests.benchmarks.search.warm [--repeats 30] [--only TEXT]

In each repeat the recorded configurations are divided at random into two halves. An earlier sweep is simulated on the
first half for T, then a new one on the second half: alone, with the trials of the earlier one as lessons (`--from NAME`),
and with its best three configurations first (`--from auto`). T is what random search takes for 30 trials on one worker.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.space import Pruner, Sampler
from tests.benchmarks.curves.table import FER_CURVES, load
from tests.benchmarks.search.clock import Board, Decision, board, simulate
from tests.benchmarks.search.measures import best_so_far, interval
from tests.benchmarks.search.methods import End, OurMethod
from tracking.record.events import OBJECTIVE, Lesson, Offer, SweepStarted, Told

SHARES = (0.125, 0.25, 0.5, 1.0)
"""Of T: when the sweeps are compared."""
OFFERED = 3
METHODS: dict[str, tuple[Sampler, Pruner]] = {
    "tpe, halving": ("tpe", "halving"),
    "qmc-tpe, promoting": ("qmc-tpe", "promoting"),
}
_TOLD: dict[End, Told] = {"done": "value", "pruned": "pruned", "failed": "worst"}


class Watched(OurMethod):
    """Our method, and what another sweep could learn of it."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._drawn: dict[int, tuple[dict[str, Any], dict[str, str]]] = {}
        self.curves: dict[int, list[float]] = {}
        self._told: dict[int, Told] = {}

    def propose(self, number: int) -> Mapping[str, Any] | None:
        proposal = self._study.propose(number)
        self._drawn[number] = proposal.params, proposal.distributions
        self.curves[number] = []
        return proposal.params

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> Decision:
        self.curves[number].append(metrics[OBJECTIVE])
        return super().report(number, epoch, metrics)

    def ended(self, number: int, curve: list[float], state: End) -> None:
        self._told[number] = _TOLD[state]
        super().ended(number, curve, state)

    def lessons(self) -> tuple[Lesson, ...]:
        """What its trials teach; those that still run or wait are pruned at the sweep's end."""
        return tuple(
            Lesson(
                source=f"earlier/{number}",
                told=told,
                value=max(curve) if told == "value" else None,
                curve=dict(enumerate(curve, start=1)) if told != "worst" else {},
                params=self._drawn[number][0],
                distributions=self._drawn[number][1],
            )
            for number, curve in self.curves.items()
            if (told := self._told.get(number, "pruned")) == "worst" or curve
        )

    def offers(self) -> tuple[Offer, ...]:
        """Its best configurations."""
        ranked = sorted(self.curves, key=lambda number: -max(self.curves[number], default=0.0))
        return tuple(Offer(source=f"earlier/{number}", params=self._drawn[number][0]) for number in ranked[:OFFERED])


def repeat(whole: Board, until: float, sampler: Sampler, pruner: Pruner, seed: int) -> dict[str, NDArray[np.float64]]:
    """The best val accuracy at the `SHARES` of `until`, by the way of starting."""
    order = np.random.default_rng(seed).permutation(len(whole.val))
    first, second = whole.part(order[: len(order) // 2]), whole.part(order[len(order) // 2 :])
    method = partial(Watched, epochs=whole.epochs, sampler=sampler, pruner=pruner)
    earlier = method(seed)
    simulate(earlier, first, 1, until)
    begun = partial(SweepStarted, sweep_id="0" * 32, name="new", space="fer_curves", spec={})
    starts = {
        "alone": begun(),
        "--from NAME": begun(lessons=earlier.lessons()),
        "--from auto": begun(offers=earlier.offers()),
        "both": begun(lessons=earlier.lessons(), offers=earlier.offers()),
    }
    return {
        name: best_so_far(simulate(method(seed + 10_000, events=[start]), second, 1, until), np.array(SHARES) * until)
        for name, start in starts.items()
    }


def main() -> None:
    """Print one row per method, way of starting and time: the mean, and the difference to starting alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--only", default="", help="methods whose names have this")
    parser.add_argument("--table", type=Path, default=FER_CURVES)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    whole = board(load(given.table))
    until = float(30 * whole.seconds.sum(axis=1).mean())
    for name in [name for name in METHODS if given.only in name]:
        found = [repeat(whole, until, *METHODS[name], seed) for seed in range(given.repeats)]
        for start in found[0]:
            for place, share in enumerate(SHARES):
                print(f"{name:20} {start:12} {share:5.3f} T  {_row(found, start, place)}", flush=True)


def _row(found: Sequence[Mapping[str, NDArray[np.float64]]], start: str, place: int) -> str:
    values = [100 * one[start][place] for one in found]
    gains = [100 * (one[start][place] - one["alone"][place]) for one in found]
    gain, low, high = interval(np.mean, gains)
    return f"{np.mean(values):5.2f} %  {gain:+.2f} points ({low:+.2f} to {high:+.2f})"


if __name__ == "__main__":
    main()
