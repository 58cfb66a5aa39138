"""The events of a sweep's journal: one frozen model per kind, distinguished by `event`.

Times are integer milliseconds since 1970, as in MLflow. They are sent to MLflow unchanged, so a replay stores each
point once.
"""

import time
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from fer_common.frozen import Frozen

FORMAT = 5
"""The journal format that this version writes; newer ones are refused."""

OBJECTIVE: Final = "val_accuracy"
"""The metric that ranks trials, by its value at their best epoch; by default it selects that epoch. Higher is better.
"""

PARAMETERS = "parameters"
"""Number of trainable parameters, reported at a trial's end, because its weights may be deleted afterwards."""

LEAK_FREE = "_leak_free"
"""Suffix of metrics computed without the images whose pixels are also in a split that the net was trained on."""

TrialState = Literal["done", "pruned", "failed", "stopped"]

PauseReason = Literal["rung", "share", "person", "budget"]
"""Why a trial was paused: it waits at a rung, another sweep needs its slot, a person asked, or a budget is used up."""

Told = Literal["value", "pruned", "worst", "nothing"]
"""What the sampler learned from a trial.

Its best value (`value`); that it was pruned, with its values until then; that it is worse than all others (`worst`); or
nothing.
"""

_PAUSED_FOR: dict[PauseReason, str] = {
    "rung": "waits at the rung",
    "share": "waits for a slot",
    "person": "paused by {who}",
    "budget": "a budget is used up",
}


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class _Frozen(BaseModel):
    # Infinities and NaN are results of training; as strings they stay legal JSON.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class _Event(_Frozen):
    time_ms: int = Field(default_factory=now_ms)


class Lesson(Frozen):
    """A trial of another sweep, `source` (NAME/NUMBER), from which the sampler learns as from its own trials.

    `params` are its values of those parameters that this sweep's space has, `curve` is its objective by epoch.
    """

    source: str
    told: Told
    value: float | None = None
    curve: dict[int, float] = Field(default={})
    params: dict[str, Any]
    distributions: dict[str, str]


class Offer(Frozen):
    """A configuration of another sweep's trial, `source` (NAME/NUMBER), that is one of the first proposals."""

    source: str
    params: dict[str, Any]


class SweepStarted(_Event):
    """Line 1 of every journal. `tags` are set on every MLflow run of the sweep (data set, fingerprint …)."""

    event: Literal["sweep"] = "sweep"
    format: int = FORMAT
    sweep_id: str = Field(pattern=r"^[0-9a-f]{8,64}$")
    name: str
    space: str
    tags: dict[str, str] = {}
    spec: dict[str, Any]
    lessons: tuple[Lesson, ...] = ()
    offers: tuple[Offer, ...] = ()


class Drawn(Frozen):
    """The values of a trial's parameters, and the distributions from which they were drawn."""

    params: dict[str, Any]
    distributions: dict[str, str]


class DriverStarted(_Event):
    """A process started to drive the sweep, for the first time or after a stop."""

    event: Literal["driver"] = "driver"
    format: int = 1
    """Format of the lines that it writes. Drivers of format 1 did not record it."""
    host: str
    pid: int
    versions: dict[str, str]
    git_commit: str | None = None
    gpus: str | None = None
    """The GPUs that trials train on, their driver, and whether fp32 is exact on them."""
    resumed: bool = False
    space_sha256: str | None = None
    """Hash of the space's file, if there is one."""
    spec: dict[str, Any] = {}
    """The options of this driver. A resume may change the number of trials or the hardware."""
    redrawn: dict[int, Drawn | None] | None = None
    """How a space that was edited draws each earlier trial, by number. It replaces what earlier drivers recorded.

    None means that the space cannot draw the trial; the sampler then does not learn from it.
    """


