"""LeNet on 48-pixel faces: the Caffe report's first net, in minutes.

    python -m sweeps.run lenet_space

The baselines are the report's schedules (SGD .01, momentum .9, decay 5e-4 on weights and biases, biases at twice the
learning rate, batch 64, 10,000 iterations): "inv", and "step" each 500 iterations with gamma .9, as its text has it, .8
and .5, as its log files do. Its best logged validation accuracy, 53.12 %, is in the log of gamma .8.

Measured 2026-11-27 on an H200 beside 13 other rows: 0.6 minutes, 54.14 % of PublicTest (`lenet_step_8`, 22 epochs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fer_models import LeNetConfig, Recipe
from sweeps.config import TrialConfig
from sweeps.space import Baseline, Space
from sweeps.spaces.drawing import draw_augment

if TYPE_CHECKING:
    import optuna


_EPOCHS = 22
"""10,000 batches of 64 of FER2013's 28,709 train faces."""


def _report(name: str, reported: str = "", **policy: Any) -> Baseline:
    recipe = Recipe(
        optimizer="sgd",
        lr=0.01,
        momentum=0.9,
        weight_decay=5e-4,
        decay_bias_and_norm=True,
        bias_lr_factor=2.0,
        batch_size=64,
        reference_iterations=10_000,
        **policy,
    )
    return Baseline(name, TrialConfig(net=LeNetConfig(), recipe=recipe), reported, epochs=_EPOCHS)


LENET_INV = _report("LeNet inv", lr_policy="inv", gamma=1e-4, power=0.75)
LENET_STEP = _report("LeNet step", lr_policy="step", gamma=0.9, step_iterations=500)
LENET_STEP_8 = _report(
    "LeNet step, gamma .8",
    lr_policy="step",
    gamma=0.8,
    step_iterations=500,
    reported="53.12 % validation (best logged)",
)
LENET_STEP_5 = _report("LeNet step, gamma .5", lr_policy="step", gamma=0.5, step_iterations=500)


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Draw one configuration."""
    recipe = Recipe(
        optimizer="nesterov",
        lr=trial.suggest_float("lr", 0.001, 0.1, log=True),
        momentum=trial.suggest_float("momentum", 0.85, 0.95),
        weight_decay=trial.suggest_float("weight_decay", 1e-6, 0.01, log=True),
        batch_size=trial.suggest_categorical("batch_size", [32, 64, 128]),
        lr_policy=trial.suggest_categorical("lr_policy", ["onecycle", "cosine"]),
        ema_decay=0.99,
    )
    net = LeNetConfig(dropout=trial.suggest_float("dropout", 0.0, 0.6))
    return TrialConfig(net=net, recipe=recipe, augment=draw_augment(trial, erase=0))


SPACE = Space(
    suggest=suggest,
    baselines=[LENET_INV, LENET_STEP, LENET_STEP_8, LENET_STEP_5],
    max_epochs=15,
    trials=20,
    priors={"lr": 0.01, "weight_decay": 5e-4},
)
