"""A sweep of seconds with a trial that is pruned: a baseline, then rates of which the last one learns nothing."""

from __future__ import annotations

import optuna

from fer_models import Recipe
from sweeps import Baseline, Space, TrialConfig
from tests.stand_ins import SMALL_NET


def _config(lr: float) -> TrialConfig:
    recipe = Recipe(lr=lr, batch_size=50)
    return TrialConfig(net=SMALL_NET, recipe=recipe, precision="fp32", memory_format="contiguous")


def suggest(trial: optuna.Trial) -> TrialConfig:
    return _config(1e-7 if trial.number == 3 else trial.suggest_float("lr", 0.005, 0.02, log=True))


SPACE = Space(
    suggest=suggest, baselines=[Baseline("by hand", _config(0.01))], max_epochs=3, trials=4, first_rung_epochs=1
)
