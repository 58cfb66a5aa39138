"""How far one driver goes: simulated trials on logical GPUs through the real driver, and light ones on real Ray.

    python -m tests.benchmarks.scale sweep --trials 10000 --slots 1000 [--mlflow]
    python -m tests.benchmarks.scale ray --workers 1 4 16

A simulated epoch takes about a minute of a clock of its own; what the driver takes is real and counts in that clock.
Seconds of the processor are the driver's own, and say what an idle machine would do.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import optuna
import psutil
from rich.console import Console
from rich.table import Table

from cluster.connect import prepare_environment
from sweeps.cli.progress import Progress
from sweeps.cli.tables.leaderboard import leaderboard
from sweeps.options import Options
from sweeps.planning.hardware import find_hardware
from sweeps.planning.plan import Plan, make_plan
from sweeps.planning.resources import Slots
from sweeps.search.proposals import Proposal
from sweeps.search.study import Study
from sweeps.sweep import SweepResult, run_plan
from sweeps.time_left import seconds_left
from tests.benchmarks.simulated import SPACE, Call, SimulatedRunner, learning
from tracking.mlflow_sync.sink import MlflowSink
from tracking.mlflow_sync.uri import resolve_tracking_uri
from tracking.record.events import EpochDone, Event, TrialEnded, TrialStarted
from tracking.record.history import SweepHistory
from tracking.record.journal import read
from tracking.tracker import NoTracker

SIZES = (100, 1_000, 2_000, 5_000, 10_000)
_ASKS = 20
_RAY_EPOCHS, _RAY_ROUNDS = 20, 4
_WINDOW = 0.1  # of a size: reports shown at 1,000 trials were measured at 900 to 1,000
_console = Console(width=140, highlight=False)


class Observer:
    """What each turn of the driver took, and its memory as trials grow."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.walls: list[float] = []
        self.rss: dict[int, int] = {}
        self._process = psutil.Process()
        self._last = time.perf_counter()

    def __call__(self, call: Call) -> None:
        """Take in one turn."""
        now = time.perf_counter()
        self.calls.append(call)
        self.walls.append(now - self._last)
        if call.kind == "ask" and call.trials in SIZES:
            self.rss[call.trials] = self._process.memory_info().rss
        self._last = time.perf_counter()

    def near(self, size: int, kind: str) -> list[Call]:
        """The turns of a kind shortly before there were `size` trials; asks that found no trial left out."""
        width = _ASKS if kind == "ask" else _WINDOW * size
        found = [call for call in self.calls if call.kind == kind and size - width < call.trials <= size]
        return list({call.trials: call for call in reversed(found)}.values()) if kind == "ask" else found


def at_times(propose: Callable[[Study, int], Proposal]) -> Callable[[Study, int], Proposal]:
    """`Study.propose` that asks TPE for the last trials before each size alone, and draws the others at random."""

    def drawn(study: Study, number: int) -> Proposal:
        if any(size - _ASKS <= number < size for size in SIZES):
            return propose(study, number)
        at_random = lambda seed, **_: optuna.samplers.RandomSampler(seed=seed)  # noqa: E731
        with mock.patch("optuna.samplers.TPESampler", at_random):
            return propose(study, number)

    return drawn


def sweep(given: argparse.Namespace) -> None:
    """One simulated sweep, and what is done with its journal afterwards."""
    with tempfile.TemporaryDirectory(prefix="fer-scale-", dir=given.scratch) as scratch:
        options = Options(
            trials=given.trials, out=Path(scratch), name="scale", runner="inline", seed=given.seed, figures=False
        )
        plan = make_plan(SPACE, options, find_hardware)
        observer = Observer()
        runner = SimulatedRunner(given.slots, clock=time.thread_time, observe=observer)
        wall, result = _timed(lambda: _run(plan, runner, mlflow=given.mlflow, random=given.random))
        _console.print(_by_size(observer, given))
        table = _table(f"the whole sweep and its journal: {given.trials:,} trials", "measure", "value")
        for row in [*_whole(wall, runner, observer, result), *_afterwards(plan, result, mlflow=given.mlflow)]:
            table.add_row(*row)
        _console.print(table)
    _console.print(f"{len(os.sched_getaffinity(0))} cores allowed, load {os.getloadavg()[0]:.1f}")


