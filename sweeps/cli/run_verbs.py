"""The verbs for recorded runs: test, ensemble, svm, compare, report, inspect, register, gc."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from datetime import UTC, datetime

from rich.text import Text

from sweeps.cli.console import console, errors, warn
from sweeps.cli.records import asked_for, records_uri, send
from sweeps.errors import InputError
from sweeps.planning.resources import own_device
from sweeps.run_kinds import Ensemble, SvmHead
from sweeps.runs import Run, best_runs, find_run, open_sweep
from sweeps.spec import recorded_spec
from sweeps.trial.messages import val_title
from tracking.errors import TrackingError
from tracking.mlflow_sync.uri import resolve_tracking_uri, without_password
from tracking.record.files import write_bytes


def test(given: argparse.Namespace) -> int:
    """Read the test split for a finalist."""
    from sweeps.after.test_split import test_run
    from sweeps.cli.compare_tables import score_table

    run = find_run(given.run, given.out, given.tracking_uri)
    outcome = test_run(run, again=given.again, device=own_device(given.device))
    place, looks = f"{outcome.dataset}'s {outcome.split}", outcome.looks
    again = "" if looks.of_run == 1 else f" (LOOK {looks.of_run}: no longer a fair test)"
    for what, n, share in (
        ("", outcome.n, outcome.accuracy),
        (", faces of no other split", outcome.leak_free_n, outcome.leak_free),
    ):
        if share:
            interval = f"95 % interval {share.low:.2%} to {share.high:.2%}"
            console.print(f"{run.name} on {place}{what}, n = {n:,}: {share.value:.2%}, {interval}{again}")
    console.print(score_table(outcome.scores, f"{run.name} on {place}"))
    if not outcome.leak_free:
        console.print(f"no leak-free accuracy: {place} has no face that is known to be in no other split")
    console.print(
        f"look {looks.in_sweep} on {place} in this sweep, {looks.on_data} over all sweeps in {given.out}"
        + ("" if looks.in_sweep == 1 else ": do not choose among its runs by these numbers")
    )
    console.print(f"answers, scores and pictures: {run.files.test.root}")
    send(run.sweep, run.spec, given)
    return 0


def ensemble(given: argparse.Namespace) -> int:
    """Combine several runs into an ensemble."""
    from sweeps.after.ensemble import make_ensemble

    if bool(given.runs) == bool(given.sweep):
        raise InputError("name the runs, or --sweep NAME for its best trials")
    runs = best_runs(*open_sweep(given.sweep, given.out), given.top) if given.sweep else _runs(given)
    name = given.name or f"ensemble-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    made = make_ensemble(runs, given.method, name, given.out, tracking_uri=asked_for(given))
    weights = made.kind.members if isinstance(made.kind, Ensemble) else {}
    for member in runs:
        weight = weights.get(member.name, 0.0)
        console.print(f"{member.name:24} {member.objective:.2%}   weight {weight:.3f}")
    split, dataset = val_title(made.spec.dataset), made.spec.dataset
    console.print(f"{made.name}: {made.objective:.2%} on {dataset}, {split}, where it was chosen")
    send(made.sweep, made.spec, given)
    return 0


def svm(given: argparse.Namespace) -> int:
    """Replace a net's last layer by a support vector machine."""
    from sweeps.after.svm_head import make_svm

    run = find_run(given.run, given.out, given.tracking_uri)
    name = given.name or f"svm-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    made = make_svm(run, given.kernel, given.candidates, name, given.out, device=own_device(given.device),
                    tracking_uri=asked_for(given))  # fmt: skip
    if isinstance(made.kind, SvmHead):
        console.print(
            f"C = {made.kind.c:g} was the best of {', '.join(f'{c:g}' for c in made.kind.tried)}: "
            f"{made.kind.held_out_accuracy:.2%} on a fifth of train (optimistic: the net was trained on it)"
        )
    split, dataset = val_title(made.spec.dataset), made.spec.dataset
    console.print(f"{made.name}: {made.objective:.2%} on {dataset}, {split}; {run.name} itself {run.objective:.2%}")
    send(made.sweep, made.spec, given)
    return 0


def compare(given: argparse.Namespace) -> int:
    """Compare runs face by face, and sweeps as a whole, on the terminal and as a page."""
    from sweeps.after.report_input import compare_runs, val_faces
    from sweeps.cli.compare_tables import log_page, tables
    from tracking.pages.compare_page import comparison_page

    runs = _runs(given)
    whole = [run.sweep.root.name for run in runs if run.sweep.root.name in given.runs]
    found = compare_runs(runs, whole, numbers_only=given.numbers_only)
    page = comparison_page(found, val_faces(runs[0].spec))
    if given.html:
        write_bytes(given.html, page.encode())
    try:
        uris = [resolve_tracking_uri(given.tracking_uri, given.out, run.spec.tracking_uri) for run in runs]
        where = log_page(page, runs, whole, uris)
    except TrackingError as error:
        where = f"the page is not in MLflow: {error}"
    if given.json:
        console.print(found.to_json())
        errors.print(Text(where))
        return 0
    for shown in tables(found):
        console.print(shown)
    if given.html:
        console.print(f"the whole comparison: {given.html}")
    console.print(where)
    return 0


