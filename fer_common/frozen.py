"""Models whose values do not change."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A frozen model without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Finite(Frozen):
    """A frozen model whose numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)
