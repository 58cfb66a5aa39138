"""The VGG report's table of preprocessings, on its vgg_small: every row, and every row as its program computed it.

    python -m sweeps.run preprocessing_space --data fer2013.csv

The rows are the baselines, so that a run of the default length is the whole table. The report's figures (test
accuracy) come mostly from a fault: what its filters gave was stored in arrays of whole numbers. The rows in _int64
repeat that; 24.49 % is what the answer "Happy" for every face has. More trials draw a preprocessing and a rate.

Measured 2026-11-27 on an H200 beside 13 other rows: 2.9 minutes, 55.00 % of PublicTest (`vgg_small`, the first row of
the table, 100 epochs). The whole table has not been run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_data.augmentation.preprocess_names import INT64_SUFFIX, PREPROCESSINGS, Preprocessing
from fer_models import Recipe, VGGSmallConfig
from sweeps.config import TrialConfig
from sweeps.space import Baseline, Space
from sweeps.spaces.drawing import draw_augment, draw_recipe

if TYPE_CHECKING:
    import optuna

_REPORTED = {
    "none": 56.9,
    "clahe": 33.15,
    "equalise_local": 56.48,
    "normalise": 27.39,
    "prewitt": 24.49,
    "scharr": 24.49,
    "sobel": 24.49,
    "roberts": 24.49,
    "yen": 51.41,
    "isodata": 50.93,
    "mean_threshold": 53.49,
    "standardise": 53.5,
}


def _row(name: Preprocessing) -> Baseline:
    config = TrialConfig(
        net=VGGSmallConfig(), recipe=Recipe(optimizer="adam", lr=1e-4, batch_size=128), preprocess=name
    )
    reported = _REPORTED.get(name.removesuffix(INT64_SUFFIX))
    return Baseline(f"vgg_small, {name}", config, f"{reported} % test" if reported else "")


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Draw one configuration."""
    return TrialConfig(
        net=VGGSmallConfig(normalisation="standardise"),
        recipe=draw_recipe(trial, lr=(1e-4, 0.02), optimizer="adamw"),
        augment=draw_augment(trial),
        preprocess=trial.suggest_categorical("preprocess", list(PREPROCESSINGS)),
    )


BASELINES = [_row(name) for name in PREPROCESSINGS]
SPACE = Space(
    suggest=suggest,
    baselines=BASELINES,
    max_epochs=12,
    trials=len(BASELINES),
    priors={"lr": 0.001, "weight_decay": 1e-4},
)