def report(given: argparse.Namespace) -> int:
    """Write a sweep's report as one page, with its leaderboard and pictures."""
    from sweeps.after.draw_sweep import draw_sweep
    from sweeps.after.report_input import sweep_page
    from sweeps.after.trial_pictures import draw_left

    folder, history = open_sweep(given.name, given.out)
    if draw_left(folder, warn):
        send(folder, recorded_spec(history), given)
    path = given.html or folder.report
    if given.html:
        write_bytes(path, sweep_page(folder, history).encode())
    else:
        draw_sweep(folder)
    console.print(f"{given.name}: {path} ({path.stat().st_size / 2**20:.1f} MiB)")
    return 0


def curves(given: argparse.Namespace) -> int:
    """Draw a run's losses, accuracies and learning rate against iterations, one picture."""
    from tracking.figures.parts import save_png
    from tracking.figures.trial_figures import iterations_figure
    from tracking.metrics.summary import data_name

    run = find_run(given.run, given.out, given.tracking_uri)
    if not any(epoch.iterations for epoch in run.trial.epochs):
        raise InputError(f"{run.name}: has no iterations to draw; name a trial that has trained for an epoch")
    spec, path = run.spec, given.picture or run.files.root / "iterations.png"
    where = f"{data_name(spec.dataset, spec.synthetic)}, {val_title(spec.dataset)}"
    save_png(iterations_figure(run.trial.epochs, f"{run.name}: {run.trial.started.title} on {where}"), path)
    console.print(f"{run.name}: {path}")
    return 0


def tensorboard(given: argparse.Namespace) -> int:
    """Write a sweep's curves as TensorBoard's event files."""
    from sweeps.after.tensorboard import write_event_files

    folder, history = open_sweep(given.name, given.out)
    root = write_event_files(folder, history)
    console.print(f"{given.name}: {len(history.trials)} trials in {root}\nlook at them:\n  tensorboard --logdir {root}")
    return 0


def inspect(given: argparse.Namespace) -> int:
    """Print a net's layers, and draw their maps of faces and the regions that decide its predictions."""
    from sweeps.after.inspect_net import METHODS, captum_missing, inspect_run, log_pictures, net_table
    from sweeps.after.inspected_faces import chosen_faces, face_from

    if given.faces is not None and given.image is not None:
        raise InputError("--faces and --image: give one, faces of the validation split or a picture of your own")
    run = find_run(given.run, given.out, given.tracking_uri)
    methods = (given.method,) if given.method else METHODS
    missing = None if given.method else captum_missing()
    shown = chosen_faces(run, given.faces) if given.image is None else face_from(run, given.image)
    drawing = inspect_run(
        run,
        shown,
        layers=given.layers or (),
        methods=() if missing else methods,
        folder=given.out_dir,
        device=own_device(given.device),
    )
    console.print(net_table(run))
    if missing:
        warn(f"{missing}; drawn without it: filters and maps")
    pictures = []
    for path in drawing:
        console.print(str(path))
        pictures.append(path)
    try:
        log_pictures(run, pictures, records_uri(run.spec, given))
    except TrackingError as error:
        warn(f"not in MLflow: {error}")
    return 0


def register(given: argparse.Namespace) -> int:
    """Log a run as an MLflow model, and register it."""
    from sweeps.after.register import register_run

    run = find_run(given.run, given.out, given.tracking_uri)
    uri = records_uri(run.spec, given)
    send(run.sweep, run.spec, given, uri)
    console.print(register_run(run, uri))
    return 0


def gc(given: argparse.Namespace) -> int:
    """List what old sweeps no longer need, or remove it."""
    from sweeps.after.cleanup import clean_up, size_text

    found = []
    for leavings in clean_up(
        given.names, given.out, given.tracking_uri, keep=given.keep, act=given.yes, on_warning=warn
    ):
        found.append(leavings)
        for line in leavings.lines():
            console.print(line)
    sizes = [one.size_bytes for leavings in found for ones in (leavings.files, leavings.copies) for one in ones]
    runs = sum(len(leavings.runs) for leavings in found)
    what = f"{len(sizes)} files ({size_text(sum(sizes))}) and {runs} runs of dead drivers"
    if not (sizes or runs):
        console.print("nothing to remove")
    else:
        console.print(f"removed or closed: {what}" if given.yes else f"to be removed or closed: {what}")
    if not given.yes and (sizes or runs):
        console.print(f"do it:\n  {without_password(shlex.join(['python', '-m', 'sweeps', *given.argv, '--yes']))}")
    return 0


def _runs(given: argparse.Namespace) -> list[Run]:
    return [find_run(reference, given.out, given.tracking_uri) for reference in given.runs]


VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "test": test,
    "ensemble": ensemble,
    "svm": svm,
    "compare": compare,
    "report": report,
    "curves": curves,
    "tensorboard": tensorboard,
    "inspect": inspect,
    "register": register,
    "gc": gc,
}
