"""ResNet-50 as the Caffe report has it, the stride in the first 1x1 of a block, on grey faces of 224 pixels.

    python -m sweeps.run resnet50_v1_space --set net.size=96

The baseline is the report's, from the published solver that it takes over: SGD .001, momentum .9, decay 1e-4 on all
parameters, the last layer's bias at twice the learning rate, batch 10, (x-128)/256, a tenth of the rate at each of
150,000, 300,000, 450,000, 600,000 and 750,000 of 1,800,000 iterations. It had 55 % validation accuracy at a seventh of
its run.
On CPUs take a smaller size: cost grows with its square.

Measured 2026-11-27 on an H200 beside 13 other rows: 7.1 minutes, 45.08 % of PublicTest (`resnet50_v1_224`, 5 of 20
epochs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_models import Recipe, ResNet50V1Config
from sweeps.config import TrialConfig
from sweeps.space import Baseline, Space
from sweeps.spaces.drawing import draw_augment, draw_recipe

if TYPE_CHECKING:
    import optuna

REPORT = Baseline(
    "ResNet-50 (Caffe report)",
    TrialConfig(
        net=ResNet50V1Config(),
        recipe=Recipe(
            lr=1e-3,
            weight_decay=1e-4,
            decay_bias_and_norm=True,
            bias_lr_factor=2.0,
            batch_size=10,
            lr_policy="multistep",
            gamma=0.1,
            step_iterations=(150_000, 300_000, 450_000, 600_000, 750_000),
            reference_iterations=1_800_000,
        ),
    ),
    reported="55 % validation, at a seventh of its run",
    epochs=627,  # 1,800,000 batches of 10 of 28,709 faces
)


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Draw one configuration."""
    net = ResNet50V1Config(dropout=trial.suggest_float("dropout", 0.0, 0.5))
    recipe = draw_recipe(trial, lr=(1e-3, 0.3), batch_sizes=(32, 64))
    return TrialConfig(net=net, recipe=recipe, augment=draw_augment(trial))


SPACE = Space(suggest=suggest, baselines=[REPORT], max_epochs=12, trials=8, priors={"lr": 0.02, "weight_decay": 1e-4})
