"""What a sweep leaves of its own when it ends: leaderboard, pictures and page, drawn in a process of their own.

The driver waits for that process, but neither its memory nor its exit code is at stake.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tracking.errors import TrackingError
from tracking.record.files import write_bytes
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder

_LONGEST_SECONDS = 300.0
_HURRIED_SECONDS = 10.0
"""SIGKILL usually follows SIGTERM after about half a minute."""
_LEAST_TRAINED_SECONDS = 60.0


class Closing:
    """The two tasks after a sweep's trials are over; a fault in either is one warning. `notes` are to be shown."""

    def __init__(self, folder: SweepFolder, history: SweepHistory, on_warning: Callable[[str], None]) -> None:
        self.notes: list[str] = []
        self._folder = folder
        self._history = history
        self._on_warning = on_warning
        self._drawn = False

    def draw(self, *, hurried: bool) -> None:
        """Draw the sweep's files into its folder, unless they are up to date with the journal.

        To be called before MLflow gets the sweep's end, when it takes that folder's files. `hurried` after a signal.
        """
        if not any(trial.is_over and trial.best_epoch() for trial in self._history.trials.values()):
            self.notes.append("no report yet: no trial has finished")
            return
        page, journal = report_path(self._folder), self._folder.journal
        if not page.is_file() or page.stat().st_mtime_ns < journal.stat().st_mtime_ns:
            fault, _ = _in_a_child("draw", self._folder, _HURRIED_SECONDS if hurried else _LONGEST_SECONDS)
            if fault:
                name = self._folder.root.name
                self._on_warning(f"the report is not made ({fault}); make it with: python -m sweeps report {name}")
                return
            self._drawn = not hurried
        self.notes.append(f"report: {page}")

    def publish_best(self, tracking_uri: str) -> None:
        """Draw what the best trial's net looks at and register it, once MLflow has all of the sweep.

        Skipped where nothing has changed, and for a sweep that took less time than this would.
        """
        epochs = [epoch for trial in self._history.trials.values() for epoch in trial.epochs]
        trained_seconds = sum(epoch.metrics.get("epoch_seconds", 0.0) for epoch in epochs)
        if not self._drawn or trained_seconds < _LEAST_TRAINED_SECONDS:
            return
        fault, said = _in_a_child("publish_best", self._folder, _LONGEST_SECONDS, tracking_uri)
        self.notes += said
        if fault:
            self._on_warning(f"the best trial is not inspected or registered in full: {fault}")


def report_path(folder: SweepFolder) -> Path:
    """The path of a sweep's page."""
    return folder.figures / "report.html"


def draw_sweep(folder: SweepFolder) -> None:
    """Write leaderboard, pictures and, last, the page of a sweep, each whole or not at all.

    Raises:
        TrackingError: no journal, or the disk refused.
    """
    from sweeps.after.report_input import sweep_report
    from tracking.figures.parts import save_png
    from tracking.pages.leaderboard_files import leaderboard_csv, leaderboard_json, leaderboard_records
    from tracking.pages.page import where
    from tracking.pages.report import report_page
    from tracking.pages.report_rows import ranked_rows
    from tracking.pages.sweep_pictures import sweep_pictures

    history = SweepHistory.load(folder.journal)
    report, faces = sweep_report(folder, history)
    data = report.data
    folder.figures.mkdir(mode=0o700, exist_ok=True)
    records = leaderboard_records(report)
    write_bytes(folder.figures / "leaderboard.csv", leaderboard_csv(records))
    write_bytes(folder.figures / "leaderboard.json", leaderboard_json(records, report))
    place = f"{history.started.name} on {where(data.dataset, data.split, data.n, data.synthetic)}"
    rows = ranked_rows(history, data.n)
    for picture in sweep_pictures(history, rows, report.parameters, report.importances, place):
        save_png(picture.figure, folder.figures / f"{picture.name}.png")
    write_bytes(report_path(folder), report_page(report, faces).encode())


def publish_best(folder: SweepFolder, tracking_uri: str) -> Iterator[str]:
    """Draw the best trial's filters and maps, log them, register its net; return the results, one line each.

    Each part is tried; SystemExit lists all faults.
    """
    from fer_data import DataError
    from fer_models import ModelError
    from sweeps.after.inspect_net import draw_filters_and_maps, log_pictures
    from sweeps.after.register import register_best
    from sweeps.errors import InputError
    from sweeps.runs import best_runs

    def inspect() -> str:
        (run,) = best_runs(folder, SweepHistory.load(folder.journal), 1)
        pictures = draw_filters_and_maps(run)
        log_pictures(run, pictures, tracking_uri)
        return f"{run.name}: what its net looks at is in {pictures[0].parent}"

    def register() -> str:
        return register_best(folder, tracking_uri)

    faults = []
    for act in (inspect, register):
        try:
            yield act()
        except (DataError, InputError, ModelError, TrackingError) as error:
            faults.append(str(error))
    if faults:
        sys.exit("; ".join(faults))


def _in_a_child(
    task: str, folder: SweepFolder, seconds: float, tracking_uri: str | None = None
) -> tuple[str | None, list[str]]:
    """Let `main` do a task in a process of its own; what went wrong, or None, and the lines that it printed."""
    # No empty entry: it would be the folder that the driver is called in, which may have any files.
    paths = [str(Path(__file__).parents[2]), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"}
    if tracking_uri:  # not as an argument, which every user of the machine can read: it may hold a password
        environment["MLFLOW_TRACKING_URI"] = tracking_uri
    try:
        # Of its own session, as Ctrl-C is for the driver to answer; -P for the same reason as above.
        done = subprocess.run(
            [sys.executable, "-P", "-c", "from sweeps.after.finish import main; main()", task, str(folder.root)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            start_new_session=True,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return f"it took more than {seconds:.0f} s", []
    except OSError as error:
        return str(error), []
    faults = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return (faults[-1] if done.returncode else None), done.stdout.splitlines()


def main() -> None:
    """What the process does that the driver waits for: a task's name and the sweep's folder are its arguments."""
    task, root = sys.argv[1:]
    if task == "draw":
        draw_sweep(SweepFolder(Path(root)))
    else:
        for line in publish_best(SweepFolder(Path(root)), os.environ["MLFLOW_TRACKING_URI"]):
            print(line, flush=True)  # noqa: T201
