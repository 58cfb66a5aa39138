"""A space: what is searched, the baselines, and the default length."""

from __future__ import annotations

import hashlib
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import ValidationError

from fer_common.errors import did_you_mean
from sweeps.config import TrialConfig, explain
from sweeps.errors import InputError
from tracking.record.objectives import ACCURACY_ALONE, faults_of

if TYPE_CHECKING:
    import optuna

WhichBaselines = Literal["none", "first", "all"]
"""Which of a space's baselines a sweep runs."""

Sampler = Literal["tpe", "qmc-tpe", "random", "qmc", "grid", "gp", "cmaes", "nsgaii"]
"""How a sweep's trials are proposed."""

Pruner = Literal["halving", "promoting", "hyperband", "median", "one-epoch", "none"]
"""How trials are pruned."""

Rungs = Literal["net", "all"]
"""Which trials the pruner compares at its rungs: those of the same net, or all."""


_CHANGED = ", changed ("
"""Follows the name of a baseline that has some settings of the command line."""


@dataclass(frozen=True)
class Baseline:
    """A fixed configuration, often a report's own; `reported` is the published accuracy and where it was measured.

    `epochs` is the length of the report's run; a sweep with longer trials does not train it longer.
    """

    name: str
    config: TrialConfig
    reported: str = ""
    epochs: int | None = None

    def epochs_in(self, max_epochs: int) -> int:
        """Its epochs in a sweep with trials of `max_epochs`: as many, or the report's if those are fewer."""
        return min(max_epochs, self.epochs or max_epochs)

    def name_with(self, changed: Sequence[str]) -> str:
        """Its name if these settings are changed."""
        return f"{self.name}{_CHANGED}{', '.join(changed)})"

    def is_called(self, name: str) -> bool:
        """Whether `name` is its name, each with or without changes."""
        return name.partition(_CHANGED)[0] == self.name.partition(_CHANGED)[0]

    def is_in(self, names: Iterable[str]) -> bool:
        """Whether it is called by one of the names."""
        return any(map(self.is_called, names))


@dataclass(frozen=True)
class Prior:
    """Where good values of a parameter are expected: around `centre`, a number or one of the choices.

    `spread` is a standard deviation, in powers of ten for a parameter on a log scale; None is a tenth of the range, on
    that scale. A choice as centre is drawn half of the time.
    """

    centre: Any
    spread: float | None = None


