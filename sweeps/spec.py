"""The recorded options of a sweep: a resume must agree with those in `_FIXED` and may change the rest."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from fer_common.flags import flags, option
from fer_data import DataOptions
from sweeps.config import explain
from sweeps.errors import InputError
from sweeps.options import Options, RecordedOptions
from sweeps.space import Pruner, Rungs, Sampler, Space, WhichBaselines
from sweeps.trial.messages import val_title
from tracking.metrics.groups import next_member, to_confirm
from tracking.record.events import TrialStarted
from tracking.record.history import SweepHistory, TrialGroup
from tracking.record.objectives import ACCURACY_ALONE

_FIXED = {"space": "the space", "fingerprint": "the data (fingerprint)"} | {
    name: option(Options, name) for name, flag in flags(Options).items() if flag.fixed
}

LONGEST_NAME = 100
"""Maximum number of characters of a sweep's name."""

_CONFIRMING_SEEDS = 3

_FIRST_RUNG_BEFORE_RECORDED = 2
"""The default when journals did not record it."""


class SweepSpec(RecordedOptions):
    """The options of a sweep and their resolved values.

    They are in the journal's first line, in each driver's event and, the latest, in spec.json.
    """

    name: str
    space: str
    """A built-in space's name, or the path of a user's file."""
    dataset: str
    fingerprint: str
    synthetic: bool
    classes: tuple[str, ...]
    faces: str
    """The cache folder on the driver's machine."""
    trials: int
    max_epochs: int
    baselines: dict[str, str] = Field(default={})
    """The reported accuracy of each baseline that is run."""
    baseline_epochs: tuple[int, ...] = ()
    """The epochs of each baseline that is run."""
    which_baselines: WhichBaselines = "all"
    objectives: tuple[str, ...] = ACCURACY_ALONE
    sampler: Sampler = "tpe"
    pruner: Pruner = "halving"
    rungs: Rungs = "all"
    """The defaults of the time when journals did not record them, as for sampler and pruner above."""
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    workers: int = 1
    """Processes that train a trial together."""
    fold_faces: tuple[str, ...] = ()
    """The cache folder of each of the `folds`."""
    gpus_per_trial: float | None = None
    gpu_shares: dict[str, float] = Field(default={})
    """Measured shares by net, with --gpus-per-trial auto."""
    tracking_uri: str | None = None
    """The tracking URI without its password; "default" is the store beside the sweeps, None in older journals."""
    keep: int | None = None
    first_rung_epochs: int | None = None
    reduction_factor: int | None = None
    later_factor: int | None = None
    """Of the pruner's rungs; None in older journals."""
    loss_epochs: int = 0
    """Up to how many epochs trials are compared by val loss; older sweeps compare by accuracy alone."""

    @field_validator("faces", mode="before")
    @classmethod
    def _folder_alone(cls, value: object) -> object:
        return value["folder"] if isinstance(value, dict) else value

    @model_validator(mode="before")
    @classmethod
    def _one_length_of_all(cls, values: Any) -> Any:
        """Journals of format 1 have one length for all baselines."""
        if isinstance(values, dict) and isinstance(each := values.get("baseline_epochs"), int):
            return values | {"baseline_epochs": (each,) * len(values.get("baselines", {}))}
        return values

    def as_at_its_start(self, space: Space, *, new_baselines: bool = False) -> Space:
        """`space` with the rungs of this sweep's start, and without baselines added since, unless those are wanted.

        A sweep that has only baselines continues with the next baseline.
        """
        factor = self.reduction_factor or space.reduction_factor
        space = replace(
            space,
            first_rung_epochs=self.first_rung_epochs or space.first_rung_epochs or _FIRST_RUNG_BEFORE_RECORDED,
            reduction_factor=factor,
            later_factor=self.later_factor or factor,
            loss_epochs=self.loss_epochs,
        )
        if new_baselines or self.trials <= len(self.baselines):
            return space
        return replace(space, baselines=[one for one in space.baselines if one.is_in(self.baselines)])

    def with_trials(self, trials: int, space: Space) -> SweepSpec:
        """The options for `trials` trials in all, with those of the space's baselines that become part of the sweep."""
        more = [one for one in space.baselines[:trials] if not one.is_in(self.baselines)]
        return self.model_copy(
            update={
                "trials": trials,
                "baselines": self.baselines | {one.name: one.reported for one in more},
                "baseline_epochs": (*self.baseline_epochs, *(one.epochs_in(self.max_epochs) for one in more)),
            }
        )

    @property
    def members(self) -> int:
        """The number of trials per configuration."""
        return self.replicates or self.folds or 1

    def to_begin(self, history: SweepHistory) -> int:
        """How many configurations are still to be started."""
        return max(self.trials - history.configurations, 0)

    def to_start(self, history: SweepHistory) -> int:
        """The maximum number of trials still to be started; a group that cannot win is not completed."""
        begun = self.next_member(history)
        owed = begun[0].size - begun[1] if begun else 0
        fresh = self.to_begin(history) * self.members
        confirming = self.confirmations_left(history) * self.confirming_members
        return owed + fresh + confirming + self._members_to_retry(history)

    def waits_for_person(self, history: SweepHistory) -> bool:
        """Whether a resume alone would train nothing, since a person paused what would continue first."""
        reasons = {trial.paused.reason if trial.paused else None for trial in history.unfinished}
        return "person" in reasons and reasons <= {"person", "rung"} and not self.to_start(history)

    def _members_to_retry(self, history: SweepHistory) -> int:
        """How many members of groups are to be trained again; a retry of a first member is among the configurations."""
        if not self._has_groups:
            return 0
        sources = [history.trials[one.source].started for one in history.wanted if one.verb == "retry"]
        return sum(source.is_further_member for source in sources)

    @property
    def _has_groups(self) -> bool:
        return self.members > 1 or bool(self.confirm)

    def next_member(self, history: SweepHistory) -> tuple[TrialGroup, int] | None:
        """The group whose next member is to be started now, and the member's index. None if there is none.

        With a pruner at whose rungs trials wait, the other members start when the first is done.
        """
        if not self._has_groups:
            return None
        return next_member(history, after_first=self.pruner == "promoting")

    @property
    def confirming_members(self) -> int:
        """The number of new seeds, or of folds, of a confirmation."""
        return self.members if self.members > 1 else _CONFIRMING_SEEDS

    def confirmations_left(self, history: SweepHistory) -> int:
        """The maximum number of trials still to be confirmed; none while a trial is paused by a person."""
        if self.confirm is None:
            return 0
        before = [trial for trial in history.unfinished if not trial.is_confirming]
        if any(trial.paused and trial.paused.reason == "person" for trial in before):
            return 0
        begun = {trial.started.group.confirms for trial in history.trials.values() if trial.started.group}
        if before or self.to_begin(history):
            return max(self.confirm - len(begun - {None}), 0)
        return sum(one.first.number not in begun for one in to_confirm(history, self.confirm))

    def data_of(self, started: TrialStarted) -> DataOptions:
        """The data that a trial is trained and validated on."""
        if started.fold is None:
            return self.data
        return self.data.model_copy(update={"fold": started.fold, "folds": self.folds})

    def faces_of(self, started: TrialStarted) -> str:
        """The cache folder of a trial's data."""
        return self.faces if started.fold is None else self.fold_faces[started.fold - 1]

    @property
    def val_title(self) -> str:
        """The name of the val split in titles."""
        return val_title(self.dataset, is_fold=bool(self.folds or self.data.fold))

    def gpu_share(self, net: str) -> float:
        """The GPU share of a trial of this net; the largest share for a net that was not measured."""
        if self.device == "cpu":
            return 0.0
        if self.gpus_per_trial is not None:
            return self.gpus_per_trial
        return self.gpu_shares.get(net, max(self.gpu_shares.values(), default=1.0))

    def _identity(self, field: str) -> Any:
        """The value that a resume must agree with. A space's file may have been moved, so only its name counts."""
        value = getattr(self, field)
        return space_label(value) if field == "space" else value

    def refuse_if_changed(self, asked: SweepSpec) -> None:
        """Raise InputError with everything in `asked` that a resume cannot change."""
        faults = [
            f"{words}: the sweep has {getattr(self, field)!r}, given is {getattr(asked, field)!r}"
            for field, words in _FIXED.items()
            if self._identity(field) != asked._identity(field)
        ]
        if faults:
            listed = "".join(f"\n  {fault}" for fault in faults)
            raise InputError(f"{self.name}: a resume keeps the settings of its start; choose another --name, "
                             f"or omit what differs{listed}")  # fmt: skip


def recorded_spec(history: SweepHistory) -> SweepSpec:
    """The latest options of the sweep."""
    try:
        return SweepSpec.model_validate(history.spec)
    except ValidationError as error:
        raise InputError(
            f"{history.started.name}: its journal was written by another version: {explain(error)}"
        ) from None


def check_name(name: str) -> str:
    """`name` if it can be a folder's name everywhere, else InputError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or len(name) > LONGEST_NAME:
        raise InputError(
            f"--name '{name}': a name has only letters, digits, '.', '_' and '-', starts with a letter or digit, "
            f"and has at most {LONGEST_NAME} characters"
        )
    return name


def space_label(space: str) -> str:
    """The name of the space and of the MLflow experiment. For a trial's config.json, its sweep and number."""
    path = Path(space)
    if path.parts[-3:-2] == ("trials",) and path.suffix == ".json":
        return "-".join([*path.parts[-4:-3], path.parent.name])
    return path.stem if path.suffix in (".py", ".json") else space
