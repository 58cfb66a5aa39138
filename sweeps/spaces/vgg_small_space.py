"""The VGG report's vgg_small: seven convolutions, from scratch.

    python -m sweeps.run vgg_small_space

The baseline is the report's: Adam 1e-4, batch 128, raw grey levels, no augmentation, 100 epochs; it had 56.9 % test.

Measured 2026-11-27 on an H200 beside 13 other rows: 2.9 minutes, 55.00 % of PublicTest (`vgg_small`, 100 epochs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_models import Recipe, VGGSmallConfig
from sweeps.config import TrialConfig
from sweeps.space import Baseline, Space
from sweeps.spaces.drawing import draw_augment, draw_recipe

if TYPE_CHECKING:
    import optuna

REPORT = Baseline(
    "vgg_small (VGG report)",
    TrialConfig(net=VGGSmallConfig(), recipe=Recipe(optimizer="adam", lr=1e-4, batch_size=128)),
    reported="56.9 % test",
    epochs=100,
)


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Draw one configuration."""
    net = VGGSmallConfig(
        activation=trial.suggest_categorical("activation", ["relu", "leaky_relu"]), normalisation="standardise"
    )
    recipe = draw_recipe(trial, lr=(1e-4, 0.02), optimizer="adamw")
    return TrialConfig(net=net, recipe=recipe, augment=draw_augment(trial))


SPACE = Space(
    suggest=suggest,
    baselines=[REPORT],
    max_epochs=30,
    trials=10,
    first_rung_epochs=3,
    priors={"lr": 0.001, "weight_decay": 1e-4},
)
