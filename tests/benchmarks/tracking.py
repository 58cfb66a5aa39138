"""Journal to MLflow: points a second into SQLite against `log_metric` a point, and what an epoch costs the driver.

    python -m tests.benchmarks.tracking --trials 1000 --epochs 60 [--live]

Simulated: the journal is written as a driver would while so many trials report, and drained afterwards as after an
outage; with `--live` each trial reports once a second, and the queue's thread sends meanwhile as in a sweep. Wall time needs an idle machine; time of the processor does not, so both are given.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tracking.mlflow_sync.default_store import default_path, default_uri, open_default_store
from tracking.mlflow_sync.sink import MlflowSink
from tracking.record.events import AttemptStarted, EpochDone, SweepEnded, SweepStarted, TrialEnded, TrialStarted
from tracking.record.journal import Journal
from tracking.record.layout import SweepFolder

METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "epoch_seconds",
           "images_per_second")  # fmt: skip
START_MS = 1_700_000_000_000


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--live", action="store_true", help="report once a second while the queue sends")
    parser.add_argument("--peer-points", type=int, default=500)
    asked = parser.parse_args()
    points = asked.trials * asked.epochs * len(METRICS)
    if asked.live:
        live(asked.trials, asked.epochs)
        return
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        folder = SweepFolder(out / "simulated").create()
        _, cpu = _timed(lambda: _write(folder, asked.trials, asked.epochs))
        per_epoch_ms = 1e3 * cpu / (asked.trials * asked.epochs)
        _make_store(out)
        before = _peak_mib()
        ours = _timed(lambda: _drain(folder, out))
        grown = _peak_mib() - before
        stored = _stored(out)
        peer = _timed(lambda: _log_metric_a_point(out, asked.peer_points))
    table = Table(title=f"{asked.trials:,} trials, {asked.epochs} epochs, {points:,} points; n = 1")
    for heading in ("measure", "ours", "log_metric a point", "ours / peer", "target"):
        table.add_column(heading, justify="left" if heading == "measure" else "right")
    for name, index in (("points a second", 0), ("points a second of the processor", 1)):
        rates = points / ours[index], asked.peer_points / peer[index]
        table.add_row(
            name, f"{rates[0]:,.0f}", f"{rates[1]:,.0f}", f"{rates[0] / rates[1]:.1f}", "≥ 5,000; ≥ 3 times the peer"
        )
    table.add_row("points lost", f"{points - stored:,}", "", "", "0")
    table.add_row("memory grown while draining, MiB", f"{grown:,.0f}", "", "", "bounded")
    table.add_row("driver's processor an epoch, fsync's too, ms", f"{per_epoch_ms:.3f}", "", "", "≤ 1")
    Console(width=120).print(table)
    Console(width=120).print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")


def live(trials: int, epochs: int) -> None:
    """Every trial reports once a second while the queue's thread sends; a row for what became of it."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        folder = SweepFolder(out / "simulated").create()
        _make_store(out)
        before, began = _peak_mib(), time.perf_counter()
        sink = MlflowSink(folder.journal, tracking_uri=default_uri(out), out=out, on_warning=print)
        _write(folder, trials, epochs, sink)
        reported = time.perf_counter() - began
        backlog = sink.close(lambda: 3600.0)
        sent = time.perf_counter() - began
        points, stored = trials * epochs * len(METRICS), _stored(out)
        table = Table(title=f"{trials:,} trials reporting once a second, {epochs} times; n = 1")
        for heading in ("measure", "value"):
            table.add_column(heading, justify="left" if heading == "measure" else "right")
        table.add_row("seconds of reporting (asked: epochs)", f"{reported:,.1f}")
        table.add_row("seconds until MLflow had all", f"{sent:,.1f}")
        table.add_row("points a second, runs made and ended too", f"{points / sent:,.0f}")
        table.add_row("points lost, events left", f"{points - stored:,}, {backlog:,}")
        table.add_row("memory grown, driver's and queue's, MiB", f"{_peak_mib() - before:,.0f}")
        Console(width=120).print(table)
        Console(width=120).print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")


def _write(folder: SweepFolder, trials: int, epochs: int, sink: MlflowSink | None = None) -> None:
    """Write a sweep's journal: at once, or as the clock goes where a sink follows it."""
    with Journal.open(folder.journal) as journal:
        journal.append(SweepStarted(time_ms=START_MS, sweep_id="5" * 32, name="simulated", space="simulated", spec={}))
        for trial in range(trials):
            config = {"net": {"name": "lenet"}, "recipe": {"lr": 0.01}}
            journal.append(
                TrialStarted(time_ms=START_MS, trial=trial, config_id="c", config=config, seed=0, epochs=epochs),
                AttemptStarted(time_ms=START_MS, trial=trial, attempt=0, reason="first"),
            )
        began = time.monotonic()
        for epoch in range(1, epochs + 1):
            for trial in range(trials):
                if sink:
                    sink.start()
                    time.sleep(max(0.0, began + epoch - 1 + trial / trials - time.monotonic()))
                metrics = {name: 1 / (epoch + index) for index, name in enumerate(METRICS)}
                now = START_MS + 1000 * epoch
                journal.append(EpochDone(time_ms=now, trial=trial, epoch=epoch, metrics=metrics))
        end = START_MS + 1000 * epochs + 500
        ended = [TrialEnded(time_ms=end, trial=trial, state="done", epochs=epochs) for trial in range(trials)]
        journal.append(*ended, SweepEnded(time_ms=end, done=trials))


def _make_store(out: Path) -> None:
    from mlflow import MlflowClient

    open_default_store(default_path(out), lambda uri: MlflowClient(uri).search_experiments(max_results=1))


def _drain(folder: SweepFolder, out: Path) -> None:
    MlflowSink(folder.journal, tracking_uri=default_uri(out), out=out, on_warning=print).sync()


def _log_metric_a_point(out: Path, points: int) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(default_uri(out))
    run_id = client.create_run(client.create_experiment("peer")).info.run_id
    for step in range(points):
        client.log_metric(run_id, METRICS[step % len(METRICS)], 1 / (step + 1), step=step // len(METRICS))


def _stored(out: Path) -> int:
    import sqlite3

    with sqlite3.connect(default_path(out)) as connection:
        return int(connection.execute("SELECT count(*) FROM metrics").fetchone()[0])


def _timed(act: Callable[[], None]) -> tuple[float, float]:
    """Seconds of the wall clock and of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - wall, time.process_time() - cpu


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    main()
