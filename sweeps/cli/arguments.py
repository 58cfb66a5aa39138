"""The arguments that several verbs share, and those of a sweep; read without importing torch, Ray or MLflow."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from fer_common.flags import Flag, add_flags, flags, given_values
from fer_common.verbs import Verb
from fer_data import DataError, DataOptions
from sweeps.errors import InputError
from sweeps.options import GROUPS, RUN, TRAINED, Address, Options, Out, TrackingUri
from sweeps.runs import Run, find_run

ONE_RUN = "NAME/NUMBER, NAME for a sweep's best trial, or MLflow's run id"
RunName = Annotated[str, Flag(ONE_RUN, "RUN", positional=True)]
SweepName = Annotated[str, Flag("the sweep's name", "NAME", positional=True)]
Cluster = Annotated[Path | None, Flag("a cluster's file, as cluster/on_prem.yaml", "FILE")]

NetDevice = Annotated[
    Literal["auto", "cpu", "cuda"],
    Flag("where the net computes (default cpu, the same numbers on every machine)"),
]


class OfSweeps(Verb):
    """A verb for the sweeps of a folder."""

    out: Out = Options().out
    tracking_uri: TrackingUri = None

    def find_runs(self, references: Sequence[str]) -> list[Run]:
        """The runs that are named. Raises InputError."""
        return [find_run(reference, self.out, self.tracking_uri) for reference in references]


class OnCluster(OfSweeps):
    """A verb for a sweep here, or on a cluster."""

    cluster: Cluster = None
    address: Address = None

    @property
    def is_afar(self) -> bool:
        """Whether it is for a sweep on a cluster."""
        return self.cluster is not None or self.address is not None


class SweepArguments(Verb):
    """The arguments of a sweep: its space and its options."""

    space: Annotated[str, Flag("a built-in space, or your own: ./my_space.py", "SPACE", positional=True)]
    cluster: Cluster = None
    dry_run: Annotated[bool, Flag("build baselines and 20 samples, a step each; print parameters, memory, time")] = (
        False
    )
    options: Options
    source: str | None = None
    """The data as the command line gives it; `options` have that of $FER_DATA too."""

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """SPACE, the options of `Options`, and those of this command alone."""
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
        """Its own, and the options of a sweep."""
        return super().fields_given(given) | {"options": options(given), "source": given.source}


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
