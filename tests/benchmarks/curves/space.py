"""What FER-Curves is drawn from: two nets, and ranges so wide that most of them learn little or nothing."""

from __future__ import annotations

from typing import Any, Protocol

import optuna
from optuna.distributions import BaseDistribution

from fer_data import AugmentConfig
from fer_models import CompactResNetConfig, LeNetConfig, Recipe
from sweeps.config import TrialConfig
from sweeps.space import Space


class Draws(Protocol):
    """What `draw_steps` needs of a trial."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = ...) -> float: ...

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Draw one configuration; each net has a width of its own."""
    recipe = Recipe(**draw_steps(trial), label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.2))
    augment = AugmentConfig(
        flip=trial.suggest_float("flip", 0.0, 0.5),
        rotate_deg=trial.suggest_float("rotate_deg", 0.0, 30.0),
        shift=trial.suggest_float("shift", 0.0, 0.2),
        scale=trial.suggest_float("scale", 0.0, 0.3),
        erase=trial.suggest_float("erase", 0.0, 0.6),
    )
    return TrialConfig(net=_net(trial), recipe=recipe, augment=augment, memory_format="channels_last")


def draw_steps(trial: Draws) -> dict[str, Any]:
    """Optimizer, learning rate and batch from wide ranges, as the recipe has them."""
    return {
        "optimizer": "nesterov",
        "lr": trial.suggest_float("lr", 1e-4, 1.0, log=True),
        "momentum": trial.suggest_float("momentum", 0.5, 0.99),
        "weight_decay": trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [32, 64, 128, 256]),
        "lr_policy": trial.suggest_categorical("lr_policy", ["constant", "cosine", "onecycle"]),
    }


def _net(trial: optuna.Trial) -> LeNetConfig | CompactResNetConfig:
    dropout = trial.suggest_float("dropout", 0.0, 0.8)
    if trial.suggest_categorical("net", ["lenet", "compact_resnet"]) == "lenet":
        trial.suggest_categorical("lenet.width", [4, 6, 8])  # which `LeNetConfig` does not have; the recorder does
        return LeNetConfig(dropout=dropout)
    width = trial.suggest_categorical("compact_resnet.width", [8, 12])
    widths = (width, 2 * width, 4 * width, 8 * width)
    return CompactResNetConfig(size=32, widths=widths, blocks=(1, 1, 1, 1), dropout=dropout)


def distributions() -> dict[str, BaseDistribution]:
    """All parameters of the space; random draws of 20 seeds contain each net."""
    found: dict[str, BaseDistribution] = {}
    for seed in range(20):
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
        suggest(trial)
        found |= trial.distributions
    return found


SPACE = Space(suggest=suggest, max_epochs=9, trials=100, name="fer_curves")
