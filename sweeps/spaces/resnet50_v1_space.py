"""ResNet-50 as the Caffe report has it, the stride in the first 1x1 of a block, on grey faces of 224 pixels.

    python -m sweeps.run resnet50_v1_space --set net.size=96

The baseline is the report's: SGD .001, momentum .9, decay 1e-4, batch 10, (x-128)/256; it had 55 % validation
accuracy at a seventh of its run. On CPUs take a smaller size: cost grows with its square.
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
    TrialConfig(net=ResNet50V1Config(), recipe=Recipe(lr=1e-3, weight_decay=1e-4, batch_size=10)),
    reported="55 % validation, at a seventh of its run",
)


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Draw one configuration."""
    net = ResNet50V1Config(dropout=trial.suggest_float("dropout", 0.0, 0.5))
    recipe = draw_recipe(trial, lr=(0.005, 0.1), batch_sizes=(32, 64))
    return TrialConfig(net=net, recipe=recipe, augment=draw_augment(trial))


SPACE = Space(suggest=suggest, baselines=[REPORT], max_epochs=12, trials=8)