def _run(plan: Plan, runner: SimulatedRunner, *, mlflow: bool, random: bool) -> SweepResult:
    with ExitStack() as stack:
        if random:
            stack.enter_context(mock.patch.object(Study, "propose", at_times(Study.propose)))
        screen = stack.enter_context(Path(os.devnull).open("w"))
        progress = Progress(Console(file=screen), plan.spec)
        tracker = None if mlflow else NoTracker()
        return run_plan(plan, listeners=[progress], body=learning, runner=runner, tracker=tracker)


def _by_size(observer: Observer, given: argparse.Namespace) -> Table:
    table = _table(
        f"{given.trials:,} trials on {given.slots:,} logical GPUs, MLflow {'on' if given.mlflow else 'off'}; "
        "medians [95th percentile], processor time",
        "trials so far", "asks measured", "an ask, ms", "a report, ms", "an end, ms", "reports/s", "asks/s",
        "slot free to trial placed, s", "RSS, MiB",
    )  # fmt: skip
    for size in SIZES:
        asks, reports, ends = (observer.near(size, kind) for kind in ("ask", "report", "end"))
        if size > given.trials or not asks or not reports:
            continue
        table.add_row(
            f"{size:,}",
            f"{len(asks):,}",
            *(_spread([1e3 * call.busy for call in calls]) for calls in (asks, reports, ends)),
            f"{len(reports) / sum(call.busy for call in reports):,.0f}",
            f"{len(asks) / sum(call.busy for call in asks):,.1f}",
            _spread([call.waited for call in asks], 2),
            f"{observer.rss[size] / 2**20:,.0f}",
        )
    return table


def _whole(wall: float, runner: SimulatedRunner, observer: Observer, result: SweepResult) -> Iterator[tuple[str, str]]:
    history, calls = result.history, observer.calls
    reports = sum(call.kind == "report" for call in calls)
    waited = sum(call.waited for call in calls)
    yield "epoch reports; trials done, pruned", f"{reports:,}; {history.count('done'):,}, {history.count('pruned'):,}"
    yield "wall time of the driver, s", f"{wall:,.0f}"
    yield "its processor time, s", f"{sum(call.busy for call in calls):,.0f}"
    yield "reports a second of wall time, asks included", f"{reports / wall:,.0f}"
    yield "simulated time, h", f"{runner.now / 3600:,.2f}"
    yield "GPU time spent waiting for the driver", f"{waited / (waited + runner.trained_seconds):.1%}"
    yield (
        "journal, study.log, MiB",
        ", ".join(f"{path.stat().st_size / 2**20:,.1f}" for path in (result.folder.journal, result.folder.study_log)),
    )


def _afterwards(plan: Plan, result: SweepResult, *, mlflow: bool) -> Iterator[tuple[str, str]]:
    journal = result.folder.journal
    reading = [_timed(lambda: SweepHistory.load(journal))[0] for _ in range(3)]
    yield "read the journal, s", _spread(reading, 2)
    events = list(read(journal))
    laid, _ = _timed(lambda: Study(result.folder.study_log, plan.space, plan.spec.seed, events))
    yield "lay the study anew for a resume, s", f"{laid:,.1f}"
    drawing = [_timed(lambda: leaderboard(result.history, plan.spec, result.folder))[0] for _ in range(3)]
    yield "status: the table, s", _spread(drawing, 3)
    left = [_timed(lambda: seconds_left(result.history, plan.spec, 1))[0] for _ in range(3)]
    yield "status: the time left, s", _spread(left, 3)
    if mlflow:
        yield "events MLflow had not taken a minute after the end", f"{result.backlog:,}"
        uri = resolve_tracking_uri(None, plan.options.out)
        sink = MlflowSink(journal, tracking_uri=uri, out=plan.options.out, on_warning=_console.print)
        yield "sending the rest, s", f"{_timed(sink.sync)[0]:,.0f}"


