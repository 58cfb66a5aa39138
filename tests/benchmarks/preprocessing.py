"""Preprocessing a whole data set: seconds of each variant and of opening it again, as one table.

    python -m tests.benchmarks.preprocessing [fer2013.csv] [--only NAME ...]

Without a csv on the synthetic faces. Each variant is made once, in a cache of its own; those in _int64 take as long
as their counterparts. Processes start with the first variant, whose time includes it.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from fer_data import open_cached, prepare
from fer_data.augmentation.preprocess_names import INT64_SUFFIX, PREPROCESSINGS
from fer_data.cache.preprocess_cache import preprocessed

_VARIANTS = [name for name in PREPROCESSINGS if name != "none" and not name.endswith(INT64_SUFFIX)]
_TARGET_SECONDS = 120


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("csv", nargs="?")
    parser.add_argument("--only", nargs="+", choices=_VARIANTS, default=_VARIANTS)
    asked = parser.parse_args()
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as cache:
        os.environ["FER_CACHE"] = cache
        measured = {name: _measure(prepare(asked.csv), name) for name in asked.only}
        faces = open_cached(prepare(asked.csv))
    images = sum(len(split) for split in (faces.train, faces.val, faces.test))
    table = Table(title=f"{faces.name}: {images:,} faces on {cores} cores, n = 1")
    for heading in ("variant", "made, s", "of processor time, s", "ms of it a face", "opened again, s"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for name, (made, processor, opened) in measured.items():
        table.add_row(name, f"{made:.1f}", f"{processor:.1f}", f"{1e3 * processor / images:.2f}", f"{opened:.3f}")
    table.add_section()
    made, processor, opened = zip(*measured.values(), strict=True)
    table.add_row("all", f"{sum(made):.1f}", f"{sum(processor):.1f}", "", f"at most {max(opened):.3f}")
    table.add_row("target on idle cores", f"≤ {_TARGET_SECONDS}", "", "", "≤ 0.1")
    Console(width=100).print(table)
    Console(width=100).print(f"{platform.machine()}, Python {platform.python_version()}, load {load:.1f} at the start")


def _measure(folder: Path, name: str) -> tuple[float, float, float]:
    """Seconds of making a variant, of processor time for it, and of finding and opening it again."""
    started, processor = time.perf_counter(), _processor_seconds()
    preprocessed(folder, name)
    made, processor = time.perf_counter() - started, _processor_seconds() - processor
    started = time.perf_counter()
    open_cached(preprocessed(folder, name))
    return made, processor, time.perf_counter() - started


def _processor_seconds() -> float:
    """Processor time so far of this process and those it started, which live on."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in family)


if __name__ == "__main__":
    main()
