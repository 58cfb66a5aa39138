"""The options of a sweep, each declared once.

A field is an option: `run_sweep` takes it by its name or alias, and its `Flag` makes it an option of the command line.
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
BUDGET = "how much it may use"
SHARED = "beside other sweeps of this machine or cluster"
GROUPS = (TRAINED, RUN, BUDGET, SHARED, KEPT)
_Positive = Annotated[float | None, Field(gt=0, allow_inf_nan=False)]
Out = Annotated[Path, Flag("folder of all sweeps", "DIR", group=KEPT)]
TrackingUri = Annotated[
    str | None, Flag("MLflow (default $MLFLOW_TRACKING_URI, else sqlite:///OUT/mlflow.db)", "URI", group=KEPT)
]
Address = Annotated[
    str | None, Flag("auto or HOST:6379 to join Ray there, http://HOST:8265 to hand the sweep over", "A", group=RUN)
]


def _as_data(value: object) -> object:
    """A source alone is a data set with no other option, as in the first journals."""
    return DataOptions(source=value) if isinstance(value, str | Path) else value


def _as_settings(value: object) -> object:
    return parse_settings(value) if isinstance(value, list) else value


def _as_names(value: object) -> object:
    """`night,dusk` as names, each once."""
    names = value.split(",") if isinstance(value, str) else value
    return tuple(dict.fromkeys(str(name).strip() for name in names)) if isinstance(names, list | tuple) else names


def _none_empty(names: tuple[str, ...]) -> tuple[str, ...]:
    if not all(names):
        raise ValueError("expected names of sweeps with commas between, as night,dusk, or auto")
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
    """Options that a sweep's spec records: a resume keeps them, and may change those whose flag is not `fixed`."""

    data: Annotated[DataOptions, BeforeValidator(_as_data)] = DataOptions()
    trials: Annotated[
        int | None, Field(ge=1), Flag("trials in all, the space's baselines included", "N", group=TRAINED)
    ] = None
    max_epochs: Annotated[
        int | None,
        Field(alias="epochs", ge=1),
        Flag("epochs of a trial that is not pruned", "N", group=TRAINED, fixed=True),
    ] = None
    which_baselines: Annotated[
        WhichBaselines,
        Field(alias="baselines"),
        Flag("which of the space's baselines run first", group=TRAINED, fixed=True),
    ] = "all"
    seed: Annotated[int, Field(ge=0), Flag("same seed, same trials", "N", group=TRAINED, fixed=True)] = 0
    settings: Annotated[
        dict[str, Any],
        BeforeValidator(_as_settings),
        AfterValidator(to_jsonable_python),  # as the journal gives them back: a tuple is a list
        Flag(
            "fix a setting of every trial, as --set batch_size=64 (repeatable)",
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
            "what proposes trials: qmc-tpe (30 spread evenly, then tpe), tpe, random, qmc (spread evenly), grid (every "
            "combination), gp, cmaes or nsgaii (default: the space's, else qmc-tpe)",
            "NAME",
            group=TRAINED,
            fixed=True,
        ),
    ] = None
    pruner: Annotated[
        Pruner | None,
        Flag(
            "what gives trials up: promoting (each trial pauses at a rung, and the best of those that wait continue), "
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
            "what is optimized together: val_accuracy alone (default), or with any of parameters, seconds (per epoch) "
            "and latency (of one face), which are to be low",
            "NAME,…",
            group=TRAINED,
            write=lambda options: [",".join(options.objectives)],
            fixed=True,
        ),
    ] = ACCURACY_ALONE
    rungs: Annotated[
        Rungs | None,
        Flag(
            "whom a trial competes with before it is given up: net, those of its own kind of net, or all "
            "(default: the space's, else net)",
            group=TRAINED,
            fixed=True,
        ),
    ] = None
    learn_from: Annotated[
        tuple[str, ...],
        BeforeValidator(_as_names),
        AfterValidator(_none_empty),
        Flag(
            "learn from the trials of these sweeps in --out as from own ones; auto: begin with the best configurations "
            "that all sweeps there have found on the same faces",
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
            "train each configuration on K folds of train and val, copies of a picture in one fold; the sampler learns "
            "their mean (default: the space's, else none)",
            "K",
            group=TRAINED,
            fixed=True,
        ),
    ] = None
    confirm: Annotated[
        int | None,
        Field(ge=1),
        Flag(
            "train the best K again at the end, under new seeds (3, or --replicates), and choose by their mean",
            "K",
            group=TRAINED,
        ),
    ] = None
    prefer: Annotated[
        Preference | None,
        Flag(
            "the winner among the trials within noise of the best: smaller, the one with the fewest parameters, or "
            "faster, the one with the shortest epochs (default: the best)",
            group=TRAINED,
        ),
    ] = None
    runner: Annotated[
        Literal["ray", "inline"],
        Flag("ray (default), or inline: in this process, one at a time, for a debugger", group=RUN),
    ] = "ray"
    device: Annotated[Literal["auto", "cpu", "cuda"], Flag("where the nets compute", group=RUN)] = "auto"
    cpus_per_trial: Annotated[float | None, Flag("cores of a trial (default 1)", "X", group=RUN)] = None
    gpus_per_trial: Annotated[
        float | Literal["auto"] | None,
        Flag(
            "share of a GPU, as 0.5; whole ones that train a trial together, as 2; or auto: by measured memory and "
            "throughput (default)",
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
        Flag("whether a GPU replays training steps as CUDA graphs (default off: no card has shown it yet)", group=RUN),
    ] = "off"
    max_concurrent: Annotated[int | None, Field(ge=1), Flag("trials at once, at most", "N", group=RUN)] = None
    cpu_hours: Annotated[_Positive, Flag("core hours of all trials and resumes together", "X", group=BUDGET)] = None
    gpu_hours: Annotated[_Positive, Flag("GPU hours of all trials and resumes together", "X", group=BUDGET)] = None
    max_cost: Annotated[
        _Positive, Flag("cost of the hours in which the sweep runs, all resumes together", "X", group=BUDGET)
    ] = None
    price_per_hour: Annotated[
        _Positive, Flag("what the machine or cluster costs per hour, for --max-cost", "X", group=BUDGET)
    ] = None
    until_gain: Annotated[
        float | None,
        Field(gt=0, le=100, allow_inf_nan=False),
        Flag(
            "stop, resumable, where half as many trials again are expected to gain fewer points of accuracy; as 0.5",
            "POINTS",
            group=BUDGET,
        ),
    ] = None
    max_failed: Annotated[
        float | None,
        Field(gt=0, le=1),
        Flag(
            "stop, resumable, where more of this run's trials fail, once 4 have ended; as 50%",
            "SHARE",
            group=BUDGET,
            read=read_share,
            write=lambda options: [f"{options.max_failed:.6g}"],
        ),
    ] = None
    priority: Annotated[int, Flag("sweeps of a higher priority get slots first", "N", group=SHARED)] = 0
    weight: Annotated[
        float,
        Field(gt=0, allow_inf_nan=False),
        Flag("share of the slots among sweeps of one priority (default 1)", "X", group=SHARED),
    ] = 1.0
    keep: Annotated[
        int | None, Field(ge=1), Flag("weights of the best N trials by val_accuracy and of baselines", "N", group=KEPT)
    ] = 5
    """None in sweeps of versions that kept all."""
    keep_states: Annotated[
        int | None,
        Field(ge=0),
        Flag(
            "states that trials may continue from, in all, as 20GiB (default a tenth of the free disk)",
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
            "stop this run, resumable, after 30m, 1.5h or 90s",
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
            "stop this run, resumable, at 18:00, or at 2030-01-31T08:00",
            "TIME",
            group=BUDGET,
            read=read_moment,
            write=lambda options: [options.until.isoformat()],
        ),
    ] = None
    notify: Annotated[
        str | None,
        AfterValidator(_postable),
        Flag("post new bests, failures and the end there: Slack's, ntfy's or your own receiver", "URL", group=RUN),
    ] = None
    wait: Annotated[bool, Flag("start nothing and write nothing until a slot is free", group=SHARED)] = False
    address: Address = None
    """Of a Ray cluster; None starts Ray on this machine."""
    cluster_cpus: int | None = None
    """Cores of that cluster once all its workers are up."""
    cluster_gpus: int | None = None
    """GPUs of that cluster once all its workers are up."""
    name: Annotated[str | None, Flag("the sweep's name and folder (default SPACE-<UTC time>)", "NAME", group=KEPT)] = (
        None
    )
    out: Out = Path("runs")
    tracking_uri: TrackingUri = None
    resume: Annotated[bool, Flag("continue with the sweep of that name", group=KEPT)] = False

    @model_validator(mode="before")
    @classmethod
    def _none_is_not_given(cls, values: Any) -> Any:
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def parse(cls, given: dict[str, Any]) -> Options:
        """The options by their names. Raises InputError with every fault."""
        names = {field.alias or name for name, field in cls.model_fields.items()}
        if unknown := [f"{name}: no such option{did_you_mean(name, names)}" for name in given if name not in names]:
            raise InputError("; ".join(unknown))
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise InputError("; ".join(explain(error, cls))) from None

    def completed_by(self, recorded: RecordedOptions) -> Options:
        """These options; those not given are taken from the resumed sweep."""
        kept = {name for name in RecordedOptions.model_fields if name not in self.model_fields_set}
        return self.model_copy(update={name: getattr(recorded, name) for name in kept})

    def with_groups_of(self, space: Space) -> Options:
        """These options; seeds and folds are those of the space where neither is given."""
        if self.replicates or self.folds:
            return self
        return self.model_copy(update={"replicates": space.replicates, "folds": space.folds})


def same_trials(recorded: RecordedOptions) -> list[str]:
    """The arguments after SPACE with which `sweeps.run` trains the same trials on another device or machine."""
    shaping = ["trials", "confirm", *(name for name, flag in flags(Options).items() if flag.fixed)]
    return [*command_line(recorded.data), *command_line(Options().completed_by(recorded), shaping)]
