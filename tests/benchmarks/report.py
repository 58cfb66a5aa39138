"""What a sweep's end takes: its leaderboard, pictures and page, drawn by a process of their own.

    python -m tests.benchmarks.report [--trials 200] [--repeats 3]

The trials answer at random on the built-in faces instead of training; journal, study and answers are those of a sweep.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from fer_data import DataOptions, open_cached
from sweeps import run_sweep
from sweeps.trial.messages import Message, Task, TrialEnd
from tests.benchmarks.rows import spread
from tests.sweeps.fake_trials import SPACE, good_body
from tracking.record.layout import SweepFolder, TrialFolder

DRAW = "sweeps.after.pictures.draw_sweep"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = _sweep(Path(scratch), asked.trials)
        drawn = [_draw(folder) for _ in range(asked.repeats)]
        megabytes = (folder.figures / "report.html").stat().st_size / 1e6
    table = Table(title=f"closing a sweep of {asked.trials} trials; n = {asked.repeats}")
    for heading in ("measure", "ours", "target"):
        table.add_column(heading, justify="left" if heading == "measure" else "right")
    table.add_row("seconds", spread([wall for wall, _ in drawn], 1), "≤ 30")
    table.add_row("seconds of the processor", spread([cpu for _, cpu in drawn], 1), "")
    table.add_row("page, MB", f"{megabytes:.2f}", "≤ 5")
    Console(width=100).print(table)
    Console(width=100).print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")


def _sweep(out: Path, trials: int) -> SweepFolder:
    quiet: dict[str, Any] = {"figures": False, "runner": "inline", "tracking_uri": f"sqlite:///{out}/mlflow.db"}
    result = run_sweep(SPACE, body=_answer, trials=trials, epochs=8, name="many", out=out, data=DataOptions(), **quiet)
    return result.folder


def _answer(task: Task) -> Iterator[Message]:
    """Keeps answers as a trial does, drawn at random with a lean to the truth; its accuracy is made up beside them."""
    labels = open_cached(Path(task.faces)).val.labels
    generator = np.random.default_rng(task.seed)
    noise = generator.dirichlet(np.ones(7), len(labels)).astype(np.float32)
    probabilities = 0.8 * noise + 0.2 * np.eye(7, dtype=np.float32)[labels]
    path = TrialFolder(Path(task.folder)).create().val_probabilities
    epoch = 0
    for message in good_body(task):
        epoch = getattr(message, "epoch", epoch)
        if isinstance(message, TrialEnd):
            np.savez(path, probabilities=probabilities, labels=labels, epoch=epoch)
        yield message


def _draw(folder: SweepFolder) -> tuple[float, float]:
    """Seconds of the wall clock and of the child's processor."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", DRAW, "draw", str(folder.root)], check=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
