"""ResNet-18, -34 and -50 on faces, from scratch at 48 pixels or from ImageNet's weights.

    python -m sweeps.run resnet18_space
    python -m sweeps.run resnet18_space --set weights=imagenet --set size=224 --set channels=3 \\
        --set normalisation=imagenet

The baseline is the recipe of He et al. (2016): SGD .1, momentum .9, decay 1e-4 on all parameters, batch 256, a tenth at
each third of the run. The second command transfers ImageNet's weights, where their file is in torch's hub cache.

Measured 2026-11-23 on one core: 7.0 minutes, 50.93 % of PublicTest (resnet18 at 96 pixels, 3 epochs of 8,000 faces,
settings of its own in docs/results.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_models import ResNet18Config, ResNet34Config, ResNet50Config
from sweeps.config import TrialConfig
from sweeps.space import Baseline, Space
from sweeps.spaces.drawing import HE_2016, draw_augment, draw_recipe

if TYPE_CHECKING:
    import optuna

ResNetConfig = ResNet18Config | ResNet34Config | ResNet50Config


def _space(net: ResNetConfig) -> Space:
    def suggest(trial: optuna.Trial) -> TrialConfig:
        drawn = net.model_copy(update={"dropout": trial.suggest_float("dropout", 0.0, 0.5)})
        recipe = draw_recipe(trial, lr=(3e-3, 0.5))
        return TrialConfig(net=drawn, recipe=recipe, augment=draw_augment(trial, mixup=0.4))

    baseline = Baseline(f"{net.name} (He et al.)", TrialConfig(net=net, recipe=HE_2016), epochs=90)
    return Space(
        suggest=suggest, baselines=[baseline], max_epochs=20, trials=10, priors={"lr": 0.05, "weight_decay": 1e-4}
    )


RESNET18 = _space(ResNet18Config(size=48, channels=1, normalisation="standardise"))
RESNET34 = _space(ResNet34Config(size=48, channels=1, normalisation="standardise"))
RESNET50 = _space(ResNet50Config(size=48, channels=1, normalisation="standardise"))
