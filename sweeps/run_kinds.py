"""What a recorded run is: a trained net, an ensemble of runs, or a support vector machine on a net's features.

The kind is read from the keys `ensemble` and `svm` of the run's recorded configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

EnsembleMethod = Literal["mean", "weighted", "greedy"]
"""How the members of an ensemble are weighted."""


class _Kind(BaseModel):
    model_config = ConfigDict(frozen=True)

    @property
    def sources(self) -> tuple[str, ...]:
        """The runs that it was made from."""
        return ()


class TrainedNet(_Kind):
    """A net that a trial trained."""


class Ensemble(_Kind):
    """Runs whose predictions are averaged."""

    method: EnsembleMethod
    members: dict[str, float]
    """Runs and their weights, which sum to 1."""
    candidates: tuple[str, ...] = ()
    """The candidates for members; empty in ensembles of earlier versions, which recorded only the members."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Its members."""
        return tuple(self.members)

    @property
    def command(self) -> tuple[str, ...]:
        """The verb and the arguments that make it again."""
        return ("ensemble", *(self.candidates or self.members), "--method", self.method)

    @property
    def is_fitted(self) -> bool:
        """Whether its weights were fitted on the validation split."""
        return self.method != "mean"


class SvmHead(_Kind):
    """A support vector machine that replaces a net's last layer."""

    member: str
    kernel: str
    c: float
    tried: tuple[float, ...] = ()
    """The values of C that were compared."""
    held_out_accuracy: float

    @property
    def sources(self) -> tuple[str, ...]:
        """The run of the net."""
        return (self.member,)

    @property
    def command(self) -> tuple[str, ...]:
        """The verb and the arguments that make it again."""
        values = ",".join(f"{c:g}" for c in self.tried or (self.c,))
        return ("svm", self.member, "--kernel", self.kernel, "--c", values)


RunKind = TrainedNet | Ensemble | SvmHead


def kind_of(config: Mapping[str, Any]) -> RunKind:
    """The kind of the run that has this recorded configuration."""
    if "ensemble" in config:
        return Ensemble.model_validate(config["ensemble"])
    return SvmHead.model_validate(config["svm"]) if "svm" in config else TrainedNet()