@dataclass(frozen=True)
class Space:
    """`suggest` draws a configuration with Optuna's define-by-run calls; `baselines` run first and are never pruned.

    `trials` (baselines included) and `max_epochs` are the defaults of the command line. The first rung is at
    `first_rung_epochs`, each further one at `reduction_factor` times as many, and about one trial in
    `reduction_factor` continues (Li et al., 2020, asynchronous successive halving). With `rungs` "net" a trial is
    compared with trials of the same net, since another net may learn slower and end better. With promoting, one
    trial in `later_factor` continues from the second rung on, and up to `loss_epochs` trials are compared by val
    loss, later by val accuracy: after one epoch many nets predict one class for all faces and have the same
    accuracy. The properties below have the defaults of what is None.

    `priors` has expected values by parameter name: a value, or a `Prior` with its spread. The 2nd, 4th, 8th,
    16th … drawn trials are drawn near them: log2(n) of n trials, so that wrong priors cost little.

    With `replicates` each configuration is trained under that many seeds, with `folds` on that many folds of train and
    val. The options `--replicates` and `--folds` override both.

    `objectives` are optimized together: val_accuracy, and any of parameters, seconds and latency.
    """

    suggest: Callable[[optuna.Trial], TrialConfig]
    baselines: Sequence[Baseline] = field(default=())
    max_epochs: int = 20
    trials: int = 30
    first_rung_epochs: int | None = None
    reduction_factor: int | None = None
    later_factor: int | None = None
    loss_epochs: int | None = None
    name: str = ""
    sampler: Sampler = "qmc-tpe"
    pruner: Pruner = "promoting"
    rungs: Rungs = "net"
    priors: Mapping[str, Prior | Any] = field(default_factory=dict)
    replicates: int | None = None
    folds: int | None = None
    objectives: Sequence[str] = ACCURACY_ALONE

    def __post_init__(self) -> None:
        faults = [
            f"{name} must be at least {least}, got {value!r}"
            for name, value, least in (
                ("max_epochs", self.max_epochs, 1),
                ("trials", self.trials, 1),
                ("first_rung_epochs", self.first_rung, 1),
                ("reduction_factor", self.kept_one_in, 2),
                ("later_factor", 2 if self.later_factor is None else self.later_factor, 2),
                ("loss_epochs", self.loss_epochs or 0, 0),
            )
            if not isinstance(value, int) or value < least
        ]
        faults += [
            f"{name} must be at least 2, got {value!r}"
            for name, value in (("replicates", self.replicates), ("folds", self.folds))
            if value is not None and (not isinstance(value, int) or value < 2)
        ]
        if self.replicates and self.folds:
            faults.append(
                f"replicates={self.replicates} and folds={self.folds}: give one; folds also differ in their seeds"
            )
        faults += [
            f"baselines[{place}] must be a Baseline(name, config), got {baseline!r:.60}"
            for place, baseline in enumerate(self.baselines)
            if not isinstance(baseline, Baseline)
        ]
        names = Counter(one.name for one in self.baselines if isinstance(one, Baseline))
        faults += [f"baselines: {count} are named '{name}'" for name, count in names.items() if count > 1]
        faults += [
            f"{name} must be {', '.join(kinds)}; got {value!r}{did_you_mean(str(value), kinds)}"
            for name, value, kinds in (
                ("sampler", self.sampler, get_args(Sampler)),
                ("pruner", self.pruner, get_args(Pruner)),
                ("rungs", self.rungs, get_args(Rungs)),
            )
            if value not in kinds
        ]
        faults += [f"objectives: {fault}" for fault in faults_of(tuple(self.objectives))]
        faults += [
            f"priors: {name}: spread must be above 0, got {prior.spread!r}"
            for name, prior in self.expected.items()
            if prior.spread is not None and not (isinstance(prior.spread, int | float) and prior.spread > 0)
        ]
        if not callable(self.suggest):
            faults.append(f"suggest must be a function of a trial, got {self.suggest!r}")
        if faults:
            raise InputError("Space: " + "; ".join(faults))

    @property
    def expected(self) -> dict[str, Prior]:
        """The priors, each as a `Prior` around a value as it is recorded."""
        if not self.priors:
            return {}
        from sweeps.search.asked_trial import plain

        priors = {name: one if isinstance(one, Prior) else Prior(one) for name, one in self.priors.items()}
        return {name: replace(prior, centre=plain(name, prior.centre)) for name, prior in priors.items()}

    def with_baselines(self, which: WhichBaselines) -> Space:
        """The same space with all baselines, only the first, or none."""
        return replace(self, baselines=self.baselines[: {"none": 0, "first": 1, "all": None}[which]])

    def draw(self, trial: Any) -> TrialConfig:
        """The configuration that `suggest` draws from `trial`. Raises InputError for any fault in it."""
        try:
            config = self.suggest(trial)
        except ValidationError as error:
            raise InputError(f"space {self.name}: suggest: {explain(error)}") from error
        except InputError as error:
            raise InputError(f"space {self.name}: suggest: {error}") from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise InputError(f"space {self.name}: suggest: {type(error).__name__}: {error}") from error
        if not isinstance(config, TrialConfig):
            raise InputError(f"space {self.name}: suggest must return a TrialConfig, got {config!r}")
        return config

    @property
    def code_sha256(self) -> str | None:
        """Hash of the file that `suggest` is written in. None if there is none, as in a notebook."""
        try:
            return hashlib.sha256(Path(inspect.getfile(inspect.unwrap(self.suggest))).read_bytes()).hexdigest()
        except (OSError, TypeError):
            return None

    @property
    def first_rung(self) -> int:
        """The epochs of the first rung."""
        return 1 if self.first_rung_epochs is None else self.first_rung_epochs

    @property
    def kept_one_in(self) -> int:
        """The reduction factor."""
        if self.reduction_factor is None:
            return 4 if self.pruner == "promoting" else 3
        return self.reduction_factor

    @property
    def first_kept_one_in(self) -> int:
        """The number n, if one in n trials passes the first rung; one-epoch has only that rung."""
        return self.kept_one_in**2 if self.pruner == "one-epoch" else self.kept_one_in

    @property
    def later_kept_one_in(self) -> int:
        """The number n, if one in n trials passes a later rung."""
        if self.pruner != "promoting":
            return self.kept_one_in
        return self.later_factor or (2 if self.reduction_factor is None else self.reduction_factor)

    @property
    def compared_by_loss(self) -> int:
        """The last epoch after which trials are compared by val loss."""
        if self.pruner != "promoting":
            return 0
        return self.first_rung if self.loss_epochs is None else self.loss_epochs

    def expected_epochs(self, max_epochs: int) -> float | None:
        """Mean epochs of a sampled trial, if those that pass each rung are as many as they should be.

        None if the pruner does not keep a fixed share of the trials.
        """
        if self.pruner in ("median", "hyperband", "none"):
            return None
        total, rung, share, last = 0.0, self.first_rung, 1.0, 0
        while rung < max_epochs:
            total, last = total + share * (rung - last), rung
            share /= self.first_kept_one_in if rung == self.first_rung else self.later_kept_one_in
            if self.pruner == "one-epoch":
                break
            rung *= self.kept_one_in
        return total + share * (max_epochs - last)