class Wanted(Frozen):
    """A trial that a person asked for: its configuration, and the trial from which this was taken.

    `params` and `distributions` are those with which the space draws the same configuration; empty if it cannot. With
    `epoch` the trial continues from the source's state after that epoch, of which the sweep's folder has a copy.
    `epochs` is the length when it was asked for; it may start with more, since the sweep may be extended meanwhile.
    """

    act: str
    verb: str
    source: int
    config: dict[str, Any]
    epochs: int
    epoch: int | None = None
    plateau_from: int | None = None
    """The epoch after which a plateau has no reductions, since the person gave the learning rate from there on."""
    params: dict[str, Any] = Field(default={})
    distributions: dict[str, str] = Field(default={})


class Lengthened(Frozen):
    """A trial was given more epochs: it continues after `epoch`, and its later epochs no longer count."""

    trial: int
    epochs: int
    epoch: int


class Act(_Event):
    """A person's request to the sweep. `answer` has its effect, or the reason why it was refused."""

    event: Literal["act"] = "act"
    act: str
    verb: str
    arguments: dict[str, Any] = {}
    who: str
    asked_ms: int
    answer: str
    refused: bool = False
    wanted: tuple[Wanted, ...] = ()
    lengthened: tuple[Lengthened, ...] = ()
    spec: dict[str, Any] = {}
    """The options from now on, if the act changes them."""


class Group(Frozen):
    """A trial's place in a group. The trials of a group have one configuration, and are one trial to the sampler.

    `first` is the number of the group's first trial; members are counted from 0.
    """

    first: int
    member: int = Field(ge=0)
    size: int = Field(ge=2)
    confirms: int | None = None
    """The trial whose accuracy the group checks under new seeds."""


class TrialStarted(_Event):
    """A trial was proposed; numbers are unique in the journal and never reused.

    `config` and `config_id` are empty if the space raised an error for the drawn values.
    """

    event: Literal["trial"] = "trial"
    trial: int = Field(ge=0)
    config_id: str
    config: dict[str, Any]
    seed: int
    epochs: int = Field(ge=1)
    baseline: str | None = None
    report_epochs: int | None = None
    """For a baseline: the number of epochs in its report, if known."""
    params: dict[str, Any] = {}
    distributions: dict[str, str] = {}
    wanted: Wanted | None = None
    """For a trial that a person asked for: the request and its source."""
    group: Group | None = None
    fold: int | None = None
    """The fold that is its validation split, counted from 1."""

    @property
    def is_further_member(self) -> bool:
        """Whether its configuration was already trained by another trial: the first of its group, or one to confirm."""
        return self.group is not None and (self.group.member > 0 or self.group.confirms is not None)

    @property
    def began_from_state(self) -> bool:
        """Whether it began from a state of another trial, so that it cannot be trained from its start."""
        return self.wanted is not None and self.wanted.epoch is not None

    @property
    def net(self) -> str:
        """The name of its kind of net; empty if the draw gave no configuration."""
        name: str = self.config.get("net", {}).get("name", "")
        return name

    @property
    def title(self) -> str:
        """The name of the baseline or of the net, with its place in a group; `refused draw` without a configuration."""
        return self._titled(lambda group, kind: f"{kind} {group.member + 1} of {group.size}")

    @property
    def group_title(self) -> str:
        """The title of its group, for example `lenet, 5 folds`; its own title if it has no group."""
        return self._titled(lambda group, kind: f"{group.size} {kind}s")

    def _titled(self, place: Callable[[Group, str], str]) -> str:
        """Its name and, for a member of a group, what `place` says of the group and of its kind, seed or fold."""
        own = self.baseline or self.net or "refused draw"
        if self.group is None:
            return own
        confirming = "" if self.group.confirms is None else f" confirming {self.group.confirms}"
        return f"{own},{confirming} {place(self.group, 'seed' if self.fold is None else 'fold')}"

    @property
    def settings(self) -> dict[str, Any]:
        """Its configuration, or the drawn values if they gave none."""
        return self.config or {"drawn": self.params}


