"""The options of a sweep, each declared once.

`run_sweep` takes each field by its name or alias, and its `Flag` makes it an option of the command line.
A field of `RecordedOptions` is also recorded in the sweep's spec and kept by a resume. To add an option, add a field.
"""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import to_jsonable_python

from fer_common.errors import did_you_mean
from fer_common.flags import Flag, command_line, explain, flags
from fer_common.frozen import Frozen
from fer_common.quantities import read_bytes, read_moment, read_seconds, read_share
from fer_data import DataOptions
from sweeps.config import parse_settings, setting_text
from sweeps.driver.notify import fault_of
from sweeps.errors import InputError
from sweeps.space import Pruner, Rungs, Sampler, Space, WhichBaselines
from tracking.metrics.winner import Preference
from tracking.record.objectives import ACCURACY_ALONE, faults_of

TRAINED, RUN, KEPT = "what is trained", "where it runs", "what is kept"
BUDGET = "limits, after which the sweep can be resumed"
SHARED = "sharing with other sweeps"
GROUPS = (TRAINED, RUN, BUDGET, SHARED, KEPT)
_Positive = Annotated[float | None, Field(gt=0, allow_inf_nan=False)]
Out = Annotated[Path, Flag("folder of all sweeps", "DIR", group=KEPT)]
TrackingUri = Annotated[
    str | None,
    Flag("tracking URI of MLflow (default $MLFLOW_TRACKING_URI, else sqlite:///OUT/mlflow.db)", "URI", group=KEPT),
]
Address = Annotated[
    str | None,
    Flag(
        "auto or HOST:6379 to join a Ray cluster; http://HOST:8265 to submit the sweep as a job, with --out or a "
        "cluster file's storage",
        "A",
        group=RUN,
    ),
]


def _as_data(value: object) -> object:
    """Read a bare source as a data set without other options, as in the first journals."""
    return DataOptions(source=value) if isinstance(value, str | Path) else value


def _as_settings(value: object) -> object:
    try:
        return parse_settings(value) if isinstance(value, list) else value
    except InputError as error:  # a ValueError is shown with the faults of the other options
        raise ValueError(str(error).removeprefix("--set: ")) from None


def _as_names(value: object) -> object:
    """Split `night,dusk` into names, without duplicates."""
    names = value.split(",") if isinstance(value, str) else value
    return tuple(dict.fromkeys(str(name).strip() for name in names)) if isinstance(names, list | tuple) else names


def _none_empty(names: tuple[str, ...]) -> tuple[str, ...]:
    if not all(names):
        raise ValueError("expected names of sweeps separated by commas, as night,dusk, or auto")
    return names


def _objectives(names: tuple[str, ...]) -> tuple[str, ...]:
    if faults := faults_of(names):
        raise ValueError("; ".join(faults))
    return names


def _share(text: str) -> float | str:
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}': expected a number, as 0.5, or auto") from None


def _postable(url: str) -> str:
    if fault := fault_of(url):
        raise ValueError(fault)
    return url


