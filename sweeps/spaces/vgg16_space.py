"""VGG-16 on 48-pixel faces, as the VGG report has it and with the changes that make it learn.

    python -m sweeps.run vgg16_space

The baseline is the VGG report's exact net, which collapsed to one class at 48 pixels: Adam 1e-4, batch 128, raw grey
levels. The search is over the same net with batch norm, He's start and standardised faces. For a GPU.

Measured 2026-11-27 on an H200 beside 13 other rows: 0.4 minutes, 58.57 % of PublicTest (`vgg16`, 10 epochs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_models import Recipe, VGG16Config
from sweeps.config import TrialConfig
from sweeps.space import Baseline, Space
from sweeps.spaces.drawing import draw_augment, draw_recipe

if TYPE_CHECKING:
    import optuna

REPORT = Baseline(
    "vgg16 (VGG report)",
    TrialConfig(net=VGG16Config(), recipe=Recipe(optimizer="adam", lr=1e-4, batch_size=128)),
    reported="collapsed",
)


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Draw one configuration."""
    net = VGG16Config(
        norm="batch",
        channels=1,
        normalisation="standardise",
        classifier=trial.suggest_categorical("classifier", ["fc4096", "average"]),
        dropout=trial.suggest_float("dropout", 0.2, 0.6),
    )
    return TrialConfig(net=net, recipe=draw_recipe(trial, lr=(1e-3, 0.3)), augment=draw_augment(trial))


SPACE = Space(suggest=suggest, baselines=[REPORT], max_epochs=20, trials=8, priors={"lr": 0.03, "weight_decay": 1e-4})
