"""The R/Keras report's net for happy or sad, on FER2013's faces of these two classes.

    python -m sweeps.run happy_sad_space --data fer2013.csv --classes happy,sad

The baseline is the report's: SGD .01 without momentum, batch 32, constant rate, here at 48 pixels (the report: 244,
for which --set net.size=244, enlarged bilinearly where Keras takes the nearest pixel). Its best validation accuracy was
78.27 %, on a split of its own.

Measured 2026-11-27 on an H200 beside 13 other rows: 0.3 minutes, 80.94 % of PublicTest (`happy_sad_48`, its happy and
sad faces, 10 epochs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_models import HappySadConfig, Recipe
from sweeps.config import TrialConfig
from sweeps.space import Baseline, Space
from sweeps.spaces.drawing import draw_augment, draw_recipe

if TYPE_CHECKING:
    import optuna

REPORT = Baseline(
    "happy or sad (R/Keras report)",
    TrialConfig(net=HappySadConfig(size=48), recipe=Recipe(lr=0.01, momentum=0.0, batch_size=32)),
    reported="78.27 % validation of its own split, best epoch",
)


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Draw one configuration."""
    net = HappySadConfig(
        size=48,
        conv_dropout=trial.suggest_float("conv_dropout", 0.0, 0.5),
        dropout=trial.suggest_float("dropout", 0.2, 0.7),
    )
    return TrialConfig(net=net, recipe=draw_recipe(trial, lr=(1e-3, 0.3)), augment=draw_augment(trial))


SPACE = Space(suggest=suggest, baselines=[REPORT], max_epochs=20, trials=12, priors={"lr": 0.02, "weight_decay": 1e-4})
