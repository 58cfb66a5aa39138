"""Draws a finished sweep: leaderboard, pictures, page, and filters and feature maps of its best net.

As a program it does one of these tasks in a separate process: `python -m sweeps.after.pictures.draw_sweep draw FOLDER`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from sweeps.after.report_input import sweep_report
from tracking.errors import TrackingError
from tracking.figures.parts import save_png
from tracking.pages.leaderboard_files import leaderboard_csv, leaderboard_json, leaderboard_records
from tracking.pages.page import where
from tracking.pages.report import report_page
from tracking.pages.report_rows import ranked_rows
from tracking.pages.sweep_pictures import sweep_pictures
from tracking.record.files import write_bytes
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder


def draw_sweep(folder: SweepFolder) -> None:
    """Write leaderboard, pictures and finally the page of a sweep, each atomically.

    Raises:
        TrackingError: there is no journal, or a disk error.
    """
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
    write_bytes(folder.report, report_page(report, faces).encode())


def publish_best(folder: SweepFolder, tracking_uri: str) -> Iterator[str]:
    """Draw and log the best trial's filters and feature maps, and register its net. Yields the results, one line each.

    Each part is tried; SystemExit lists all errors.
    """
    from fer_data import DataError
    from fer_models import ModelError
    from sweeps.after.pictures.inspect_net import draw_filters_and_maps, log_pictures
    from sweeps.after.register import register_best
    from sweeps.errors import InputError
    from sweeps.runs import best_runs

    def inspect() -> str:
        (run,) = best_runs(folder, SweepHistory.load(folder.journal), 1)
        pictures = draw_filters_and_maps(run)
        log_pictures(run, pictures, tracking_uri)
        return f"{run.name}: filters and feature maps of its net are in {pictures[0].parent}"

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


def main() -> None:
    """Do the task that the arguments name, for the sweep whose folder they name."""
    task, root = sys.argv[1:]
    if task == "draw":
        draw_sweep(SweepFolder(Path(root)))
    else:
        for line in publish_best(SweepFolder(Path(root)), os.environ["MLFLOW_TRACKING_URI"]):
            print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