class RecordedOptions(Frozen):
    """Options that are recorded in the sweep's spec. A resume keeps them; it may change those that are not `fixed`."""

    data: Annotated[DataOptions, BeforeValidator(_as_data)] = DataOptions()
    trials: Annotated[
        int | None, Field(ge=1), Flag("total number of trials, including the space's baselines", "N", group=TRAINED)
    ] = None
    max_epochs: Annotated[
        int | None,
        Field(alias="epochs", ge=1),
        Flag("epochs per trial, unless it is pruned", "N", group=TRAINED, fixed=True),
    ] = None
    which_baselines: Annotated[
        WhichBaselines,
        Field(alias="baselines"),
        Flag("which of the space's baselines run first", group=TRAINED, fixed=True),
    ] = "all"
    seed: Annotated[
        int,
        Field(ge=0),
        Flag("random seed (default 0); the same seed gives the same trials", "N", group=TRAINED, fixed=True),
    ] = 0
    settings: Annotated[
        dict[str, Any],
        BeforeValidator(_as_settings),
        AfterValidator(to_jsonable_python),  # as the journal returns them: a tuple becomes a list
        Flag(
            "fix a setting in every trial, as --set batch_size=64 (repeatable)",
            "KEY=VALUE",
            name="set",
            group=TRAINED,
            write=lambda options: [f"{name}={setting_text(value)}" for name, value in options.settings.items()],
            repeat=True,
            fixed=True,
        ),
    ] = Field(default={})
    sampler: Annotated[
        Sampler | None,
        Flag(
            "how trials are proposed: qmc-tpe (evenly spread, but from 30 on every fourth by tpe), tpe, random, qmc "
            "(evenly spread), grid (every combination), gp, cmaes or nsgaii (default: the space's, else qmc-tpe)",
            "NAME",
            group=TRAINED,
            fixed=True,
        ),
    ] = None
    pruner: Annotated[
        Pruner | None,
        Flag(
            "how trials are pruned: promoting (trials wait at rungs, and the best continue), "
            "halving, hyperband, median, one-epoch, none (default: the space's, else promoting)",
            "NAME",
            group=TRAINED,
            fixed=True,
        ),
    ] = None
    objectives: Annotated[
        tuple[str, ...],
        Field(alias="objective"),
        BeforeValidator(lambda value: tuple(value.split(",")) if isinstance(value, str) else value),
        AfterValidator(_objectives),
        Flag(
            "what is optimized: val_accuracy (default), or together with any of parameters, seconds (per epoch) and "
            "latency (per face), of which less is better",
            "NAME,…",
            group=TRAINED,
            write=lambda options: [",".join(options.objectives)],
            fixed=True,
        ),
    ] = ACCURACY_ALONE
    rungs: Annotated[
        Rungs | None,
        Flag(
            "which trials the pruner compares: net, those of the same net, or all (default: the space's, else net)",
            group=TRAINED,
            fixed=True,
        ),
    ] = None
    learn_from: Annotated[
        tuple[str, ...],
        BeforeValidator(_as_names),
        AfterValidator(_none_empty),
        Flag(
            "learn from the trials of these sweeps in --out; auto: propose first the best configurations of all sweeps "
            "there on the same faces",
            "NAME,…",
            name="from",
            group=TRAINED,
            write=lambda options: [",".join(options.learn_from)],
            fixed=True,
        ),
    ] = ()
    replicates: Annotated[
        int | None,
        Field(ge=1),
        Flag(
            "train each configuration under N seeds; the sampler learns their mean (default: the space's, else 1)",
            "N",
            group=TRAINED,
            fixed=True,
        ),
    ] = None
    folds: Annotated[
        int | None,
        Field(ge=2),
        Flag(
            "train each configuration on K folds of train and val, copies of an image in the same fold; the sampler "
            "learns their mean (default: the space's, else none)",
            "K",
            group=TRAINED,
            fixed=True,
        ),
    ] = None
    confirm: Annotated[
        int | None,
        Field(ge=1),
        Flag(
            "at the end train the best K again under new seeds (3, or --replicates), and choose by their mean",
            "K",
            group=TRAINED,
        ),
    ] = None
    prefer: Annotated[
        Preference | None,
        Flag(
            "which of the trials within noise of the best wins: smaller (fewest parameters) or faster (shortest "
            "epochs) (default: the best)",
            group=TRAINED,
        ),
    ] = None
    runner: Annotated[
        Literal["ray", "inline"],
        Flag("ray (default), or inline: in this process, one trial at a time, for debugging", group=RUN),
    ] = "ray"
    device: Annotated[Literal["auto", "cpu", "cuda"], Flag("device of the nets (default auto)", group=RUN)] = "auto"
    cpus_per_trial: Annotated[float | None, Flag("cores per trial (default 1)", "X", group=RUN)] = None
    gpus_per_trial: Annotated[
        float | Literal["auto"] | None,
        Flag(
            "share of a GPU, as 0.5; number of GPUs that train a trial together, as 2; or auto (default): by measured "
            "memory and throughput",
            "X",
            group=RUN,
            read=_share,
        ),
    ] = "auto"
    workers_per_trial: Annotated[
        int | None,
        Field(ge=1),
        Flag(
            "processes that train one trial together, each on its part of every batch (default: one per GPU of the "
            "trial; 1 on cores)",
            "N",
            group=RUN,
        ),
    ] = None
    cuda_graphs: Annotated[
        Literal["on", "off"],
        Flag("on: replay training steps as CUDA graphs (default off: not measured on a GPU yet)", group=RUN),
    ] = "off"
    lanes: Annotated[
        Literal["auto", 1, 2, 4],
        Flag(
            "number of trials that share one process, each with its own thread and CUDA stream; auto: those of a GPU, "
            "up to 4 (default 1: more is not measured on a GPU yet)",
            group=RUN,
            read=lambda text: int(text) if text.isdecimal() else text,
        ),
    ] = 1
    max_concurrent: Annotated[int | None, Field(ge=1), Flag("maximum number of trials at once", "N", group=RUN)] = None
    cpu_hours: Annotated[
        _Positive, Flag("stop after X core hours, all trials and resumes together", "X", group=BUDGET)
    ] = None
    gpu_hours: Annotated[
        _Positive, Flag("stop after X GPU hours, all trials and resumes together", "X", group=BUDGET)
    ] = None
    max_cost: Annotated[
        _Positive,
        Flag("stop at this cost of the hours in which the sweep runs, all resumes together", "X", group=BUDGET),
    ] = None
    price_per_hour: Annotated[
        _Positive, Flag("what the machine or cluster costs per hour, for --max-cost", "X", group=BUDGET)
    ] = None
    until_gain: Annotated[
        float | None,
        Field(gt=0, le=100, allow_inf_nan=False),
        Flag(
            "stop when 50 % more trials are expected to gain fewer points of accuracy than this, as 0.5",
            "POINTS",
            group=BUDGET,
        ),
    ] = None
    max_failed: Annotated[
        float | None,
        Field(gt=0, le=1),
        Flag(
            "stop when a larger share of this run's trials has failed, once 4 have ended; as 50%",
            "SHARE",
            group=BUDGET,
            read=read_share,
            write=lambda options: [f"{options.max_failed:.6g}"],
        ),
    ] = None
    priority: Annotated[int, Flag("sweeps with a higher priority get slots first (default 0)", "N", group=SHARED)] = 0
    weight: Annotated[
        float,
        Field(gt=0, allow_inf_nan=False),
        Flag("share of the slots among sweeps of the same priority (default 1)", "X", group=SHARED),
    ] = 1.0
    keep: Annotated[
        int | None,
        Field(ge=1),
        Flag(
            "keep the weights of the best N trials by val_accuracy (default 5), of baselines and of the Pareto front",
            "N",
            group=KEPT,
        ),
    ] = 5
    """None in sweeps of versions that kept the weights of all trials."""
    keep_states: Annotated[
        int | None,
        Field(ge=0),
        Flag(
            "disk space for the states of paused and waiting trials, as 20GiB (default a tenth of the free disk)",
            "SIZE",
            group=KEPT,
            read=read_bytes,
            write=lambda options: [f"{options.keep_states / 2**20:g}MiB"],
        ),
    ] = None
    figures: bool = True


