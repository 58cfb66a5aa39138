"""Runs the verbs. Every error becomes one message and an exit code, without a traceback."""

from __future__ import annotations

import os
import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, ClassVar

from rich.text import Text

from cluster.config import ClusterConfig, check_home, reach
from cluster.submit import REACHED_BY
from fer_common.errors import Parser, run_command, without_password
from fer_common.flags import Flag, add_flags, command_line
from fer_common.verbs import Verb, add_verbs, describe, parsed, run
from fer_data import DataOptions
from sweeps.cli import cluster_verbs, look_verbs, records, reproduce, run_verbs, use_verbs
from sweeps.cli.arguments import OfSweeps, OnCluster, SweepArguments, SweepName
from sweeps.cli.console import console, errors, hide_passwords_in_tracebacks, on_stderr, warn
from sweeps.cli.progress import STATES, Progress, trials_begun
from sweeps.cli.steering import act_verbs, rerun, watch
from sweeps.cli.tables.leaderboard import leaderboard, pareto_table
from sweeps.options import Options
from sweeps.planning.budgets import Budgets
from sweeps.planning.hardware import find_hardware
from sweeps.planning.plan import Plan, make_plan
from sweeps.runs import command_for, find_run, open_sweep, refuse_made
from sweeps.spec import SweepSpec, recorded_spec
from sweeps.sweep import SweepResult, run_plan
from tracking.errors import TrackingError
from tracking.mlflow_sync.uri import ignored_environment
from tracking.record.history import SweepHistory


class RunSweep(SweepArguments):
    """Run a sweep, or continue one.

    Example: python -m sweeps run lenet_space --trials 20 --epochs 5
    """

    needs_output: ClassVar[bool] = False

    def __call__(self) -> int:
        config = reach(self.cluster, self.options.address)
        if config and config.submits:
            return cluster_verbs.submit(self, config)
        options = self.options.model_copy(update={"address": None, **_joined(config)})
        plan = make_plan(self.space, options, find_hardware, console.print)
        if self.dry_run:
            from sweeps.planning.dry_run import dry_run

            dry_run(plan, console)
            return 0
        return _run_plan(plan)


class Reproduce(Verb):
    """List the reports' results beside ours, or train one row again.

    Example: python -m sweeps reproduce lenet_step_8 --data fer2013.csv
    """

    needs_output: ClassVar[bool] = False
    row: Annotated[str | None, Flag("a row, as lenet_step_8 (default: list all)", "ROW", positional=True)] = None
    quick: Annotated[bool, Flag("a short test: one epoch on part of the train split")] = False
    options: Options | None = None

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        """Its own arguments, and those options of a sweep that a row does not fix."""
        add_flags(parser, cls, ["row", "quick"])
        add_flags(parser, DataOptions)
        where = ["runner", "device", "cpus_per_trial", "time_budget_seconds", "seed", "name", "out", "tracking_uri"]
        add_flags(parser, Options, where)
        parser.set_defaults(out=Options().out, runner="inline")
        add_flags(parser, cls, ["debug"])

    @classmethod
    def fields_given(cls, given: Namespace) -> dict[str, Any]:
        """Its own fields, and the options of the row's sweep."""
        return super().fields_given(given) | {"options": given.row and reproduce.options(given)}

    def __call__(self) -> int:
        if self.row is None or self.options is None:
            console.print(reproduce.listing())
            return 0
        plan = make_plan(self.row, self.options, find_hardware, console.print)
        code = _run_plan(plan)
        console.print(reproduce.published_against_ours(self.row, plan))
        return code


