"""Verbs that derive something from recorded runs: test, ensemble, svm, register, gc."""

from __future__ import annotations

import math
import shlex
from argparse import ArgumentTypeError
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fer_common.errors import without_password
from fer_common.flags import Flag
from fer_common.verbs import Verb
from fer_models import Kernel
from sweeps.cli.arguments import ONE_RUN, NetDevice, OfSweeps, RunName
from sweeps.cli.console import console, warn
from sweeps.cli.progress import Progress
from sweeps.cli.records import asked_for, records_uri, send
from sweeps.cli.tables.comparison import accuracy_table
from sweeps.errors import InputError
from sweeps.options import Options
from sweeps.planning.hardware import find_hardware
from sweeps.planning.plan import make_plan
from sweeps.planning.resources import own_device
from sweeps.run_kinds import Ensemble, EnsembleMethod, SvmHead
from sweeps.runs import Run, best_runs, command_for, find_run, open_sweep
from sweeps.sweep import run_plan

_JOINT_EPOCHS = 5

By = Literal["average", "joint", "middle"]
"""How the nets of an ensemble answer as one."""


def _positive_numbers(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(0 < value < math.inf for value in values):
        raise ArgumentTypeError(f"'{text}': expected numbers above 0, as 0.001,0.01")
    return values


class Test(OfSweeps):
    """Evaluate the chosen net on the test split, once.

    Example: python -m sweeps test night/3
    """

    run: RunName
    again: Annotated[bool, Flag("evaluate it once more; the journal counts the evaluations")] = False
    device: NetDevice = "cpu"

    def __call__(self) -> int:
        from sweeps.after.test_split import test_run
        from sweeps.cli.tables.comparison import score_table

        run = self.find_net(self.run)
        outcome = test_run(run, again=self.again, device=own_device(self.device))
        place, looks = f"{outcome.dataset}, {outcome.split}", outcome.looks
        again = "" if looks.of_run == 1 else f" (test evaluation {looks.of_run}: no longer an unbiased test)"
        for what, n, share in (
            ("", outcome.n, outcome.accuracy),
            (", leak-free", outcome.leak_free_n, outcome.leak_free),
        ):
            if share:
                interval = f"95 % interval {share.low:.2%} to {share.high:.2%}"
                console.print(f"{run.name} on {place}{what}, n = {n:,}: {share.value:.2%}, {interval}{again}")
        console.print(score_table(outcome.scores, f"{run.name} on {place}"))
        if not outcome.leak_free:
            console.print(f"no leak-free accuracy: no face of {place} is known to be absent from the other splits")
        console.print(
            f"test evaluations on {place}: {looks.in_sweep} in this sweep, {looks.on_data} in all sweeps of {self.out}"
            + ("" if looks.in_sweep == 1 else "; do not choose among its runs by these numbers")
        )
        console.print(f"predictions, scores and pictures: {run.files.test.root}")
        send(run.sweep, run.spec, self)
        return 0


class MakeEnsemble(OfSweeps):
    """Average the predictions of several nets, or join the nets and train them as one.

    Example: python -m sweeps ensemble --sweep night --top 3
    """

    runs: Annotated[tuple[str, ...], Flag(ONE_RUN, "RUN", positional=True)] = ()
    sweep: Annotated[str | None, Flag("take the best trials of this sweep", "NAME")] = None
    top: Annotated[int, Field(ge=1), Flag("number of trials with --sweep (default 5)", "N")] = 5
    method: Annotated[
        EnsembleMethod, Flag("mean (default), weights fitted by log-loss on val, or greedy selection on val")
    ] = "mean"
    by: Annotated[
        By,
        Flag(
            "average (default): mean of the probabilities. joint: train one net, the mean of their logits, from "
            "their weights. middle: train one net, their first halves side by side and a new classifier"
        ),
    ] = "average"
    epochs: Annotated[int | None, Field(ge=1), Flag("epochs of a joint net (default 5)", "N")] = None
    lr: Annotated[
        float | None,
        Field(gt=0),
        Flag("learning rate of a joint net (default: a tenth of the first run's; with --by middle, the same)", "X"),
    ] = None
    name: Annotated[str | None, Flag("name and folder of the ensemble (default ensemble-<UTC time>)")] = None

    def __call__(self) -> int:
        if bool(self.runs) == bool(self.sweep):
            raise InputError("give either the runs, or --sweep NAME for its best trials")
        if self.by != "average" and self.method != "mean":
            raise InputError(f"--method {self.method}: applies to averages; omit it with --by {self.by}")
        if self.by == "average" and (self.epochs or self.lr):
            raise InputError("--epochs and --lr are for a joint net's training; add --by joint or --by middle")
        runs = best_runs(*open_sweep(self.sweep, self.out), self.top) if self.sweep else self.find_runs(self.runs)
        name = self.name or f"ensemble-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        return self._average(runs, name) if self.by == "average" else self._train_joint(runs, name)

    def _average(self, runs: Sequence[Run], name: str) -> int:
        from sweeps.after.ensemble import make_ensemble

        made = make_ensemble(runs, self.method, name, self.out, tracking_uri=asked_for(self))
        weights = made.kind.members if isinstance(made.kind, Ensemble) else {}
        for member in runs:
            weight = weights.get(member.name, 0.0)
            console.print(f"{member.name:24} {member.objective:.2%}   weight {weight:.3f}")
        split, dataset = made.split, made.spec.dataset
        console.print(f"{made.name}: {made.objective:.2%} on {dataset}, {split}, on which it was selected")
        send(made.sweep, made.spec, self)
        return 0

    def _train_joint(self, runs: Sequence[Run], name: str) -> int:
        from sweeps.after.ensemble import combine, write_joint_net

        epochs = self.epochs or _JOINT_EPOCHS
        at: Literal["output", "middle"] = "middle" if self.by == "middle" else "output"
        space = write_joint_net(runs, at, name, self.out, self.lr)
        first = runs[0]
        asked = {
            "name": name, "out": self.out, "tracking_uri": asked_for(self), "epochs": epochs, "runner": "inline",
            "data": first.data, "seed": first.spec.seed,
        }  # fmt: skip
        plan = make_plan(str(space), Options.parse(asked), find_hardware, console.print)
        progress = Progress(console, plan.spec, plan.budgets)
        with progress.showing():
            result = run_plan(plan, listeners=[progress], on_warning=warn, on_note=console.print)
        if not result.history.count("done"):
            failed = [
                f"{name}/{trial.number} has failed: {trial.reason}; try a lower --lr"
                for trial in result
                if trial.is_over
            ]
            console.print(failed[0] if failed else f"not finished; continue: {command_for(self.out, 'resume', name)}")
            return result.exit_code
        answers = [run.predictions() for run in runs]
        average = combine(answers[0].labels, np.stack([one.probabilities for one in answers]), "mean").probabilities
        rows = {f"{run.name}, alone": run.predictions().is_right for run in runs}
        rows[f"average of {len(runs)}"] = average.argmax(1) == answers[0].labels
        joint = Run(result.folder, result.history, result[0])
        rows[f"{joint.name}, {self.by}, {epochs} epochs"] = joint.predictions().is_right
        console.print(accuracy_table(rows, f"{joint.spec.dataset}, {joint.split}, which selects"))
        return result.exit_code


class MakeSvm(OfSweeps):
    """Replace a net's last layer by a support vector machine.

    Example: python -m sweeps svm night/3 --c 0.001,0.01
    """

    run: RunName
    kernel: Annotated[Kernel, Flag("linear (default), or rbf, approximated by 500 landmarks")] = "linear"
    candidates: Annotated[
        tuple[float, ...],
        Flag("values of C to choose from on a fifth of train, as 0.001,0.01", "VALUES", "c", read=_positive_numbers),
    ] = ()
    name: Annotated[str | None, Flag("name and folder of the result (default svm-<UTC time>)")] = None
    device: NetDevice = "cpu"

    def __call__(self) -> int:
        from sweeps.after.svm_head import make_svm

        run = find_run(self.run, self.out, self.tracking_uri)
        name = self.name or f"svm-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        made = make_svm(run, self.kernel, self.candidates, name, self.out, device=own_device(self.device),
                        tracking_uri=asked_for(self))  # fmt: skip
        if isinstance(made.kind, SvmHead):
            console.print(
                f"C = {made.kind.c:g} was the best of {', '.join(f'{c:g}' for c in made.kind.tried)}: "
                f"{made.kind.held_out_accuracy:.2%} on a fifth of train (optimistic: the net was trained on it)"
            )
        split, dataset = made.split, made.spec.dataset
        console.print(f"{made.name}: {made.objective:.2%} on {dataset}, {split}; {run.name} itself {run.objective:.2%}")
        send(made.sweep, made.spec, self)
        return 0


