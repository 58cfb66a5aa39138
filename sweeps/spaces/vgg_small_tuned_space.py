"""The VGG report's vgg_small_tuned: vgg_small with batch norm, dropout, max-norm and L2.

    python -m sweeps.run vgg_small_tuned_space

The baseline is the report's: Adam 1e-4, batch 128, raw grey levels, no augmentation, 100 epochs; it had 61.5 % test.

Measured 2026-11-27 on an H200 beside 13 other rows: 4.3 minutes, 59.93 % of PublicTest (`vgg_small_tuned`, 100
epochs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_models import Recipe, VGGSmallTunedConfig
from sweeps.config import TrialConfig
from sweeps.space import Baseline, Space
from sweeps.spaces.drawing import draw_augment, draw_recipe

if TYPE_CHECKING:
    import optuna

REPORT = Baseline(
    "vgg_small_tuned (VGG report)",
    TrialConfig(net=VGGSmallTunedConfig(), recipe=Recipe(optimizer="adam", lr=1e-4, batch_size=128)),
    reported="61.5 % test",
    epochs=100,
)


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Draw one configuration."""
    net = VGGSmallTunedConfig(
        normalisation="standardise",
        dropouts=tuple(trial.suggest_float(f"dropout_{place}", 0.0, 0.6) for place in range(5)),
        max_norm=trial.suggest_float("max_norm", 1.0, 8.0),
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
