"""Which net, and its options: frozen, validated, and light (no torch)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

NET_NAMES = ("lenet", "alexnet")

_Dropout = Annotated[float, Field(ge=0, lt=1)]


class LeNetConfig(BaseModel):
    """Caffe's LeNet (Caffe report): 2,054,577 parameters with 7 classes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Literal["lenet"] = "lenet"
    dropout: _Dropout = 0.0
    """After FC500; the report's dropout variant is 0.5."""


class AlexNetConfig(BaseModel):
    """AlexNet for 48-pixel faces (Caffe report): 7,467,527 parameters with 7 classes and `norm="lrn"`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Literal["alexnet"] = "alexnet"
    norm: Literal["lrn", "batch"] = "lrn"
    """`lrn` is the report's net with Caffe's start; `batch` has batch norm, scaled input and He's start."""
    dropout: _Dropout = 0.5
    """After FC4096 and after FC1000."""


NetConfig = Annotated[LeNetConfig | AlexNetConfig, Field(discriminator="name")]
