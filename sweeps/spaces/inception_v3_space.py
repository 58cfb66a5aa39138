"""Inception v3 on faces of 96 pixels, from scratch or from ImageNet's weights.

    python -m sweeps.run inception_v3_space
    python -m sweeps.run inception_v3_space --set weights=imagenet

The R/Keras report tried to transfer this net and never ran it: global average pool, dropout .5, one layer. The net
takes 75 pixels or more. The baseline has the learning rate of Szegedy et al. (2016), .045 times .94 each second of
100 epochs, with SGD.

Measured 2026-11-27 on an H200 beside 13 other rows: 6.9 minutes, 31.07 % of PublicTest (`inception_v3_96`, 9 of 10
epochs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_models import InceptionV3Config, Recipe
from sweeps.config import TrialConfig
from sweeps.space import Baseline, Space
from sweeps.spaces.drawing import draw_augment, draw_recipe

if TYPE_CHECKING:
    import optuna

NET = InceptionV3Config(size=96, auxiliary_weight=0.0)

BASELINE = Baseline(
    "Inception v3 (Szegedy et al.)",
    TrialConfig(
        net=NET,
        recipe=Recipe(
            lr=0.045, batch_size=32, lr_policy="step", gamma=0.94, step_iterations=2, reference_iterations=100
        ),
    ),
    epochs=100,
)


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Draw one configuration."""
    net = NET.model_copy(update={"dropout": trial.suggest_float("dropout", 0.1, 0.6)})
    recipe = draw_recipe(trial, lr=(1e-3, 0.3), batch_sizes=(32, 64))
    return TrialConfig(net=net, recipe=recipe, augment=draw_augment(trial))


SPACE = Space(suggest=suggest, baselines=[BASELINE], max_epochs=12, trials=8, priors={"lr": 0.02, "weight_decay": 1e-4})
