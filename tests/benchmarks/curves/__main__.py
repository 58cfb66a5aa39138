"""Record FER-Curves, and pack what is recorded into one table.

    python -m tests.benchmarks.curves record FOLDER --data fer2013.csv [--configurations 300] [--part 0/2]
    python -m tests.benchmarks.curves again FOLDER --data fer2013.csv [--best 25] [--others 25] [--seeds 2]
    python -m tests.benchmarks.curves pack FOLDER [TABLE.parquet]
    python -m tests.benchmarks.curves describe [TABLE.parquet]

A recording that was stopped continues where it was: each run is a file, and one that is there is not trained again. The
parts of a recording run beside each other, each on one core; on a GPU `--device cuda`, with more faces and epochs:
`--pixels 48 --train-faces 25000 --epochs 30`. Each folder takes one setting.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.benchmarks.curves.record import Setting, prepared, record
from tests.benchmarks.curves.table import FER_CURVES, described, load, pack, recorded


def main() -> None:
    """Do what the command line asks."""
    given = _arguments()
    if given.verb == "pack":
        print(f"{pack(given.folder, given.table)} runs in {given.table}: {given.table.stat().st_size / 1e6:.2f} MB")
    elif given.verb == "describe":
        print(described(load(given.table)))
    else:
        _record(given)


def _record(given: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(1)
    setting = Setting(**{field.name: getattr(given, field.name) for field in dataclasses.fields(Setting)})
    given.folder.mkdir(parents=True, exist_ok=True)
    runs = [(number, 0) for number in range(given.configurations)] if given.verb == "record" else list(_again(given))
    part, parts = (int(number) for number in given.part.split("/"))
    material = prepared(given.data, setting)
    for number, repeat in runs[part::parts]:
        began = time.perf_counter()
        record(given.folder, material, setting, number, repeat)
        print(f"{number}, seed {repeat}: {time.perf_counter() - began:.1f} s", flush=True)


def _again(given: argparse.Namespace) -> Iterator[tuple[int, int]]:
    """The best configurations by their first run's val accuracy, and some of the others, by a fixed choice."""
    runs = [about for path in sorted(given.folder.glob("*-0.npz")) for about, _ in [recorded(path)]]
    reached = {run["number"]: max((epoch["val_accuracy"] for epoch in run["epochs"]), default=0.0) for run in runs}
    ranked = sorted(reached, key=lambda number: -reached[number])
    others = np.random.default_rng(0).permutation(sorted(ranked[given.best :]))[: given.others]
    for repeat in range(1, given.seeds + 1):
        yield from ((int(number), repeat) for number in (*ranked[: given.best], *others))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("record", "again"):
        recording = verbs.add_parser(verb)
        recording.add_argument("folder", type=Path)
        recording.add_argument("--data", required=True, help="fer2013.csv, or another source")
        recording.add_argument("--part", default="0/1", help="K/N: every N-th run from K on")
        for field in dataclasses.fields(Setting):
            option = f"--{field.name.replace('_', '-')}"
            recording.add_argument(option, type=type(field.default), default=field.default)
        if verb == "record":
            recording.add_argument("--configurations", type=int, default=300)
            continue
        recording.add_argument("--best", type=int, default=25)
        recording.add_argument("--others", type=int, default=25)
        recording.add_argument("--seeds", type=int, default=2, help="further runs of each")
    packing = verbs.add_parser("pack")
    packing.add_argument("folder", type=Path)
    for parser_of_table in (packing, verbs.add_parser("describe")):
        parser_of_table.add_argument("table", type=Path, nargs="?", default=FER_CURVES)
    return parser.parse_args()


if __name__ == "__main__":
    main()
