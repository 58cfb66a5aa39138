"""Verbs that analyse recorded runs: compare, report, curves, tensorboard, inspect."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

from rich.text import Text

from fer_common.flags import Flag
from fer_common.verbs import Verb
from sweeps.cli.arguments import ONE_RUN, NetDevice, OfSweeps, RunName, SweepName
from sweeps.cli.console import console, errors, warn
from sweeps.cli.records import records_uri, send
from sweeps.errors import InputError
from sweeps.planning.resources import own_device
from sweeps.runs import Run, find_run, open_sweep
from sweeps.spec import recorded_spec
from tracking.errors import TrackingError
from tracking.mlflow_sync.uri import resolve_tracking_uri
from tracking.record.files import write_bytes


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ArgumentTypeError(f"'{text}': expected names separated by commas, as conv1,conv2")
    return list(dict.fromkeys(names))


def _refuse_repeated(references: Sequence[str], runs: Sequence[Run]) -> None:
    """Raise InputError if two references name one trial, as a sweep's name and its best trial do."""
    for (first, run), (second, other) in combinations(zip(references, runs, strict=True), 2):
        if run.name == other.name:
            names = [f"{run.sweep.root.name}/{number}" for number in run.history.trials]
            left = [name for name in names if name not in {one.name for one in runs}]
            raise InputError(
                f"{first} and {second}: both are trial {run.name} (NAME alone is a sweep's best trial); "
                f"name another one{', as ' + left[0] if left else ''}"
            )


class Compare(OfSweeps):
    """Compare runs or sweeps image by image, with 95 % intervals.

    Example: python -m sweeps compare night/3 night/5
    """

    runs: Annotated[tuple[str, ...], Flag(ONE_RUN, "RUN", positional=True)]
    as_json: Annotated[bool, Flag("print the comparison as JSON", name="json")] = False
    html: Annotated[Path | None, Flag("also write the comparison as a page", "FILE")] = None
    numbers_only: Annotated[bool, Flag("compare runs on different data by their scores only")] = False

    def __call__(self) -> int:
        from sweeps.after.report_input import compare_runs, val_faces
        from sweeps.cli.tables.comparison import log_page, tables
        from tracking.pages.compare_page import comparison_page

        runs = self.find_runs(self.runs)
        _refuse_repeated(self.runs, runs)
        whole = [reference == run.sweep.root.name for reference, run in zip(self.runs, runs, strict=True)]
        found = compare_runs(runs, whole, numbers_only=self.numbers_only)
        page = comparison_page(found, val_faces(runs[0]))
        if self.html:
            write_bytes(self.html, page.encode())
        try:
            uris = [resolve_tracking_uri(self.tracking_uri, self.out, run.spec.tracking_uri) for run in runs]
            where = log_page(page, runs, whole, uris)
        except TrackingError as error:
            where = f"the page is not in MLflow: {error}"
        if self.as_json:
            console.print(found.to_json())
            errors.print(Text(where))
            return 0
        for shown in tables(found):
            console.print(shown)
        if self.html:
            console.print(f"the whole comparison: {self.html}")
        console.print(where)
        return 0


class Report(OfSweeps):
    """Write a sweep's report as one page.

    Example: python -m sweeps report night
    """

    name: SweepName
    html: Annotated[
        Path | None, Flag("write only the page, to FILE (default: page and figures to OUT/NAME/figures)", "FILE")
    ] = None

    def __call__(self) -> int:
        from sweeps.after.pictures.draw_sweep import draw_sweep
        from sweeps.after.pictures.trial_pictures import draw_left
        from sweeps.after.report_input import sweep_page

        folder, history = open_sweep(self.name, self.out)
        if draw_left(folder, warn):
            send(folder, recorded_spec(history), self)
        path = self.html or folder.report
        if self.html:
            write_bytes(path, sweep_page(folder, history).encode())
        else:
            draw_sweep(folder)
        console.print(f"{self.name}: {path} ({path.stat().st_size / 2**20:.1f} MiB)")
        return 0


