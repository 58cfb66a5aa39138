"""Inception v3 (Szegedy et al. 2016) as torchvision has it."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fer_models.configs.net_config import InceptionV3Config
from fer_models.parts.grey_stem import grey_conv
from fer_models.parts.initialisers import seed_layers
from fer_models.parts.inputs import FaceInput
from fer_models.parts.layers import Dropout
from fer_models.parts.staged import StagedNet

_STAGES = {
    "stem": (
        "Conv2d_1a_3x3",
        "Conv2d_2a_3x3",
        "Conv2d_2b_3x3",
        "maxpool1",
        "Conv2d_3b_1x1",
        "Conv2d_4a_3x3",
        "maxpool2",
    ),
    "mixed5": ("Mixed_5b", "Mixed_5c", "Mixed_5d"),
    "mixed6": ("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    "mixed7": ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
}


def build(
    config: InceptionV3Config, classes: int, mean_image: npt.NDArray[np.float32], generator: torch.Generator
) -> StagedNet:
    """torchvision's Inception v3 with its initialization, and an auxiliary head if its loss has a weight."""
    from torchvision import models

    seed_layers(generator)
    whole = models.Inception3(num_classes=classes, aux_logits=config.auxiliary_weight > 0, init_weights=True)
    parts = OrderedDict(whole.named_children())
    if config.channels == 1:
        whole.Conv2d_1a_3x3.conv = grey_conv(whole.Conv2d_1a_3x3.conv)
    auxiliary = {"Mixed_6e": parts.pop("AuxLogits")} if "AuxLogits" in parts else {}
    del parts["dropout"], parts["fc"]
    return StagedNet(
        FaceInput(config.normalisation, mean_image, size=config.size, channels=config.channels),
        nn.Sequential(parts),
        nn.Sequential(Dropout(config.dropout), whole.fc),
        _STAGES,
        auxiliary=auxiliary,
        auxiliary_weight=config.auxiliary_weight,
    )
