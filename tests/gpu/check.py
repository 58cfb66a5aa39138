"""Everything a few minutes on a GPU can tell: is it right, how fast is it, what does it do when the card fails.

    python -m tests.gpu.check [--data fer2013.csv] [--device cpu --quick] [--json FILE] [--seconds 230]

Needs torch, numpy, pydantic and optuna; no network, no Ray, no MLflow. Prints a line per check and exits with 1 if
one failed. `--device cpu --quick` rehearses it without a GPU.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import torch

from fer_data import open_cached, prepare
from tests.gpu.cases import nets
from tests.gpu.faults import faults
from tests.gpu.graphs import replayed
from tests.gpu.lanes import lanes
from tests.gpu.machine import machine
from tests.gpu.numbers import (
    bf16_learns_like_fp32,
    checkpoint_moves,
    same_as_cpu,
    same_augmentation,
    same_twice,
)
from tests.gpu.report import Report
from tests.gpu.several import several
from tests.gpu.sharing import throughput
from tests.gpu.speed import as_it_is, learns, limits


def main() -> int:
    given = _arguments()
    folder = given.cache or prepare(given.data)
    faces, device, quick = open_cached(folder), given.device, given.quick
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    report = Report(given.json, given.seconds)
    counts, seconds = ((1, 2), 1.0) if quick else ((1, 2, 4, 8), 3.0)
    batch = 16 if quick else 128
    some = nets(batch)
    checks = {
        "machine": partial(machine, device),
        "fp32": partial(same_as_cpu, faces, device, some, 2 if quick else 12),
        "augmentation": partial(same_augmentation, faces, device),
        "checkpoint": partial(checkpoint_moves, faces, device, some),
        "step": partial(as_it_is, faces, device, some, 0.1 if quick else 1.5),
        "graphs": partial(replayed, faces, device, some, 6 if quick else 40, 0.1 if quick else 0.5),
        "lanes": partial(lanes, faces, device, some, (1, 2, 4), 6 if quick else 20, 0.1 if quick else 0.7),
        "bf16": partial(bf16_learns_like_fp32, faces, device, some, 4 if quick else 100),
        "twice": partial(same_twice, faces, device, some, 3 if quick else 60),
        "limits": partial(limits, faces, device, batch, 0.1 if quick else 0.4),
        "faults": partial(faults, folder, device),
        "several": partial(several, folder, device, quick),
        "sharing": partial(throughput, folder, device, counts, seconds),
    }
    if not quick:
        checks["learns"] = partial(learns, faces, device, 9, 2)
    for name, check in checks.items():
        if given.only is None or name in given.only:
            report.run(name, check)
    print(f"{len(report.rows)} rows in {report.elapsed:.0f} s; failed: {', '.join(report.failed) or 'nothing'}")
    return 1 if report.failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", help="csv, folder or LMDB of faces (default: the synthetic faces)")
    source.add_argument("--cache", type=Path, help="a folder of converted faces from FER_CACHE, instead of --data")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: few steps, no statement about accuracy")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    parser.add_argument("--only", type=lambda text: text.split(","), help="these checks alone, as step,limits")
    parser.add_argument("--seconds", type=float, default=230, help="begin no further check after this long")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