class Register(OfSweeps):
    """Register a net as an MLflow model; champion if it beats the current one.

    Example: python -m sweeps register night
    """

    run: RunName

    def __call__(self) -> int:
        from sweeps.after.register import register_run

        run = find_run(self.run, self.out, self.tracking_uri)
        uri = records_uri(run.spec, self)
        send(run.sweep, run.spec, self, uri)
        console.print(register_run(run, uri))
        return 0


class Gc(OfSweeps):
    """Delete checkpoints that are no longer needed; close MLflow runs of dead drivers.

    Example: python -m sweeps gc night --keep 3
    """

    names: Annotated[tuple[str, ...], Flag("sweeps (default: all)", "NAME", positional=True)] = ()
    keep: Annotated[
        int,
        Flag(
            "keep the weights of each sweep's best N trials by val_accuracy (default 5), of baselines, and of what "
            "other runs need",
            "N",
        ),
    ] = 5
    yes: Annotated[bool, Flag("delete them (default: only list them)")] = False

    def __call__(self) -> int:
        from sweeps.after.cleanup import clean_up, size_text

        found = []
        for cleanup in clean_up(self.names, self.out, self.tracking_uri, keep=self.keep, act=self.yes, on_warning=warn):
            found.append(cleanup)
            for line in cleanup.lines():
                console.print(line)
        sizes = [one.size_bytes for cleanup in found for ones in (cleanup.files, cleanup.copies) for one in ones]
        runs = sum(len(cleanup.runs) for cleanup in found)
        what = f"{len(sizes)} files ({size_text(sum(sizes))}) and {runs} runs of dead drivers"
        if not (sizes or runs):
            console.print("nothing to remove")
        else:
            console.print(f"removed or closed: {what}" if self.yes else f"to be removed or closed: {what}")
        if not self.yes and (sizes or runs):
            console.print(
                f"to do so:\n  {without_password(shlex.join(['python', '-m', 'sweeps', *self.argv, '--yes']))}"
            )
        return 0


VERBS: dict[str, type[Verb]] = {
    "test": Test,
    "ensemble": MakeEnsemble,
    "svm": MakeSvm,
    "register": Register,
    "gc": Gc,
}
