"""Arguments that several verbs share, and those of a sweep. Does not import torch, Ray or MLflow."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import model_validator

from fer_common.flags import Flag, add_flags, command_line, flags, given_values
from fer_common.verbs import Verb
from fer_data import DataError, DataOptions
from sweeps.cli.console import warn
from sweeps.errors import InputError
from sweeps.options import GROUPS, RUN, TRAINED, Options, Out, TrackingUri
from sweeps.runs import Run, find_run

ONE_RUN = "NAME/NUMBER, NAME for a sweep's best trial, or an MLflow run id"
RunName = Annotated[str, Flag(ONE_RUN, "RUN", positional=True)]
SweepName = Annotated[str, Flag("the sweep's name", "NAME", positional=True)]
Cluster = Annotated[Path | None, Flag("a cluster file, as cluster/on_prem.yaml", "FILE")]

NetDevice = Annotated[
    Literal["auto", "cpu", "cuda"],
    Flag("device of the net (default cpu, which gives the same numbers on every machine)"),
]


class OfSweeps(Verb):
    """A verb for the sweeps of a folder."""

    out: Out = Options().out
    tracking_uri: TrackingUri = None

    def find_runs(self, references: Sequence[str]) -> list[Run]:
        """The named runs. Raises InputError."""
        return [find_run(reference, self.out, self.tracking_uri) for reference in references]

    def find_net(self, reference: str) -> Run:
        """The run that is named; a warning where its net is that of the best epoch so far. Raises InputError."""
        run = find_run(reference, self.out, self.tracking_uri, unfinished=True)
        if run.so_far:
            warn(f"{run.name}: the net of {run.so_far}")
        return run


class OnCluster(OfSweeps):
    """A verb for a sweep on this machine or on a cluster."""

    cluster: Cluster = None
    address: Annotated[str | None, Flag("the Ray cluster on which the sweep runs, as http://HOST:8265", "URL")] = None

    @property
    def is_afar(self) -> bool:
        """Whether the sweep is on a cluster."""
        return self.cluster is not None or self.address is not None

    @property
    def reached_by(self) -> list[str]:
        """The options that name the cluster, and the folder there if it was given."""
        return command_line(self, ["cluster", "address", "out"])


class OfTrials(OnCluster):
    """A verb for a sweep or one of its trials, which may also be given as NAME/NUMBER."""

    name: SweepName
    trial: Annotated[str | None, Flag("a trial's number (default: the whole sweep)", "TRIAL", positional=True)] = None

    @model_validator(mode="before")
    @classmethod
    def _in_two_words(cls, values: Any) -> Any:
        name, slash, number = values.get("name", "").partition("/")
        return values | {"name": name, "trial": number} if slash and values.get("trial") is None else values


class SweepArguments(Verb):
    """The arguments of a sweep: its space and its options."""

    space: Annotated[str, Flag("a built-in space, or your own: ./my_space.py", "SPACE", positional=True)]
    cluster: Cluster = None
    dry_run: Annotated[
        bool, Flag("train nothing: build baselines and 20 samples, print parameters, memory and time")
    ] = False
    options: Options
    source: str | None = None
    """--data as given; `options` also have the default from $FER_DATA."""

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """SPACE, the fields of `Options`, and the options of this command only."""
        add_flags(parser, cls, ["space"])
        declared = flags(Options)
        for title in GROUPS:
            group = parser.add_argument_group(title)
            if title == TRAINED:
                add_flags(group, DataOptions)
            if title == RUN:
                add_flags(group, cls, ["cluster"])
            add_flags(group, Options, [name for name, flag in declared.items() if flag.group == title])
        add_flags(parser, cls, ["dry_run", "debug"])

    @classmethod
    def fields_given(cls, given: argparse.Namespace) -> dict[str, Any]:
        """Its own fields, and the options of the sweep."""
        return super().fields_given(given) | {"options": options(given), "source": given.source}


def options(given: argparse.Namespace) -> Options:
    """The sweep's options from the command line. Raises InputError with every fault."""
    values, faults = given_values(given, Options), list[str]()
    if given.resume and not given.name:
        faults.append("--resume needs --name NAME: the sweep to continue")
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
    """The data options. None if a resume gives none: it keeps those of the sweep."""
    if given.source == "":
        raise InputError("--data '': give a file or a folder, or omit --data for synthetic faces")
    if given.resume and not given_values(given, DataOptions):
        return None
    data = DataOptions.given(given, given.source or os.environ.get("FER_DATA") or None)
    return data.model_copy(update={"limit_seed": given.seed or 0})