class AttemptStarted(_Event):
    """A trial was assigned to a worker: for the first time, after a worker died, or after a resume."""

    event: Literal["attempt"] = "attempt"
    trial: int
    attempt: int = Field(ge=0)
    reason: str


class EpochResults(_Frozen):
    """The values of an epoch; `iterations` are (iteration, train_loss, learning_rate) within it."""

    epoch: int = Field(ge=1)
    metrics: dict[str, float]
    iterations: tuple[tuple[int, float, float], ...] = ()

    def results(self) -> dict[str, Any]:
        """The fields of this class alone, also for a subclass."""
        return {name: getattr(self, name) for name in EpochResults.model_fields}


class EpochDone(EpochResults, _Event):
    """A trial finished an epoch, and its checkpoint is on disk."""

    event: Literal["epoch"] = "epoch"
    trial: int


class Verdict(_Event):
    """The driver decided to end a running trial, which has not left its worker yet."""

    event: Literal["verdict"] = "verdict"
    trial: int
    state: Literal["pruned", "stopped"]
    epoch: int
    reason: str


class TrialPaused(_Event):
    """A trial left its worker after `epoch`, to continue later from its state; `who` asked for it, if a person did."""

    event: Literal["paused"] = "paused"
    trial: int
    epoch: int
    reason: PauseReason
    who: str | None = None

    @property
    def text(self) -> str:
        """The reason as text."""
        if self.reason == "share" and self.who:
            return f"paused by {self.who}, as the whole sweep"
        return _PAUSED_FOR[self.reason].format(who=self.who or "a person")


class TrialUnpaused(_Event):
    """A paused trial is to continue as soon as a slot is free; `who` asked for it, if a person did.

    A trial that is not paused was promoted as it reached a rung, and kept its worker.
    """

    event: Literal["unpaused"] = "unpaused"
    trial: int
    who: str | None = None


class TrialEnded(_Event):
    """A trial left its worker. With `final=False` (after a signal) a resume continues it."""

    event: Literal["end"] = "end"
    trial: int
    state: TrialState
    reason: str | None = None
    note: str | None = None
    """How the trial's training differed from its configuration."""
    best: dict[str, float] = {}
    epochs: int
    diverged: bool = False
    final: bool = True
    told: Told | None = None
    """None if the trial can be resumed, and in journals of format 1."""
    undrawn: bool = False
    """Whether its pictures are still to be drawn; a `TrialDrawn` follows when they are."""

    @property
    def drops_out(self) -> bool:
        """Whether the trial failed or was stopped for good, so that it no longer competes at rungs."""
        return self.final and self.state in ("failed", "stopped")


class TrialDrawn(_Event):
    """The pictures of a trial that ended after `epochs` are on disk."""

    event: Literal["drawn"] = "drawn"
    trial: int
    epochs: int


class TrialTested(_Event):
    """A trial was evaluated on the test split; `look` counts the evaluations from 1.

    `test_split` is the fingerprint of the split's images and labels; None in journals of earlier versions.
    """

    event: Literal["tested"] = "tested"
    trial: int
    look: int = Field(ge=1)
    metrics: dict[str, float]
    test_split: str | None = None

    @property
    def when(self) -> str:
        """The time in UTC as text."""
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.time_ms / 1000))


class DriverStopped(_Event):
    """The driver ended before the sweep was finished."""

    event: Literal["stopped"] = "stopped"
    reason: str


class SweepEnded(_Event):
    """Every requested trial has ended for good; with the number of trials in each state."""

    event: Literal["finished"] = "finished"
    done: int = 0
    pruned: int = 0
    failed: int = 0
    stopped: int = 0


Event = (
    SweepStarted
    | DriverStarted
    | Act
    | TrialStarted
    | AttemptStarted
    | EpochDone
    | Verdict
    | TrialPaused
    | TrialUnpaused
    | TrialEnded
    | TrialDrawn
    | TrialTested
    | DriverStopped
    | SweepEnded
)

EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])
"""Reads any event from JSON."""
