"""The command line, read and checked without importing torch, Ray or MLflow."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import Any, get_args

from fer_common.errors import Parser
from fer_common.flags import add_flags, flags, given_values
from fer_data import DataError, DataOptions
from fer_models import Kernel
from sweeps.cli.use_arguments import add_use_verbs
from sweeps.errors import InputError
from sweeps.options import GROUPS, RUN, TRAINED, Options, read_seconds
from sweeps.run_kinds import EnsembleMethod

_AFAR = ("logs", "list", "status", "stop", "pause", "unpause", "extend", "set", "try", "fork", "retry")
"""The verbs for a sweep on a cluster too."""


def parser() -> argparse.ArgumentParser:
    """The whole command line: `python -m sweeps VERB …`."""
    top = Parser(prog="python -m sweeps", description="Sweeps of facial-expression nets.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    add_run_arguments(verbs.add_parser("run", help="run a sweep, or continue with one"))
    _common(verbs.add_parser("spaces", help="list the built-in spaces"))
    _add_reproduce(verbs.add_parser("reproduce", help="list the reports' rows, or train one and compare"))
    rerun = verbs.add_parser("rerun", help="train a trial again as it was recorded, and compare to the last bit")
    rerun.add_argument("run", metavar="RUN", help="NAME/NUMBER, or NAME for a sweep's best trial")
    rerun.add_argument("--name", help="name and folder of the new run (default rerun-NAME-NUMBER-<UTC time>); that of "
                                      "a rerun that was stopped continues it")  # fmt: skip
    _where(rerun)
    _common(rerun)
    _add_after_a_sweep(verbs)
    for using in add_use_verbs(verbs):
        _where(using)
        _common(using)
    logs = verbs.add_parser(
        "logs", help="print the reports of a sweep or of a trial, line by line, until its driver ends"
    )
    logs.add_argument("name", metavar="NAME", help="the sweep's name")
    logs.add_argument("trial", metavar="TRIAL", nargs="?", help="one trial, with its traceback if it failed")
    logs.add_argument("--json", action="store_true", help="the journal's lines as they are")
    _where(logs)
    _add_steering(verbs)
    _common(logs)
    page = verbs.add_parser("ui", help="open MLflow's page of a sweep's experiment, served from here if need be")
    page.add_argument("name", metavar="NAME", nargs="?", help="the sweep's name (default: the latest)")
    page.add_argument("--port", type=int, default=5000, metavar="N", help="where the page is served (default 5000)")
    _where(page)
    _common(page)
    listed = verbs.add_parser("list", help="every sweep of a folder, the running ones first")
    listed.add_argument("--json", action="store_true", help="print them as JSON")
    _where(listed)
    _common(listed)
    for verb, summary in (
        ("resume", "continue with a sweep, with the options it was started with"),
        ("status", "the state of a sweep"),
        ("sync", "send to MLflow what it has not got yet"),
    ):
        named = verbs.add_parser(verb, help=summary)
        named.add_argument("name", metavar="NAME", help="the sweep's name")
        if verb == "resume":
            named.way_out = (
                "; a sweep resumes with its own options: to change them, repeat the command that began it, with the "
                "changes, --name NAME and --resume"
            )
        if verb == "status":
            how = named.add_mutually_exclusive_group()
            how.add_argument("--watch", action="store_true", help="a live table, until the sweep ends or Ctrl-C")
            how.add_argument("--json", action="store_true", help="the sweep and its trials as JSON, with forecasts")
        _where(named)
        _common(named)
    listed_verbs: Any = verbs._choices_actions  # argparse keeps each verb's line of help here alone
    for one in listed_verbs:
        verbs.choices[one.dest].description = f"{one.help[:1].upper()}{one.help[1:]}."
    for verb in _AFAR:
        _add_cluster(verbs.choices[verb])
        add_flags(verbs.choices[verb], Options, ["address"])
    return top


def _add_reproduce(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("row", metavar="ROW", nargs="?", help="which one, as lenet_step_8 (default: list them)")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: one epoch on a part of the train split")
    add_flags(parser, DataOptions)
    where = ["runner", "device", "cpus_per_trial", "time_budget_seconds", "seed", "name", "out", "tracking_uri"]
    add_flags(parser, Options, where)
    parser.set_defaults(out=Options().out, runner="inline")
    _common(parser)


def _add_steering(verbs: Any) -> None:
    """The verbs that steer a sweep from another terminal, while it runs and afterwards."""
    stop = verbs.add_parser("stop", help="stop a sweep, resumable, or one of its trials for good")
    pause = verbs.add_parser("pause", help="pause a trial at its next report, or all of a sweep")
    unpause = verbs.add_parser("unpause", help="have a paused trial continue, or all of them")
    extend = verbs.add_parser("extend", help="give a sweep more trials, longer ones or more time")
    change = verbs.add_parser("set", help="change what share of the slots a sweep has")
    tried = verbs.add_parser("try", help="train other settings next, the rest as in the best trial so far")
    retry = verbs.add_parser("retry", help="train failed trials again, as new ones")
    fork = verbs.add_parser("fork", help="a new trial that continues from a trial's state with other settings")
    for parser in (stop, pause, unpause, extend, change, tried, retry):
        parser.add_argument("name", metavar="NAME", help="the sweep's name")
    for parser in (stop, pause, unpause):
        parser.add_argument("trial", metavar="TRIAL", nargs="?", help="a trial's number (default: the whole sweep)")
    extend.add_argument("--trials", metavar="N", type=_more, help="trials in all, or +N more")
    extend.add_argument("--epochs", metavar="N", type=_more, help="epochs of each trial, or +N more; the best that are "
                        "done continue from before their cooldown (lr_policy wsd)")  # fmt: skip
    extend.add_argument("--time-budget", metavar="+TIME", type=_more_time, dest="time_budget_seconds",
                        help="more time, as +30m")  # fmt: skip
    change.add_argument(
        "values",
        metavar="KEY=VALUE",
        nargs="+",
        help="max-concurrent=N, priority=N, weight=X",
    )
    fork.add_argument("run", metavar="RUN", help="NAME/NUMBER of a trial that runs, is paused or was stopped")
    fork.add_argument("--epoch", type=int, metavar="N", help="continue after this epoch (default: its last)")
    for parser in (tried, fork):
        parser.add_argument("settings", metavar="KEY=VALUE", nargs="+", help="as with --set: lr=0.02")
    retry.add_argument("--failed", action="store_true", help="those that failed, but for diverged ones")
    for parser in (stop, pause, unpause, extend, change, tried, fork, retry):
        parser.add_argument("--json", action="store_true", help="print the act and its answer as JSON")
        _where(parser)
        _common(parser)


def _add_after_a_sweep(verbs: Any) -> None:
    """The verbs for recorded runs."""
    run = "NAME/NUMBER, NAME for a sweep's best trial, or MLflow's run id"
    test = verbs.add_parser("test", help="read the test split for a finalist, once")
    test.add_argument("run", metavar="RUN", help=run)
    test.add_argument("--again", action="store_true", help="a second look, which the journal marks as one")
    ensemble = verbs.add_parser("ensemble", help="let several runs answer as one")
    ensemble.add_argument("runs", metavar="RUN", nargs="*", help=run)
    ensemble.add_argument("--sweep", metavar="NAME", help="the best trials of this sweep")
    ensemble.add_argument("--top", type=int, default=5, metavar="N", help="how many of them (default 5)")
    ensemble.add_argument("--method", choices=get_args(EnsembleMethod), default="mean",
                          help="mean (default), weighted by log loss on val, or greedy selection on val")  # fmt: skip
    ensemble.add_argument("--name", help="its name and folder (default ensemble-<UTC time>)")
    svm = verbs.add_parser("svm", help="put a support vector machine in place of a net's last layer")
    svm.add_argument("run", metavar="RUN", help=run)
    svm.add_argument("--kernel", choices=get_args(Kernel), default="linear",
                     help="linear (default), or rbf, approximated by 500 landmarks")  # fmt: skip
    svm.add_argument("--c", type=_positive_numbers, metavar="VALUES", dest="candidates", default=(),
                     help="values of C to choose from on a fifth of train, as 0.001,0.01")  # fmt: skip
    svm.add_argument("--name", help="its name and folder (default svm-<UTC time>)")
    compare = verbs.add_parser("compare", help="compare two or more runs or sweeps, face by face")
    compare.add_argument("runs", metavar="RUN", nargs="+", help=run)
    compare.add_argument("--json", action="store_true", help="print the comparison as JSON")
    compare.add_argument("--html", type=Path, metavar="FILE", help="write it as one page")
    compare.add_argument(
        "--numbers-only", action="store_true", help="compare runs on different data by their numbers alone"
    )
    report = verbs.add_parser("report", help="write a sweep's report, one page")
    report.add_argument("name", metavar="NAME", help="the sweep's name")
    report.add_argument("--html", type=Path, metavar="FILE", help="the page alone, there (default OUT/NAME/figures)")
    curves = verbs.add_parser("curves", help="draw a run's loss, accuracy and learning rate against iterations")
    curves.add_argument("run", metavar="RUN", help=run)
    curves.add_argument("--picture", type=Path, metavar="FILE.png",
                        help="default OUT/NAME/trials/NUMBER/iterations.png")  # fmt: skip
    events = verbs.add_parser("tensorboard", help="write a sweep's curves as TensorBoard's event files")
    events.add_argument("name", metavar="NAME", help="the sweep's name")
    inspect = verbs.add_parser("inspect", help="draw a net's layers, filters, maps and saliency")
    inspect.add_argument("run", metavar="RUN", help=run)
    inspect.add_argument("--layers", type=_names, metavar="L1,L2", help="stages or layers (default: each stage's map)")
    inspect.add_argument("--faces", metavar="N",
                         help="how many validation faces, or their places: 3,17 (default one a class)")  # fmt: skip
    inspect.add_argument("--image", type=Path, metavar="PATH", help="a picture of your own instead, PNG or JPEG")
    inspect.add_argument("--method", choices=("gradcam", "occlusion"), help="one of the two alone (default both)")
    inspect.add_argument("--out-dir", type=Path, metavar="DIR", help="default OUT/NAME/trials/NUMBER/inspect")
    register = verbs.add_parser("register", help="log a run as an MLflow model; champion if it beats the present one")
    register.add_argument("run", metavar="RUN", help=run)
    gc = verbs.add_parser("gc", help="remove checkpoints that are no longer needed, close runs of dead drivers")
    gc.add_argument("names", metavar="NAME", nargs="*", help="sweeps (default: all)")
    gc.add_argument("--keep", type=int, default=Options().keep, metavar="N",
                    help="keep the weights of each sweep's best N trials by val_accuracy (default 5), of baselines, "
                         "and of what other runs need")  # fmt: skip
    gc.add_argument("--yes", action="store_true", help="do it; without, only say what would be done")
    for parser in (test, svm, inspect):
        parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu",
                            help="where the net computes (default cpu, the same numbers on every machine)")  # fmt: skip
    for parser in (test, ensemble, svm, compare, report, curves, events, inspect, register, gc):
        _where(parser)
        _common(parser)


def run_parser() -> argparse.ArgumentParser:
    """`python -m sweeps.run SPACE …`."""
    parser = Parser(prog="python -m sweeps.run", description="Run a sweep over a space.")
    add_run_arguments(parser)
    return parser


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """SPACE, the options of `Options`, and those of this command alone."""
    parser.add_argument("space", metavar="SPACE", help="a built-in space, or your own: ./my_space.py")
    declared = flags(Options)
    for title in GROUPS:
        group = parser.add_argument_group(title)
        if title == TRAINED:
            add_flags(group, DataOptions)
        if title == RUN:
            _add_cluster(group)
        add_flags(group, Options, [name for name, flag in declared.items() if flag.group == title])
    parser.add_argument("--dry-run", action="store_true",
                        help="build baselines and 20 samples, a step each; print parameters, memory, time")  # fmt: skip
    _common(parser)


def _add_cluster(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    parser.add_argument("--cluster", type=Path, metavar="FILE", help="a cluster's file, as cluster/on_prem.yaml")


def options(given: argparse.Namespace) -> Options:
    """The options as the sweep takes them. Raises InputError with every fault."""
    if given.resume and not given.name:
        raise InputError("--resume needs --name: which sweep to continue with")
    values, faults = given_values(given, Options), []
    try:
        values["data"] = _data(given)
    except DataError as error:
        faults.append(str(error))
    try:
        asked = Options.parse(values)
    except InputError as error:
        faults.append(str(error))
    if faults:
        raise InputError("; ".join(faults))
    return asked


def _data(given: argparse.Namespace) -> DataOptions | None:
    """The data options; None in a resume that gives none, which keeps the sweep's."""
    if given.source == "":
        raise InputError("--data '': give a file or a folder, or leave --data out for synthetic faces")
    if given.resume and not given_values(given, DataOptions):
        return None
    said = DataOptions.given(given, given.source or os.environ.get("FER_DATA") or None)
    return said.model_copy(update={"limit_seed": given.seed or 0})


def _where(parser: argparse.ArgumentParser) -> None:
    add_flags(parser, Options, ["out", "tracking_uri"])
    parser.set_defaults(out=Options().out)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _more(text: str) -> str:
    if not text.removeprefix("+").isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}': expected a number, as 40, or how many more, as +20")
    return text


def _more_time(text: str) -> float:
    if not text.startswith("+"):
        raise argparse.ArgumentTypeError(f"'{text}': expected how much more, as +30m")
    return read_seconds(text.removeprefix("+"))


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"'{text}': expected names with commas between, as conv1,conv2")
    return list(dict.fromkeys(names))


def _positive_numbers(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(0 < value < math.inf for value in values):
        raise argparse.ArgumentTypeError(f"'{text}': expected numbers above 0, as 0.001,0.01")
    return values
