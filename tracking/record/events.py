"""The events of a sweep's journal: one frozen model per kind, distinguished by `event`.

Times are integer milliseconds since 1970, as MLflow takes them. They are sent to MLflow unchanged, so a replay
stores each point once.
"""

import time
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from fer_common.frozen import Frozen

FORMAT = 5
"""Version of the journal's lines; newer ones are refused."""

OBJECTIVE: Final = "val_accuracy"
"""Ranks trials by its value at their best epoch, and selects that epoch by default; higher is better."""

PARAMETERS = "parameters"
"""Number of trainable parameters, reported at a trial's end because its weights may then be deleted."""

LEAK_FREE = "_leak_free"
"""Ends a metric's name: without those images whose pixels are also in a split that the net was trained on."""

TrialState = Literal["done", "pruned", "failed", "stopped"]

PauseReason = Literal["rung", "share", "person", "budget"]
"""Why a trial was paused: it waits for a promotion, its slot was needed elsewhere, a person asked, or a budget is
spent."""

Told = Literal["value", "pruned", "worst", "nothing"]
"""What the sampler learned of a trial: its best value; that it was given up, and where it stood then; that it is
worse than all others; or nothing."""

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
    """A trial of another sweep, `source` (NAME/NUMBER), that the sampler learns from as from its own.

    `params` are those of its parameters that this sweep's space has, `curve` its objective by epoch.
    """

    source: str
    told: Told
    value: float | None = None
    curve: dict[int, float] = Field(default={})
    params: dict[str, Any]
    distributions: dict[str, str]


class Offer(Frozen):
    """A configuration of another sweep's trial, `source` (NAME/NUMBER), that is among the first to be proposed."""

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
    """The values of a trial's parameters, and what these may be."""

    params: dict[str, Any]
    distributions: dict[str, str]


class DriverStarted(_Event):
    """A process started to drive the sweep, for the first time or again."""

    event: Literal["driver"] = "driver"
    format: int = 1
    """Of the lines that it writes; drivers of version 1 did not record it."""
    host: str
    pid: int
    versions: dict[str, str]
    git_commit: str | None = None
    gpus: str | None = None
    """The GPUs that trials train on, their driver, and whether fp32 is exact on them."""
    resumed: bool = False
    space_sha256: str | None = None
    """Of the space's file, where there is one."""
    spec: dict[str, Any] = {}
    """What this driver was asked to do; a resume may ask for more trials or other hardware than the start did."""
    redrawn: dict[int, Drawn | None] | None = None
    """Where the space was edited: how it draws the trials that were drawn before, by their numbers. The sampler learns
    nothing from those with None. It replaces what an earlier driver recorded."""


class Wanted(Frozen):
    """A trial that a person asked for: a configuration, and the trial that it was taken from.

    `params` and `distributions` are those of an equal draw; empty if the space cannot draw it. With
    `epoch` it continues from that trial's state after so many epochs, which is kept for it in the sweep's folder.
    """

    act: str
    verb: str
    source: int
    config: dict[str, Any]
    epochs: int
    epoch: int | None = None
    params: dict[str, Any] = Field(default={})
    distributions: dict[str, str] = Field(default={})


class Lengthened(Frozen):
    """A trial that was given more epochs: it continues after `epoch`, and what it had after that no longer counts."""

    trial: int
    epochs: int
    epoch: int


class Act(_Event):
    """A person's request to the sweep; `answer` is the effect, or why it is refused."""

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
    """What the sweep is asked to do from now on, where the act changes that."""


class Group(Frozen):
    """A trial's place among the trials of one configuration, which the sampler sees as one.

    `first` is the number of the group's first trial; members are counted from 0.
    """

    first: int
    member: int = Field(ge=0)
    size: int = Field(ge=2)
    confirms: int | None = None
    """The trial whose accuracy the group checks under new seeds."""