class Rerun(OfSweeps):
    """Train a trial again as recorded, and compare every value to the last bit.

    Example: python -m sweeps rerun night/3
    """

    needs_output: ClassVar[bool] = False
    run: Annotated[str, Flag("NAME/NUMBER, or NAME for a sweep's best trial", "RUN", positional=True)]
    name: Annotated[
        str | None,
        Flag(
            "name and folder of the new run (default rerun-NAME-NUMBER-<UTC time>); the name of a stopped rerun "
            "continues it"
        ),
    ] = None
    as_json: Annotated[bool, Flag("print the comparison as JSON, and all else to stderr", name="json")] = False

    def __call__(self) -> int:
        with on_stderr(self.as_json):
            return self._train_and_compare()

    def _train_and_compare(self) -> int:
        run = find_run(self.run, self.out, self.tracking_uri)
        folder = rerun.begin(run, self.name, self.out)
        options = Options(name=folder.root.name, out=self.out, tracking_uri=self.tracking_uri, resume=True)
        plan = make_plan(recorded_spec(SweepHistory.load(folder.journal)).space, options, find_hardware, console.print)
        # The same number of threads sums in the same order.
        plan = replace(plan, spec=plan.spec.model_copy(update={"threads": run.spec.threads}))
        code = _run_plan(plan, partial(run_plan, body=rerun.Until(run.trial.last_epoch)))
        again = find_run(f"{folder.root.name}/0", self.out)
        if not again.trial.is_over:
            command = ["python", "-m", "sweeps", "rerun", run.name, "--name", folder.root.name]
            console.print(f"to continue and compare:\n  {shlex.join([*command, *command_line(options, ['out'])])}")
            return code or 1
        if self.as_json:
            print(rerun.as_json(run, again))  # noqa: T201  (for programs, without rich)
        return rerun.say_whether_equal(run, again, console)


class Resume(OnCluster):
    """Continue a sweep with the options that it was started with.

    Example: python -m sweeps resume night
    """

    needs_output: ClassVar[bool] = False
    way_out: ClassVar[str] = (
        "; a sweep resumes with its own options: to change them, repeat its original command with the changes, "
        "--name NAME and --resume"
    )
    name: SweepName

    def __call__(self) -> int:
        config = reach(self.cluster, self.address)
        if config and config.submits:
            return parsed(run_parser(), cluster_verbs.resume_arguments(self, self.name))()
        _, history = open_sweep(self.name, self.out)
        refuse_made(self.name, history.trials.values())
        asked = {"name": self.name, "out": self.out, "tracking_uri": self.tracking_uri, "resume": True}
        options = Options(**asked, **_joined(config))
        return _run_plan(make_plan(recorded_spec(history).space, options, find_hardware, console.print))


def _joined(config: ClusterConfig | None) -> dict[str, Any]:
    """The options of a sweep whose driver joins a cluster."""
    return {"address": config.address, "cluster_cpus": config.cpus, "cluster_gpus": config.gpus} if config else {}


class Spaces(Verb):
    """List the built-in spaces.

    Example: python -m sweeps spaces
    """

    def __call__(self) -> int:
        from sweeps.spaces import SPACES

        for name, space in SPACES.items():
            doc = (sys.modules[space.suggest.__module__].__doc__ or "").partition("\n")[0]
            console.print(f"{name:16} {doc} ({space.trials} trials, at most {space.max_epochs} epochs each)")
        return 0


def _run_plan(plan: Plan, run: Callable[..., SweepResult] | None = None) -> int:
    _announce(plan)
    if plan.is_finished():
        console.print("this sweep is finished: nothing is left to run; 'python -m sweeps extend' adds trials or epochs")
    progress = Progress(console, plan.spec, plan.budgets)
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
                "SYNTHETIC FACES, drawn by this program: no number below says anything about people.\n"
                "Use your own data with --data fer2013.csv or FER_DATA.",
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
        f"({slots.of_a_trial}), at most {spec.max_epochs} epochs each; "
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
    console.print(leaderboard(history, spec, result.folder, console.width))
    if front := pareto_table(history):
        console.print(front)
    shown = [state for state in STATES[1:] if state not in ("waiting", "paused") or history.count(state)]
    counts = ", ".join(f"{history.count(state)} {state}" for state in shown)
    console.print(f"{trials_begun(history, spec)}: {counts}")
    for note in result.notes:
        console.print(note)
    for fault in result.faults:
        errors.print(Text(f"failed: {fault}", style="red"))
    if result.backlog:
        warn(f"MLflow lacks {result.backlog} events; send them with: {_verb(plan, 'sync')}")
    if not history.finished:
        reason = history.stopped.reason if history.stopped else "it did not end"
        console.print(f"not finished ({reason}). {_way_on(plan, history, spec)}")
    console.print(f"see also:\n  {_verb(plan, 'status')}\n  {_page(plan, result)}")


