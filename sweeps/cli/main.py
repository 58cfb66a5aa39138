"""Runs the verbs. Every error becomes one message and an exit code, without a traceback."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from rich.text import Text

from cluster.config import check_home, reach
from fer_common.errors import run_command
from fer_common.flags import command_line
from sweeps.cli import arguments, cluster_verbs
from sweeps.cli.console import console, errors, hide_passwords_in_tracebacks, warn
from sweeps.cli.forecast_table import forecast_table
from sweeps.cli.leaderboard_table import acts, failures, leaderboard
from sweeps.cli.overview import all_sweeps, sweep_row
from sweeps.cli.overview_table import as_json, count_of, state_text, table_of
from sweeps.cli.progress import STATES, Progress, trials_begun
from sweeps.cli.records import records_uri
from sweeps.errors import InputError
from sweeps.options import Options
from sweeps.planning.plan import Plan, make_plan
from sweeps.runs import find_run, open_sweep
from sweeps.spec import SweepSpec, recorded_spec
from sweeps.sweep import SweepResult, run_plan
from sweeps.time_left import duration
from tracking.errors import TrackingError
from tracking.mlflow_sync.uri import ignored_environment, without_password
from tracking.record.folder_lock import FolderHeldError
from tracking.record.history import SweepHistory


def main(argv: Sequence[str]) -> int:
    """`python -m sweeps VERB …`."""
    return _guarded(argv, lambda: _dispatch(_parsed(arguments.parser(), argv)))


def run_main(argv: Sequence[str]) -> int:
    """`python -m sweeps.run SPACE …`."""
    return _guarded(argv, lambda: _run(_parsed(arguments.run_parser(), argv)))


def _parsed(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    given = parser.parse_args(argv)
    check_home()
    given.argv = list(argv)
    return given


def _guarded(argv: Sequence[str], act: Callable[[], int]) -> int:
    hide_passwords_in_tracebacks()
    return run_command(argv, act, lambda line: errors.print(Text(without_password(line), style="red")))


def _dispatch(given: argparse.Namespace) -> int:
    from sweeps.cli import records
    from sweeps.cli import run_verbs as after
    from sweeps.cli import use_verbs as using
    from sweeps.cli.steering import act_verbs, watch

    verbs: dict[str, Callable[[argparse.Namespace], int]] = {
        "run": _run,
        "spaces": _spaces,
        "reproduce": _reproduce,
        "rerun": _rerun,
        "resume": _resume,
        "list": _list,
        "status": _status,
        "sync": _sync,
        "ui": records.ui,
        "logs": watch.logs,
        **act_verbs.VERBS,
        **after.VERBS,
        **using.VERBS,
    }
    return verbs[given.verb](given)


def _run(given: argparse.Namespace) -> int:
    config = reach(given.cluster, given.address)
    if config and config.submits:
        return cluster_verbs.submit(given, config)
    asked = arguments.options(given)
    place = {"address": config.address, "cluster_cpus": config.cpus, "cluster_gpus": config.gpus} if config else {}
    plan = make_plan(given.space, asked.model_copy(update={"address": None, **place}), console.print)
    if given.dry_run:
        from sweeps.planning.dry_run import dry_run

        dry_run(plan, console)
        return 0
    return _run_plan(plan)


def _reproduce(given: argparse.Namespace) -> int:
    from sweeps.cli import reproduce

    if given.row is None:
        console.print(reproduce.listing())
        return 0
    plan = make_plan(given.row, reproduce.options(given), console.print)
    code = _run_plan(plan)
    console.print(reproduce.published_against_ours(given.row, plan))
    return code


def _rerun(given: argparse.Namespace) -> int:
    from sweeps.cli.steering import rerun

    run = find_run(given.run, given.out, given.tracking_uri)
    folder = rerun.begin(run, given.name, given.out)
    options = Options(name=folder.root.name, out=given.out, tracking_uri=given.tracking_uri, resume=True)
    plan = make_plan(recorded_spec(SweepHistory.load(folder.journal)).space, options, console.print)
    # As many threads sum in the same order.
    plan = replace(plan, spec=plan.spec.model_copy(update={"threads": run.spec.threads}))
    code = _run_plan(plan, partial(run_plan, body=rerun.Until(run.trial.last_epoch)))
    again = find_run(f"{folder.root.name}/0", given.out)
    if not again.trial.is_over:
        command = ["python", "-m", "sweeps", "rerun", run.name, "--name", folder.root.name]
        console.print(f"continue and compare:\n  {shlex.join([*command, *command_line(options, ['out'])])}")
        return code or 1
    return rerun.say_whether_equal(run, again, console)


def _run_plan(plan: Plan, run: Callable[..., SweepResult] | None = None) -> int:
    _announce(plan)
    if plan.is_finished():
        console.print("this sweep is finished: nothing is left to run; 'python -m sweeps extend' gives it more")
    progress = Progress(console, plan.spec, plan.at_once, plan.budgets)
    with progress.showing():
        result = (run or run_plan)(
            plan,
            listeners=[progress],
            on_warning=warn,
            on_note=console.print,
            on_preparing=progress.preparing,
        )
    _conclude(plan, result)
    if console.is_terminal:
        console.bell()
    return result.exit_code


def _announce(plan: Plan) -> None:
    spec, slots = plan.spec, plan.slots
    if spec.synthetic:
        console.print(
            Text(
                "SYNTHETIC FACES: drawn by this program to try it out; no number below says anything about people.\n"
                "Give your own with --data fer2013.csv or FER_DATA.",
                style="bold yellow",
            )
        )
    faces = plan.faces
    console.print(
        f"sweep {spec.name}: {spec.trials} trials of {plan.space.name}{_each(spec)} on {spec.dataset} "
        f"(train {len(faces.train)}, val {len(faces.val)}; fingerprint {spec.fingerprint})"
    )
    for note in (*faces.notes, *plan.notes):
        console.print(f"note: {note}")
    for note in plan.start.notes:
        console.print(f"from {note}")
    if plan.options.tracking_uri is None and (ignored := ignored_environment(plan.tracking_uri)):
        console.print(f"note: {ignored}")
    console.print(
        f"{plan.at_once} at once on {spec.device} "
        f"({slots.of_a_trial}), {spec.max_epochs} epochs at most; "
        f"sampler {spec.sampler}, pruner {spec.pruner}, seed {spec.seed}; records in {plan.folder.root}"
    )
    for line in plan.budgets.lines(plan.recorded):
        console.print(f"budget: {line}")


def _each(spec: SweepSpec) -> str:
    if spec.members == 1:
        return ""
    return f", each on {spec.folds} folds," if spec.folds else f", each under {spec.replicates} seeds,"


def _conclude(plan: Plan, result: SweepResult) -> None:
    history = result.history
    spec = recorded_spec(history)
    console.print()
    console.print(leaderboard(history, spec, result.folder))
    shown = [state for state in STATES[1:] if state not in ("waiting", "paused") or history.count(state)]
    counts = ", ".join(f"{history.count(state)} {state}" for state in shown)
    console.print(f"{trials_begun(history, spec)}: {counts}")
    for note in result.notes:
        console.print(note)
    for fault in result.faults:
        errors.print(Text(f"failed: {fault}", style="red"))
    if result.backlog:
        warn(f"MLflow has not taken {result.backlog} events yet; send them with: {_verb(plan.options, 'sync')}")
    if not history.finished:
        reason = history.stopped.reason if history.stopped else "it did not end"
        console.print(f"not finished ({reason}). Resume it:\n  {_verb(plan.options, 'resume')}")
    console.print(f"look further:\n  {_verb(plan.options, 'status')}\n  {_page(plan, result)}")


def _verb(options: Options, verb: str) -> str:
    return shlex.join(["python", "-m", "sweeps", verb, str(options.name), *command_line(options, ["out"])])


def _page(plan: Plan, result: SweepResult) -> str:
    """The URL of the sweep's MLflow page, or the command that serves it."""
    from tracking.mlflow_sync.upkeep import experiment_page

    uri = plan.tracking_uri
    if not uri.startswith("http"):
        return f"{_verb(plan.options, 'ui')}   # MLflow's page"
    try:
        return f"MLflow: {experiment_page(uri, result.history.started.space)}"
    except TrackingError:  # that it is away was said before
        return f"MLflow: {without_password(uri)}"


