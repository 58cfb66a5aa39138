"""Draws that several spaces share: a recipe with a range of learning rates, and strengths of augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fer_data import AugmentConfig
from fer_models import Recipe

if TYPE_CHECKING:
    import optuna

Range = tuple[float, float]


def draw_recipe(
    trial: optuna.Trial,
    *,
    lr: Range,
    weight_decay: Range | None = None,
    batch_sizes: Sequence[int] = (64, 128),
    optimizer: str = "nesterov",
    **fixed: Any,
) -> Recipe:
    """A recipe over one cycle of the learning rate, validated on the average of weights and of mirror images.

    The weight decay is drawn from four decades by default: AdamW's is multiplied by the learning rate, so it is higher.
    """
    decays = weight_decay or ((1e-5, 0.1) if optimizer == "adamw" else (1e-6, 0.01))
    drawn = {
        "optimizer": optimizer,
        "lr": trial.suggest_float("lr", *lr, log=True),
        "weight_decay": trial.suggest_float("weight_decay", *decays, log=True),
        "batch_size": trial.suggest_categorical("batch_size", list(batch_sizes)),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.15),
        "lr_policy": "onecycle",
        "ema_decay": 0.99,
        "views": "mirror",
    }
    return Recipe(**(drawn | fixed))


def draw_augment(trial: optuna.Trial, *, erase: float = 0.5, mixup: float = 0.0) -> AugmentConfig:
    """Mirror images, and random strengths of rotation, shift, scale, erasing and mixup."""
    return AugmentConfig(
        flip=0.5,
        rotate_deg=trial.suggest_float("rotate_deg", 0, 15),
        shift=trial.suggest_float("shift", 0, 0.12),
        scale=trial.suggest_float("scale", 0, 0.2),
        erase=trial.suggest_float("erase", 0, erase) if erase else 0.0,
        mixup=trial.suggest_float("mixup", 0, mixup) if mixup else 0.0,
    )


HE_2016 = Recipe(
    lr=0.1,
    weight_decay=1e-4,
    decay_bias_and_norm=True,
    batch_size=256,
    lr_policy="step",
    gamma=0.1,
    step_iterations=30,
    reference_iterations=90,
)
"""Residual nets on ImageNet: 90 epochs, a tenth at each 30, decay on all parameters (He et al. 2016, and torchvision's
reference)."""