def _way_on(plan: Plan, history: SweepHistory, spec: SweepSpec) -> str:
    """How a sweep continues that is not finished."""
    budgets = Budgets(spec)
    if budgets.exceeded(history):
        return budgets.way_on[:1].upper() + budgets.way_on[1:]
    verbs = ["unpause", "resume"] if spec.waits_for_person(history) else ["resume"]
    commands = [_verb(plan, verb) for verb in verbs]
    return "\n  ".join(["To resume it:", *commands])


def _verb(plan: Plan, verb: str) -> str:
    joins = command_line(plan.options, ["address"]) if verb == "resume" and REACHED_BY not in os.environ else []
    return command_for(plan.options.out, verb, plan.spec.name, *joins)


def _page(plan: Plan, result: SweepResult) -> str:
    """The address of the sweep in the MLflow UI, or the command that serves it."""
    from tracking.mlflow_sync.experiment import experiment_page

    uri = plan.tracking_uri
    if not uri.startswith("http"):
        return f"{_verb(plan, 'ui')}   # the MLflow UI"
    try:
        return f"MLflow: {experiment_page(uri, result.history.started)}"
    except TrackingError:  # a warning was printed before
        return f"MLflow: {without_password(uri)}"


class Completion(Verb):
    """Print a script that completes these commands in bash and zsh.

    Example: python -m sweeps completion > ~/.fer-sweeps-completion
    """

    def __call__(self) -> int:
        from sweeps.completion import completion_script
        from sweeps.spaces import SPACES
        from sweeps.spaces.rows import ROWS

        sys.stdout.write(completion_script(parser(), {"SPACE": SPACES, "ROW": ROWS}))
        return 0


VERBS: dict[str, type[Verb]] = {
    "run": RunSweep,
    "spaces": Spaces,
    "resume": Resume,
    "reproduce": Reproduce,
    "list": watch.ListSweeps,
    "status": watch.Status,
    "logs": watch.Logs,
    **act_verbs.VERBS,
    **look_verbs.VERBS,
    "rerun": Rerun,
    **run_verbs.VERBS,
    **use_verbs.VERBS,
    "ui": records.Ui,
    "sync": records.Sync,
    "completion": Completion,
}


def parser() -> Parser:
    """The whole command line: `python -m sweeps VERB …`."""
    top = Parser(prog="python -m sweeps", description="Hyperparameter sweeps of facial-expression nets.")
    add_verbs(top, VERBS)
    return top


def run_parser() -> Parser:
    """`python -m sweeps.run SPACE …`."""
    one = Parser(prog="python -m sweeps.run")
    describe(one, RunSweep)
    return one


def main(argv: Sequence[str]) -> int:
    """`python -m sweeps VERB …`."""
    return _guarded(argv, parser)


def run_main(argv: Sequence[str]) -> int:
    """`python -m sweeps.run SPACE …`."""
    return _guarded(argv, run_parser)


def _guarded(argv: Sequence[str], make_parser: Callable[[], Parser]) -> int:
    def act() -> int:
        verb = parsed(make_parser(), argv)
        check_home()
        return run(verb)

    hide_passwords_in_tracebacks()
    return run_command(argv, act, lambda line: errors.print(Text(without_password(line), style="red")))