def _spaces(_: argparse.Namespace) -> int:
    from sweeps.spaces import SPACES

    for name, space in SPACES.items():
        doc = (sys.modules[space.suggest.__module__].__doc__ or "").partition("\n")[0]
        console.print(f"{name:16} {doc} ({space.trials} trials of {space.max_epochs} epochs at most)")
    return 0


def _resume(given: argparse.Namespace) -> int:
    _, history = open_sweep(given.name, given.out)
    options = Options(name=given.name, out=given.out, tracking_uri=given.tracking_uri, resume=True)
    return _run_plan(make_plan(recorded_spec(history).space, options, console.print))


def _status(given: argparse.Namespace) -> int:
    if cluster_verbs.is_afar(given):
        if given.watch:
            raise InputError("--watch needs the sweep's folder; follow the sweep with: logs NAME --address …")
        return cluster_verbs.there(given)
    if given.watch:
        from sweeps.cli.steering.watch import watch

        return watch(given)
    folder, history = open_sweep(given.name, given.out)
    if given.json:
        from sweeps.serve.living import Living

        sys.stdout.write(json.dumps(Living(folder).state(), indent=2) + "\n")
        return 0
    spec = recorded_spec(history)
    row = sweep_row(folder, history)
    console.print(f"sweep {spec.name}: {state_text(row)}; {trials_begun(history, spec)} on {spec.dataset}")
    if row.seconds_left:
        console.print(f"about {duration(row.seconds_left)} left on {count_of(row.slots, 'slot')}")
    console.print(leaderboard(history, spec, folder))
    if forecast := forecast_table(history):
        console.print(forecast)
    for failure in failures(history):
        console.print(Text(f"failed: {failure}"))
    for line in acts(history):
        console.print(Text(line))
    return 0


def _list(given: argparse.Namespace) -> int:
    if cluster_verbs.is_afar(given):
        return cluster_verbs.there(given)
    rows = all_sweeps(given.out)
    if given.json:
        sys.stdout.write(as_json(rows))
    elif rows:
        console.print(table_of(rows))
    else:
        console.print(f"no sweep in {given.out}")
    return 0


def _sync(given: argparse.Namespace) -> int:
    from tracking.mlflow_sync.sink import MlflowSink

    folder, history = open_sweep(given.name, given.out)
    uri = records_uri(recorded_spec(history), given)
    sink = MlflowSink(folder.journal, tracking_uri=uri, out=given.out, on_warning=warn)
    try:
        deleted = sink.sync()
    except FolderHeldError as held:
        raise TrackingError(
            f"{given.name}: {held.who} works on the sweep and sends its records to MLflow itself; sync it afterwards"
        ) from None
    but = f" but what was deleted there ({deleted} runs)" if deleted else ""
    console.print(f"{given.name}: MLflow at {without_password(uri)} has all of it{but}")
    return 0
