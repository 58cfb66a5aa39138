"""Reading FER2013: seconds and memory, ours and a plain pandas reader's, in one table.

    python -m tests.benchmarks.reading fer2013.csv

Each measure is a process of its own, ours and the peer's in turns. Ours checks every row and leaves a cache that is
mapped into memory ever after; the plain reader parses and checks nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.benchmarks.rows import spread

_MEASURED = """
import json, resource, sys, time
started = time.perf_counter()
{body}
seconds = time.perf_counter() - started
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20]))
"""
_PLAIN = """
import numpy as np, pandas as pd
frame = pd.read_csv(sys.argv[1])
images = np.stack([np.fromstring(row, dtype=np.uint8, sep=" ") for row in frame["pixels"]]).reshape(-1, 48, 48)
"""
_CONVERT = """
from fer_data import prepare
prepare(sys.argv[1])
"""
_OPEN = """
from fer_data import open_cached, prepare
folder = prepare(sys.argv[1])
started = time.perf_counter()
open_cached(folder)
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("csv")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    converted, plain, opened = [], [], []
    for _ in range(asked.repeats):
        with tempfile.TemporaryDirectory() as cache:
            converted.append(_measure(_CONVERT, asked.csv, cache))
            opened.append(_measure(_OPEN, asked.csv, cache))
        plain.append(_measure(_PLAIN, asked.csv, os.devnull))
    table = Table(title=f"{asked.csv}: n = {asked.repeats}, median [least–most]")
    for heading in ("measure", "ours", "plain pandas + numpy", "ours / plain", "target"):
        table.add_column(heading, justify="left" if heading == "measure" else "right")
    for column, name, target in ((0, "csv to arrays, s", "≤ 6"), (1, "peak memory, GiB", "≤ 1")):
        ours, theirs = [row[column] for row in converted], [row[column] for row in plain]
        table.add_row(name, spread(ours, 3), spread(theirs, 3), f"{median(ours) / median(theirs):.2f}", target)
    table.add_row("open the cache, s", spread([row[0] for row in opened], 3), "", "", "≤ 0.1")
    Console(width=120).print(table)
    Console(width=120).print(
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"
    )


def _measure(body: str, csv: str, cache: str) -> tuple[float, float]:
    """Seconds and peak GiB of a fresh process."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _MEASURED.format(body=body), csv],
        env=os.environ | {"FER_CACHE": cache},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, gib = json.loads(done.stdout)
    return seconds, gib


if __name__ == "__main__":
    main()