class TrialStarted(_Event):
    """A trial was proposed; its number is the journal's and never given twice.

    `config` and `config_id` are empty if the space refused what was drawn.
    """

    event: Literal["trial"] = "trial"
    trial: int = Field(ge=0)
    config_id: str
    config: dict[str, Any]
    seed: int
    epochs: int = Field(ge=1)
    baseline: str | None = None
    report_epochs: int | None = None
    """Of a baseline, how long the report trained it, where that is known."""
    params: dict[str, Any] = {}
    distributions: dict[str, str] = {}
    wanted: Wanted | None = None
    """Of a trial that a person asked for: its lineage."""
    group: Group | None = None
    fold: int | None = None
    """Which of the sweep's folds is its validation split, from 1."""

    @property
    def is_further_member(self) -> bool:
        """Whether it trains again what another trial of its group began, or what a sweep's best trial did."""
        return self.group is not None and (self.group.member > 0 or self.group.confirms is not None)

    @property
    def net(self) -> str:
        """The name of its kind of net; empty if a draw came to no configuration."""
        name: str = self.config.get("net", {}).get("name", "")
        return name

    @property
    def title(self) -> str:
        """A baseline's name, or the net's; a draw that came to no configuration has neither."""
        return f"{self._own_title}{self._place}"

    @property
    def group_title(self) -> str:
        """The title of its whole group: `lenet, 5 folds`; without a group, its own."""
        if self.group is None:
            return self._own_title
        kind = "seeds" if self.fold is None else "folds"
        confirming = "" if self.group.confirms is None else f" confirming {self.group.confirms}"
        return f"{self._own_title},{confirming} {self.group.size} {kind}"

    @property
    def _own_title(self) -> str:
        return self.baseline or self.net or "refused draw"

    @property
    def _place(self) -> str:
        """`, seed 2 of 3` or `, fold 2 of 5`."""
        if self.group is None:
            return ""
        kind = "seed" if self.fold is None else "fold"
        confirming = "" if self.group.confirms is None else f" confirming {self.group.confirms}"
        return f",{confirming} {kind} {self.group.member + 1} of {self.group.size}"

    @property
    def settings(self) -> dict[str, Any]:
        """Its configuration, or the values of a draw that came to none."""
        return self.config or {"drawn": self.params}


class AttemptStarted(_Event):
    """A trial was handed to a worker: first, after the worker's death, or after a resume."""

    event: Literal["attempt"] = "attempt"
    trial: int
    attempt: int = Field(ge=0)
    reason: str


class EpochResults(_Frozen):
    """An epoch's scalars; `iterations` are (iteration, train_loss, learning_rate) within it."""

    epoch: int = Field(ge=1)
    metrics: dict[str, float]
    iterations: tuple[tuple[int, float, float], ...] = ()

    def results(self) -> dict[str, Any]:
        """These fields alone, of a subclass too."""
        return {name: getattr(self, name) for name in EpochResults.model_fields}


class EpochDone(EpochResults, _Event):
    """A trial finished an epoch, and its checkpoint is on disk."""

    event: Literal["epoch"] = "epoch"
    trial: int


class Verdict(_Event):
    """Decided for a running trial, which still has to finish."""

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
        """Why, for a person."""
        if self.reason == "share" and self.who:
            return f"paused by {self.who}, as the whole sweep"
        return _PAUSED_FOR[self.reason].format(who=self.who or "a person")


class TrialUnpaused(_Event):
    """A paused trial is to continue as soon as a slot is free; `who` asked for it, where a person did."""

    event: Literal["unpaused"] = "unpaused"
    trial: int
    who: str | None = None


class TrialEnded(_Event):
    """A trial left its worker. With `final=False` (a signal, a budget) a resume takes it up again."""

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
    """None if the trial is to be resumed, and in journals of format 1."""
    undrawn: bool = False
    """Whether its pictures are yet to be drawn; a `TrialDrawn` follows when they are."""

    @property
    def drops_out(self) -> bool:
        """Whether the trial failed or was stopped for good: then it competes with no other."""
        return self.final and self.state in ("failed", "stopped")


class TrialDrawn(_Event):
    """The pictures of a trial that ended after `epochs` are on disk."""

    event: Literal["drawn"] = "drawn"
    trial: int
    epochs: int


class TrialTested(_Event):
    """The test split was read for a trial; `look` counts from 1."""

    event: Literal["tested"] = "tested"
    trial: int
    look: int = Field(ge=1)
    metrics: dict[str, float]

    @property
    def when(self) -> str:
        """The time, in UTC, for a person."""
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.time_ms / 1000))


class DriverStopped(_Event):
    """The driver left before the sweep was over."""

    event: Literal["stopped"] = "stopped"
    reason: str


class SweepEnded(_Event):
    """Every trial asked for is in its final state; how many in each."""

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