class Curves(OfSweeps):
    """Draw a run's loss, accuracy and learning rate against iterations.

    Example: python -m sweeps curves night/3
    """

    run: RunName
    picture: Annotated[
        Path | None, Flag("file to write (default OUT/NAME/trials/NUMBER/iterations.png)", "FILE.png")
    ] = None

    def __call__(self) -> int:
        from tracking.figures.parts import save_png
        from tracking.figures.trial_figures import iterations_figure
        from tracking.metrics.summary import data_name

        run = find_run(self.run, self.out, self.tracking_uri)
        if not any(epoch.iterations for epoch in run.trial.epochs):
            raise InputError(f"{run.name}: has no iterations to draw; name a trial that has finished an epoch")
        spec, path = run.spec, self.picture or run.files.root / "iterations.png"
        where = f"{data_name(spec.dataset, spec.synthetic)}, {spec.val_title}"
        save_png(iterations_figure(run.trial.epochs, f"{run.name}: {run.trial.started.title} on {where}"), path)
        console.print(f"{run.name}: {path}")
        return 0


class Tensorboard(OfSweeps):
    """Write a sweep's curves as TensorBoard event files.

    Example: python -m sweeps tensorboard night
    """

    name: SweepName

    def __call__(self) -> int:
        from sweeps.after.tensorboard import write_event_files

        folder, history = open_sweep(self.name, self.out)
        root = write_event_files(folder, history)
        console.print(
            f"{self.name}: {len(history.trials)} trials in {root}\nto view them:\n  tensorboard --logdir {root}"
        )
        return 0


class Inspect(OfSweeps):
    """Draw a net's layers, filters, feature maps and saliency.

    Example: python -m sweeps inspect night/3 --layers conv1,conv2
    """

    run: RunName
    layers: Annotated[
        tuple[str, ...],
        Flag("stages or layers whose feature maps are drawn (default: every stage)", "L1,L2", read=_names),
    ] = ()
    faces: Annotated[
        str | None, Flag("number of validation faces, or their indices as 3,17 (default: one per class)", "N")
    ] = None
    image: Annotated[Path | None, Flag("inspect your own picture instead, PNG or JPEG", "PATH")] = None
    method: Annotated[Literal["gradcam", "occlusion"] | None, Flag("saliency method (default: both)")] = None
    out_dir: Annotated[Path | None, Flag("folder of the pictures (default OUT/NAME/trials/NUMBER/inspect)", "DIR")] = (
        None
    )
    device: NetDevice = "cpu"

    def __call__(self) -> int:
        from sweeps.after.pictures.inspect_net import METHODS, captum_missing, inspect_run, log_pictures, net_table
        from sweeps.after.pictures.inspected_faces import chosen_faces, face_from

        if self.faces is not None and self.image is not None:
            raise InputError("--faces and --image: give one, faces of the validation split or a picture of your own")
        run = self.find_net(self.run)
        methods = (self.method,) if self.method else METHODS
        missing = None if self.method else captum_missing()
        shown = chosen_faces(run, self.faces) if self.image is None else face_from(run, self.image)
        drawing = inspect_run(
            run,
            shown,
            layers=self.layers or (),
            methods=() if missing else methods,
            folder=self.out_dir,
            device=own_device(self.device),
        )
        console.print(net_table(run))
        if missing:
            warn(f"{missing}; drawn without it: filters and feature maps")
        pictures = []
        for path in drawing:
            console.print(str(path))
            pictures.append(path)
        try:
            log_pictures(run, pictures, records_uri(run.spec, self))
        except TrackingError as error:
            warn(f"not in MLflow: {error}")
        return 0


VERBS: dict[str, type[Verb]] = {
    "compare": Compare,
    "report": Report,
    "curves": Curves,
    "tensorboard": Tensorboard,
    "inspect": Inspect,
}
