"""The DL-course report's experiment: plain faces against plain and augmented ones, and what more variation brings.

    python -m sweeps.run augmentation_space --data fer2013.csv

The baselines are the report's net and recipe on plain faces, on augmented ones, and on each face once plain and once
augmented (an epoch twice as long): as the report has it, and as its program computed it, with half of the augmented
faces blank. The search is over the strengths of every variation, on the
compact residual net, which two cores train in minutes.

Measured 2026-11-27 on an H200 beside 13 other rows: 1.2 minutes, 63.33 % of PublicTest (`deep_cnn_augmented`, the
third baseline, 9 epochs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_data import AugmentConfig
from fer_data.augmentation.augment_config import DL_COURSE
from sweeps.config import TrialConfig
from sweeps.space import Space
from sweeps.spaces.compact_resnet_space import CHAMPION
from sweeps.spaces.deep_cnn_space import AS_IT_RAN, PLAIN, report

if TYPE_CHECKING:
    import optuna

AUGMENTED = report("deep CNN, augmented", DL_COURSE)
BOTH = report("deep CNN, plain and augmented", DL_COURSE.model_copy(update={"plain_and_augmented": True}))


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Draw one configuration."""
    augment = AugmentConfig(
        flip=trial.suggest_float("flip", 0, 0.5),
        crop_pad=trial.suggest_int("crop_pad", 0, 6),
        rotate_deg=trial.suggest_float("rotate_deg", 0, 20),
        shift=trial.suggest_float("shift", 0, 0.15),
        scale=trial.suggest_float("scale", 0, 0.25),
        shear_deg=trial.suggest_float("shear_deg", 0, 15),
        brightness=trial.suggest_float("brightness", 0, 0.3),
        contrast=trial.suggest_float("contrast", 0, 0.4),
        noise=trial.suggest_float("noise", 0, 15),
        blur=trial.suggest_float("blur", 0, 0.3),
        erase=trial.suggest_float("erase", 0, 0.6),
        mixup=trial.suggest_float("mixup", 0, 0.4),
        cutmix=trial.suggest_float("cutmix", 0, 1),
    )
    return CHAMPION.model_copy(update={"augment": augment})


SPACE = Space(
    suggest=suggest,
    baselines=[PLAIN, AUGMENTED, BOTH, AS_IT_RAN],
    max_epochs=15,
    trials=15,
    first_rung_epochs=3,
)
