"""Whole sweeps, simulated on FER-Curves with a clock of their own: how soon each method finds how good a net.

    python -m tests.benchmarks.search [--repeats 200] [--workers 1,4,16] [--only TEXT] [--processes 2]
    python -m tests.benchmarks.search --draw docs/search.png     # the tables and the plot of what has been run so far
    python -m tests.benchmarks.search --seeds 8 --results runs/search-seeds.json    # each configuration 8 times

T is how long random search takes for 30 trials without pruning on one worker, 60 on 4 and 128 on 16. The target is the
mean of the best val accuracies that random search has reached after T. A sweep is simulated until it has reached the
target and T/2 is over, or T is. Rounds of ten repeats are kept in `--results` as they end, so that a run that was
stopped continues. Without `--only` the methods of the headline run.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from tests.benchmarks.curves.table import FER_CURVES, load
from tests.benchmarks.search.clock import Board, board, simulate
from tests.benchmarks.search.measures import GRID, best_so_far, outcome
from tests.benchmarks.search.methods import METHODS, chosen
from tests.benchmarks.search.seeds import with_seeds

TRIALS_OF_RANDOM = {1: 30, 4: 60, 16: 128}
ROUND = 10


@lru_cache(maxsize=1)
def _board(table: Path, seeds: int) -> Board:
    curves = load(table)
    return with_seeds(board(curves), curves, seeds)


def budget(table: Board, workers: int) -> float:
    """T in seconds."""
    return float(TRIALS_OF_RANDOM.get(workers, 30 * workers) * table.seconds.sum(axis=1).mean() / workers)


def target(table: Board, workers: int, repeats: int = 400) -> float:
    """The accuracy that random search reaches in T, on average."""
    until = budget(table, workers)
    sweeps = [simulate(METHODS["random"](seed, table.epochs), table, workers, until) for seed in range(repeats)]
    return float(np.mean([max(sweep.values) for sweep in sweeps]))


def run_round(table: Path, seeds: int, workers: int, name: str, first: int, aim: float) -> list[dict[str, Any]]:
    """Ten sweeps of a method, as dictionaries."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    laid, found = _board(table, seeds), []
    until = budget(laid, workers)
    for seed in range(1_000 + first, 1_000 + first + ROUND):
        method = METHODS[name](seed, laid.epochs)
        sweep = simulate(method, laid, workers, until, aim, until / 2)
        curve = best_so_far(sweep, until / 2 * GRID).tolist()
        found.append(asdict(outcome(sweep, laid, aim, until / 2)) | {"curve": curve})
    return found


def main() -> None:
    """Run what is missing, then print the table."""
    given = _arguments()
    path: Path = given.results
    results = json.loads(path.read_text()) if path.exists() else {"sweeps": {}, "targets": {}, "seeds": given.seeds}
    if results.get("seeds", 1) != given.seeds:
        raise SystemExit(f"{path}: sweeps with --seeds {results.get('seeds', 1)}; give another file for {given.seeds}")
    if not given.draw:
        _run(given, results)
    from tests.benchmarks.search.report import plot, print_table, print_targets

    laid = _board(given.table, given.seeds)
    print_table(
        results,
        {int(workers): budget(laid, int(workers)) for workers in results["targets"]},
        len(laid.val) // given.seeds,
    )
    print_targets(results)
    if given.draw:
        plot(results, given.draw)


def _run(given: argparse.Namespace, results: dict[str, Any]) -> None:
    laid = _board(given.table, given.seeds)
    for workers in given.workers:
        if str(workers) not in results["targets"]:
            results["targets"][str(workers)] = target(laid, workers)
    with ProcessPoolExecutor(given.processes) as pool:
        waiting = []
        for first, workers, name in _missing(given, results):
            aim = results["targets"][str(workers)]
            job = pool.submit(run_round, given.table, given.seeds, workers, name, first, aim)
            waiting.append((workers, name, job))
        for workers, name, job in waiting:
            results["sweeps"].setdefault(f"{workers}/{name}", []).extend(job.result())
            beside = given.results.with_suffix(".tmp")
            beside.write_text(json.dumps(results))
            beside.replace(given.results)


def _missing(given: argparse.Namespace, results: dict[str, Any]) -> Iterator[tuple[int, int, str]]:
    """Rounds that are not there yet, those of all methods before the next ones of any."""
    names = chosen(given.only)
    for first in range(0, given.repeats, ROUND):
        for workers in given.workers:
            for name in names:
                if len(results["sweeps"].get(f"{workers}/{name}", [])) <= first:
                    yield first, workers, name


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--workers", type=lambda text: [int(part) for part in text.split(",")], default=[1, 4, 16])
    parser.add_argument(
        "--only", action="append", default=[], help="the method of this name, or those that have it; repeatable"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--table", type=Path, default=FER_CURVES)
    parser.add_argument("--seeds", type=int, default=1, help="how often a configuration can be trained in a sweep")
    parser.add_argument("--results", type=Path, default=Path("runs/search.json"))
    parser.add_argument("--draw", type=Path, metavar="PNG", help="run nothing, draw the regret over time")
    return parser.parse_args()


if __name__ == "__main__":
    main()
