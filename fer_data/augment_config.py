"""How train images are varied; apart from augment.py so that a configuration is read without torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class AugmentConfig(BaseModel):
    """Random variations of a train image, each drawn anew per image and epoch; all off by default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    flip: float = Field(default=0.0, ge=0, le=1, description="probability of a left-right mirror image")
    rotate_deg: float = Field(default=0.0, ge=0, le=180, description="largest rotation either way, degrees")
    shift: float = Field(default=0.0, ge=0, le=0.5, description="largest shift, fraction of the side")
    scale: float = Field(default=0.0, ge=0, le=0.5, description="largest change of size, fraction")
    erase: float = Field(default=0.0, ge=0, le=1, description="probability of a random rectangle of noise")