def real_ray(given: argparse.Namespace) -> None:
    """Light trials on Ray's own workers, as many at once as asked, however few cores there are."""
    prepare_environment()
    table = _table(
        f"real Ray: trials of {_RAY_EPOCHS} epochs that cost nothing; medians [95th percentile]",
        "workers", "trials", "start to the first report, s", "slot free to trial placed, s",
        "placed to its first report, s", "reports/s, all workers warm",
    )  # fmt: skip
    for workers in given.workers:
        with tempfile.TemporaryDirectory(prefix="fer-scale-", dir=given.scratch) as scratch:
            table.add_row(f"{workers}", *_ray_row(workers, Path(scratch)))
    _console.print(table)
    _console.print(f"{len(os.sched_getaffinity(0))} cores allowed, load {os.getloadavg()[0]:.1f}")


def _ray_row(workers: int, out: Path) -> Iterator[str]:
    from sweeps.driver.ray_runner import ray_runner

    trials = _RAY_ROUNDS * workers
    options = Options(trials=trials, epochs=_RAY_EPOCHS, out=out, name="ray", max_concurrent=workers, figures=False)
    plan = make_plan(replace(SPACE, first_rung_epochs=_RAY_EPOCHS + 1), options, find_hardware)
    diary: list[tuple[float, Event]] = []
    began = time.perf_counter()
    slots = Slots(node_cpus=(workers,), gpus=0, cpus_per_trial=1.0, gpus_per_trial=0.0, count=workers, room=workers)
    with ray_runner(slots) as runner:
        run_plan(plan, listeners=[lambda event, _: diary.append((time.perf_counter(), event))], body=learning,
                 runner=runner, tracker=NoTracker())  # fmt: skip
    starts = [at for at, event in diary if isinstance(event, TrialStarted)]
    ends = [at for at, event in diary if isinstance(event, TrialEnded)]
    firsts = {event.trial: at for at, event in diary if isinstance(event, EpochDone) and event.epoch == 1}
    # The n-th trial after the first round takes the slot that the n-th end left.
    placed = [start - end for start, end in zip(starts[workers:], ends, strict=False)]
    reported = [firsts[number] - starts[number] for number in range(workers, trials)]
    warm = [at for at, event in diary if isinstance(event, EpochDone) and at >= max(list(firsts.values())[:workers])]
    yield f"{trials}"
    yield f"{min(firsts.values()) - began:.1f}"
    yield _spread(placed, 2)
    yield _spread(reported, 2)
    yield f"{(len(warm) - 1) / (warm[-1] - warm[0]):,.0f}"


def _timed(act: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = act()
    return time.perf_counter() - began, result


def _spread(values: Sequence[float], digits: int = 1) -> str:
    """Median and 95th percentile."""
    if not values:
        return ""
    high = sorted(values)[min(int(0.95 * len(values)), len(values) - 1)]
    return f"{statistics.median(values):,.{digits}f} [{high:,.{digits}f}]".replace("[", "\\[")


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    return table


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale")
    verbs = parser.add_subparsers(required=True)
    simulated = verbs.add_parser("sweep", help="simulated trials through the real driver")
    simulated.add_argument("--trials", type=int, default=10_000)
    simulated.add_argument("--slots", type=int, default=1_000)
    simulated.add_argument("--seed", type=int, default=0)
    simulated.add_argument("--mlflow", action="store_true", help="with MLflow's queue into SQLite, as in a sweep")
    simulated.add_argument("--random", action="store_true", help="ask TPE near the sizes shown alone, for quick growth")
    simulated.add_argument("--scratch", type=Path, help="where the sweep's folder is made (default: the system's)")
    simulated.set_defaults(act=sweep)
    on_ray = verbs.add_parser("ray", help="light trials on real Ray")
    on_ray.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16])
    on_ray.add_argument("--scratch", type=Path)
    on_ray.set_defaults(act=real_ray)
    given = parser.parse_args()
    given.act(given)


if __name__ == "__main__":
    main()
