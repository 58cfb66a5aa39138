"""GoogLeNet on 48-pixel faces: the net that the Caffe report names and has no file of.

    python -m sweeps.run googlenet_space

The baselines are BVLC's two solvers: SGD .01, momentum .9, decay 2e-4 on weights alone, biases at twice the learning
rate, batch 32, mirror images, auxiliary heads weighing .3. The quick one, which made BVLC's published weights, lowers
the rate as (1 - i / 2,400,000) ^ .5; the other one multiplies it by .96 each 320,000 of 10,000,000 iterations.

Measured 2026-11-27 on an H200 beside 13 other rows: 7.4 minutes, 59.29 % of PublicTest (`googlenet`, 14 of 20
epochs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fer_data import AugmentConfig
from fer_models import GoogLeNetConfig, Recipe
from sweeps.config import TrialConfig
from sweeps.space import Baseline, Space
from sweeps.spaces.drawing import draw_augment, draw_recipe

if TYPE_CHECKING:
    import optuna

NET = GoogLeNetConfig(channels=1, normalisation="standardise")


def _bvlc(name: str, epochs: int, **policy: Any) -> Baseline:
    config = TrialConfig(
        net=GoogLeNetConfig(channels=1, normalisation="mean_image"),
        recipe=Recipe(lr=0.01, weight_decay=2e-4, bias_lr_factor=2.0, batch_size=32, **policy),
        augment=AugmentConfig(flip=0.5),
    )
    return Baseline(name, config, epochs=epochs)


QUICK = _bvlc("GoogLeNet (BVLC, quick solver)", 60, lr_policy="poly", power=0.5, reference_iterations=2_400_000)
BVLC = _bvlc(
    "GoogLeNet (BVLC)", 250, lr_policy="step", gamma=0.96, step_iterations=320_000, reference_iterations=10_000_000
)


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Draw one configuration."""
    net = NET.model_copy(
        update={
            "dropout": trial.suggest_float("dropout", 0.1, 0.5),
            "auxiliary_weight": trial.suggest_categorical("auxiliary_weight", [0.0, 0.3]),
        }
    )
    return TrialConfig(net=net, recipe=draw_recipe(trial, lr=(1e-3, 0.3)), augment=draw_augment(trial))


SPACE = Space(
    suggest=suggest, baselines=[QUICK, BVLC], max_epochs=20, trials=10, priors={"lr": 0.03, "weight_decay": 2e-4}
)