class Options(RecordedOptions):
    """The options of a sweep besides its space. None is "not given"."""

    time_budget_seconds: Annotated[
        float | None,
        Field(gt=0),
        Flag(
            "stop this run after a time, as 30m, 1.5h or 90s",
            "TIME",
            name="time-budget",
            group=BUDGET,
            read=read_seconds,
            write=lambda options: [f"{options.time_budget_seconds:g}s"],
        ),
    ] = None
    until: Annotated[
        datetime | None,
        Flag(
            "stop this run at a time, as 18:00 or 2030-01-31T08:00",
            "TIME",
            group=BUDGET,
            read=read_moment,
            write=lambda options: [options.until.isoformat()],
        ),
    ] = None
    notify: Annotated[
        str | None,
        AfterValidator(_postable),
        Flag("post new bests, failures and the end to Slack, ntfy or your own receiver", "URL", group=RUN),
    ] = None
    wait: Annotated[bool, Flag("queue: start no worker until a slot is free", group=SHARED)] = False
    address: Address = None
    """Address of a Ray cluster; None starts Ray on this machine."""
    cluster_cpus: int | None = None
    """Cores of the cluster with all its workers running."""
    cluster_gpus: int | None = None
    """GPUs of the cluster with all its workers running."""
    name: Annotated[str | None, Flag("the sweep's name and folder (default SPACE-<UTC time>)", "NAME", group=KEPT)] = (
        None
    )
    out: Out = Path("runs")
    tracking_uri: TrackingUri = None
    resume: Annotated[bool, Flag("continue the sweep --name", group=KEPT)] = False

    @model_validator(mode="before")
    @classmethod
    def _none_is_not_given(cls, values: Any) -> Any:
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def parse(cls, given: dict[str, Any]) -> Options:
        """Validate options given by name. Raises InputError with every fault."""
        names = {field.alias or name for name, field in cls.model_fields.items()}
        if unknown := [f"{name}: no such option{did_you_mean(name, names)}" for name in given if name not in names]:
            raise InputError("; ".join(unknown))
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise InputError("; ".join(explain(error, cls))) from None

    def completed_by(self, recorded: RecordedOptions) -> Options:
        """These options, with those that are not given taken from the resumed sweep."""
        kept = {name for name in RecordedOptions.model_fields if name not in self.model_fields_set}
        return self.model_copy(update={name: getattr(recorded, name) for name in kept})

    def with_groups_of(self, space: Space) -> Options:
        """These options, with seeds and folds from the space if neither is given."""
        if self.replicates or self.folds:
            return self
        return self.model_copy(update={"replicates": space.replicates, "folds": space.folds})


def same_trials(recorded: RecordedOptions) -> list[str]:
    """The arguments after SPACE with which `sweeps.run` trains the same trials on another device or machine."""
    shaping = ["trials", "confirm", *(name for name, flag in flags(Options).items() if flag.fixed)]
    return [*command_line(recorded.data), *command_line(Options().completed_by(recorded), shaping)]
