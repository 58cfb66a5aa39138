"""The DL-course report's net of nine convolutions: 20.6 million parameters, 48 pixels.

    python -m sweeps.run deep_cnn_space

The baselines are the report's: SGD .003, momentum .9, decay 9e-4 on every parameter, batch 64, constant rate, on plain
faces, and on each face once plain and once with mirror images, holes and noise, about half of the latter blank by a
fault of its program. It had 62.19 and 61.97 % on PrivateTest, which it also chose on. For hours on a GPU; a step takes
seconds on a CPU.

Measured 2026-11-27 on an H200 beside 13 other rows: 1.0 minutes, 61.52 % of PublicTest (`deep_cnn_plain`, 9 epochs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_data import AugmentConfig
from fer_data.augmentation.augment_config import DL_COURSE_AS_IT_RAN
from fer_models import DeepCNNConfig, Recipe
from sweeps.config import TrialConfig
from sweeps.space import Baseline, Space
from sweeps.spaces.drawing import draw_augment, draw_recipe

if TYPE_CHECKING:
    import optuna


def report(name: str, augment: AugmentConfig, reported: str = "") -> Baseline:
    """The report's recipe with one of its ways to vary the data."""
    recipe = Recipe(lr=0.003, weight_decay=9e-4, decay_bias_and_norm=True, batch_size=64)
    return Baseline(name, TrialConfig(net=DeepCNNConfig(), recipe=recipe, augment=augment), reported)


PLAIN = report("deep CNN, plain", AugmentConfig(), "62.19 % PrivateTest")
AS_IT_RAN = report(
    "deep CNN, plain and augmented as it ran",
    DL_COURSE_AS_IT_RAN.model_copy(update={"plain_and_augmented": True}),
    "61.97 % PrivateTest",
)


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Draw one configuration."""
    recipe = draw_recipe(trial, lr=(3e-4, 0.1), batch_sizes=(64,))
    return TrialConfig(net=DeepCNNConfig(), recipe=recipe, augment=draw_augment(trial, mixup=0.4))


SPACE = Space(
    suggest=suggest, baselines=[PLAIN, AS_IT_RAN], max_epochs=9, trials=8, priors={"lr": 0.007, "weight_decay": 9e-4}
)
